"""What is inserted into a host's batches, and where: written once for all adapters.

An adapter says how a host's items look (a `Contract`). In both ways in, `wrap` and
`attach`, a pseudo video takes the place of the features in a real item of the class
that it claims, so that everything else in the item is the host's own.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from .generation import count_pseudo_videos, order_sources
from .items import ItemFormat
from .randomness import make_generator, preserved_global_rng
from .sampler import PseudoVideoSampler

logger = logging.getLogger("vad_pseudoaug")
MAX_WORKERS = 64


class View(NamedTuple):
    """A video in an item: its class and how it lies there."""

    label: int
    item_format: ItemFormat


class Contract(Protocol):
    """What a host's items look like."""

    def views(self, item: Any) -> Sequence[View]:
        """Return the videos in an item."""


class OneClass(NamedTuple):
    """Items of one class: the class is told by the loader, never by the item."""

    label: int
    item_format: ItemFormat

    def views(self, item: Any) -> Sequence[View]:
        """Return the one video of the item."""
        return (View(self.label, self.item_format),)


class Sources:
    """Real videos of one class in a host's dataset, which pseudo videos are made of.

    Reading leaves the global random states as they were.
    """

    def __init__(self, dataset: Any, contract: Contract, *, label: int):
        self.dataset = dataset
        self.contract = contract
        self.label = label

    def __len__(self) -> int:
        return len(self.dataset)

    def features(self, index: int) -> Tensor:
        """Return the features of a video, float32 `(N, T, D)`."""
        with preserved_global_rng():
            item = self.dataset[index]
        for label, item_format in self.contract.views(item):
            if label == self.label:
                return item_format.read(item, name=f"item {index} of the dataset")
        raise ValueError(f"item {index} of the dataset has no video of {self.label}")


class PseudoVideoMaker:
    """Makes pseudo videos of a host's real ones.

    Args:
        sampler: Moved to the CPU in a copy where it is elsewhere: datasets and
            collate functions run in worker processes, which share no GPU.
        sources: For each class made, the real videos of the other class.
    """

    def __init__(self, sampler: PseudoVideoSampler, sources: dict[int, Sources]):
        self.sampler = sampler.worker_copy()
        self.sources = sources

    def make(
        self, label: int, index: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Make one pseudo video: features `(N, T, D)` and its mask `(T,)`."""
        pseudo = self.sampler.sample(
            self.sources[label].features(index), label=label, generator=generator
        )
        return pseudo.features, pseudo.pseudo_mask


class AppendedDataset(Dataset[Any]):
    """A host's dataset with pseudo videos behind its own.

    Items below the host's length are the host's, untouched. Each item above is made
    when asked for, the same one each time. Attributes and methods that this class does
    not have are the host's.
    """

    def __init__(
        self,
        dataset: Any,
        contract: OneClass,
        maker: PseudoVideoMaker,
        *,
        per_video: float,
        seed: int,
    ):
        """Append pseudo videos of the contract's class.

        Args:
            dataset: The host's, whose items are also the templates.
            contract: What its items look like.
            maker: Makes the pseudo videos.
            per_video: Pseudo videos per source.
            seed: Seed of the pseudo videos.
        """
        self._dataset = dataset
        self._contract = contract
        self._maker = maker
        self._seed = seed
        num_sources = len(maker.sources[contract.label])
        self._order = order_sources(
            num_sources,
            count_pseudo_videos(num_sources, per_video),
            generator=make_generator(seed, contract.label),
        )

    @property
    def num_pseudo(self) -> int:
        """Number of pseudo videos behind the real ones."""
        return len(self._order)

    def pseudo_mask(self, index: int) -> Tensor | None:
        """Return which segments of item `index` were generated: bool `(T,)`.

        None for a real video.
        """
        number = range(len(self))[index] - len(self._dataset)
        return self._make(number)[1] if number >= 0 else None

    def _make(self, number: int) -> tuple[Tensor, Tensor]:
        label = self._contract.label
        generator = make_generator(self._seed, label, number)
        return self._maker.make(label, self._order[number], generator)

    def __len__(self) -> int:
        return len(self._dataset) + len(self._order)

    def __getitem__(self, index: int) -> Any:
        number = range(len(self))[index] - len(self._dataset)
        if number < 0:
            return self._dataset[index]
        features, _ = self._make(number)
        with preserved_global_rng():
            template = self._dataset[number % len(self._dataset)]
        return self._contract.item_format.replace(template, features)

    def __getattr__(self, name: str) -> Any:
        # Called only for what this class lacks; nothing is there yet while unpickling.
        if name.startswith("__") or "_dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._dataset, name)


class Mixer:
    """A collate function that replaces videos before the host's own collates them.

    Epoch, switch and counters live in shared memory: they hold for worker processes.
    """

    def __init__(
        self,
        collate: Callable[[list[Any]], Any],
        contract: Contract,
        maker: PseudoVideoMaker,
        *,
        p: float,
        seed: int,
        enabled: bool,
    ):
        if not 0 <= p <= 1:
            raise ValueError(f"p: expected a probability in [0, 1], got {p}")
        self.collate = collate
        self.p = p
        self._contract = contract
        self._maker = maker
        self._seed = seed
        # Row 0: epoch and switch. Row 1 + w: videos seen and replaced by worker w.
        self._shared = torch.zeros(
            (1 + MAX_WORKERS, 2), dtype=torch.int64, device="cpu"
        ).share_memory_()
        self._shared[0, 1] = int(enabled)

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; may be switched at any time."""
        return bool(self._shared[0, 1])

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._shared[0, 1] = int(value)

    def counts(self) -> tuple[int, int]:
        """Return how many videos were seen, and how many of them replaced."""
        seen, replaced = self._shared[1:].sum(dim=0).tolist()
        return seen, replaced

    def next_epoch(self) -> None:
        """Count an iteration over the loader: it draws other pseudo videos."""
        self._shared[0, 0] += 1

    def __call__(self, items: list[Any]) -> Any:
        """Replace each video with probability p, then collate as the host does."""
        if self.p == 0 or not self.enabled:
            return self.collate(items)
        return self.collate([self._mix(item) for item in items])

    def _mix(self, item: Any) -> Any:
        worker = get_worker_info()
        counter = self._shared[1 + (worker.id % MAX_WORKERS if worker else 0)]
        epoch = int(self._shared[0, 0])
        for label, item_format in self._contract.views(item):
            counter[0] += 1
            # The stream is a function of video and epoch, not of the place in a batch
            # or of the worker: the number of workers changes nothing.
            key = _fingerprint(item_format.get(item))
            generator = make_generator(self._seed, label, epoch, key)
            if torch.rand((), generator=generator, device="cpu").item() < self.p:
                num_sources = len(self._maker.sources[label])
                index = torch.randint(
                    num_sources, (), generator=generator, device="cpu"
                ).item()
                features, _ = self._maker.make(label, int(index), generator)
                item = item_format.replace(item, features)
                counter[1] += 1
        return item


def _fingerprint(features: Any) -> int:
    """Tell videos apart by a few rows of their features."""
    if isinstance(features, Tensor):
        features = features.detach().cpu().numpy()
    rows = features.reshape(-1, features.shape[-1])
    few = rows[[0, len(rows) // 3, len(rows) // 2, len(rows) - 1]]
    return zlib.crc32(np.ascontiguousarray(few).tobytes())
