"""What is inserted into a host's batches, and where: written once for all adapters.

In both ways in, `wrap` and `attach`, a pseudo video takes the place of the features in
a real item of the class that it claims, so that everything else in the item is the
host's own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, get_worker_info

from .contracts import Contract, Sources, View
from .generation import count_pseudo_videos, order_sources
from .items import ItemFormat, to_numpy, with_members
from .randomness import make_generator, preserved_global_rng
from .sampler import PseudoVideoSampler
from .vae import ABNORMAL, NORMAL

MAX_WORKERS = 64


class MixOptions(TypedDict, total=False):
    """The keywords of every `attach`; their meaning and defaults: `Mixing`."""

    p: float
    ratio: float | None
    seed: int
    enabled: bool
    start_after: int
    start_unit: Literal["steps", "epochs"]
    give_mask: bool
    allow_single: bool


@dataclass(frozen=True)
class Mixing:
    """How videos are replaced in a host's batches.

    Attributes:
        p: Probability with which each video is replaced.
        ratio: Share of the videos of each batch that is replaced, rounded, in place
            of `p`; which ones is random.
        seed: Seed of which videos are replaced, of their sources, and of the pseudo
            videos. The number of workers has no influence.
        enabled: Whether to start at once; `Attachment.enabled` switches later.
        start_after: Warm-up: nothing is replaced in the first batches or epochs.
        start_unit: What `start_after` counts: "steps" are batches of the loader,
            "epochs" calls of `iter(loader)`.
        give_mask: Add `pseudo_mask` to the items, bool `(T,)`: True where a segment
            was generated. Tuples get one member more at the end, dictionaries the key
            "pseudo_mask"; the host must expect it.
        allow_single: Allow a loader with batches of one video, which is refused
            otherwise because test loaders look so.
    """

    p: float = 0.5
    ratio: float | None = None
    seed: int = 0
    enabled: bool = True
    start_after: int = 0
    start_unit: Literal["steps", "epochs"] = "epochs"
    give_mask: bool = False
    allow_single: bool = False

    def __post_init__(self) -> None:
        for name, value in (("p", self.p), ("ratio", self.ratio)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a value in [0, 1], got {value}")
        if self.start_unit not in ("steps", "epochs"):
            raise ValueError(
                f"start_unit: expected 'steps' or 'epochs', got {self.start_unit!r}"
            )
        if self.start_after < 0 or self.seed < 0:
            raise ValueError(
                f"start_after and seed: expected values >= 0, got {self.start_after} "
                f"and {self.seed}"
            )

    @property
    def inert(self) -> bool:
        """Whether no video can ever be replaced."""
        return not (self.p if self.ratio is None else self.ratio)


class Made(NamedTuple):
    """A pseudo video in the host's feature space: `(N, T, D)`, and its mask `(T,)`."""

    features: Tensor
    mask: Tensor


class PseudoVideoMaker:
    """Makes pseudo videos of a host's real ones.

    Args:
        sampler: Moved to the CPU in a copy where it is elsewhere: datasets and
            collate functions run in worker processes, which share no GPU.
        sources: For each class made, the real videos of the other class.
    """

    def __init__(self, sampler: PseudoVideoSampler, sources: Mapping[int, Sources]):
        self.sampler = sampler.worker_copy()
        self.sources = sources

    def make(
        self, label: int, number: int, generator: torch.Generator, *, length: int | None
    ) -> Made:
        """Make a pseudo video of class `label` of source `number`.

        Args:
            label: 0 normal or 1 abnormal.
            number: Number of the source.
            generator: Where mask and noise come from.
            length: Number of segments that the source is interpolated to first; None
                keeps its own.
        """
        features, item_format = self.sources[label].read(number)
        if length is not None and features.shape[1] != length:
            features = functional.interpolate(
                features.transpose(1, 2), size=length, mode="linear", align_corners=True
            ).transpose(1, 2)
        return translate_video(self.sampler, features, item_format, label, generator)


def translate_video(
    sampler: PseudoVideoSampler,
    features: Tensor,
    item_format: ItemFormat,
    label: int,
    generator: torch.Generator,
) -> Made:
    """Make a pseudo video of a host's features, `(N, T, D)` with all its channels."""
    source = features[..., item_format.generated]
    pseudo = sampler.sample(source, label=label, generator=generator)
    # Hosts take an all-zero segment for padding: where one comes out, the source stays.
    alive = pseudo.features.any(dim=-1).any(dim=0)  # (T,)
    kept = torch.where(alive[None, :, None], pseudo.features, source)
    mask = pseudo.pseudo_mask & alive
    return Made(item_format.write(features, kept), mask)


class AppendedDataset(Dataset[Any]):
    """A host's dataset with pseudo videos behind its own.

    Items below the host's length are the host's, untouched. Each item above is made
    when asked for, the same one each time. Attributes and methods that this class does
    not have are the host's.

    Args:
        dataset: The host's.
        contract: What its items look like.
        maker: Makes the pseudo videos.
        templates: For each class appended, the items whose features are replaced.
        per_video: Pseudo videos per source.
        seed: Seed of the pseudo videos.
        together: Whether an item holds one video of each class, and both are replaced.
    """

    def __init__(
        self,
        dataset: Any,
        contract: Contract,
        maker: PseudoVideoMaker,
        *,
        templates: Mapping[int, Sequence[int]],
        per_video: float,
        seed: int,
        together: bool = False,
    ):
        self._dataset = dataset
        self._contract = contract
        self._maker = maker
        self._seed = seed
        orders = {}
        for label in templates:
            num_sources = len(maker.sources[label])
            count = count_pseudo_videos(num_sources, per_video)
            generator = make_generator(seed, label)
            orders[label] = order_sources(num_sources, count, generator=generator)
        # For each item appended: the template, and the source for each class made.
        self._plan: list[tuple[int, dict[int, int]]] = []
        if together:
            columns = zip(*orders.values(), strict=True)
            for number, row in enumerate(columns):
                self._plan.append(
                    (number % len(dataset), dict(zip(orders, row, strict=True)))
                )
        else:
            for label, order in orders.items():
                real = templates[label]
                for number, source in enumerate(order):
                    self._plan.append((real[number % len(real)], {label: source}))

    @property
    def num_pseudo(self) -> int:
        """Number of pseudo items behind the real ones."""
        return len(self._plan)

    def pseudo_mask(self, index: int) -> Tensor | None:
        """Return which segments of item `index` were generated: bool `(T,)`.

        None for a real item; of a pair, the mask of the abnormal video.
        """
        number = range(len(self))[index] - len(self._dataset)
        if number < 0:
            return None
        masks = self._make(number)[1]
        return masks[max(masks)]

    def _make(self, number: int) -> tuple[Any, dict[int, Tensor]]:
        template, sources = self._plan[number]
        with preserved_global_rng():
            item = self._dataset[template]
        masks = {}
        for label, item_format in self._contract.views(item):
            made = self._maker.make(
                label,
                sources[label],
                make_generator(self._seed, label, number),
                length=item_format.segments(item) if item_format.any_length else None,
            )
            item = item_format.replace(item, made.features)
            masks[label] = made.mask
        return item, masks

    def __len__(self) -> int:
        return len(self._dataset) + len(self._plan)

    def __getitem__(self, index: int) -> Any:
        number = range(len(self))[index] - len(self._dataset)
        if number < 0:
            return self._dataset[range(len(self))[index]]
        return self._make(number)[0]

    def __getattr__(self, name: str) -> Any:
        # Called only for what this class lacks; nothing is there yet while unpickling.
        if name.startswith("__") or "_dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._dataset, name)


class Mixer:
    """A collate function that replaces videos before the host's own collates them.

    Epoch, switch and counters live in shared memory: they hold for worker processes.

    Args:
        collate: The host's.
        contract: What the items look like.
        maker: Makes the pseudo videos.
        mixing: How many are replaced, and when.
        retarget: Chooses the class that is made in place of an item; None keeps it.
    """

    def __init__(
        self,
        collate: Callable[[list[Any]], Any],
        contract: Contract,
        maker: PseudoVideoMaker,
        mixing: Mixing,
        *,
        retarget: TargetShare | None = None,
    ):
        self.collate = collate
        self.mixing = mixing
        self._contract = contract
        self._maker = maker
        self._retarget = retarget
        # Row 0: epoch, switch, batches before this epoch. Row 1 + w: videos seen and
        # replaced, and batches made, by worker w.
        self._shared = torch.zeros(
            (1 + MAX_WORKERS, 3), dtype=torch.int64, device="cpu"
        ).share_memory_()
        self._shared[0, 1] = int(mixing.enabled)
        self._batches = (0, 0)  # epoch, and batches that this process made in it

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; may be switched at any time."""
        return bool(self._shared[0, 1])

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._shared[0, 1] = int(value)

    def counts(self) -> tuple[int, int]:
        """Return how many videos were seen, and how many of them replaced."""
        seen, replaced, _ = self._shared[1:].sum(dim=0).tolist()
        return seen, replaced

    def next_epoch(self) -> None:
        """Count an iteration over the loader: it draws other pseudo videos."""
        self._shared[0, 2] = self._shared[1:, 2].sum()
        self._shared[0, 0] += 1

    def __call__(self, items: list[Any]) -> Any:
        """Replace videos, then collate as the host does."""
        if self.mixing.inert and not self.mixing.give_mask:
            return self.collate(items)
        return self.collate(self.mix(items))

    def mix(self, items: list[Any]) -> list[Any]:
        """Replace videos in the items of a batch."""
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, enabled, before = self._shared[0].tolist()
        own = self._batches[1] if self._batches[0] == epoch else 0
        self._batches = (epoch, own + 1)
        counter = self._shared[1 + number % MAX_WORKERS]
        counter[2] += 1
        # The first epoch is number 1. Worker w makes the batches w, w + W, w + 2 W ...
        step = before + own * workers + number
        epochs = max(epoch - 1, 0)  # 0 too where a framework rebuilt the loader
        passed = epochs if self.mixing.start_unit == "epochs" else step
        active = enabled and not self.mixing.inert
        plans = [self._plans(item, epoch) for item in items]
        if active and passed >= self.mixing.start_after:
            flat = sorted(plan.draw for row in plans for plan in row)
            limit = self._limit(flat)
        else:
            limit = -1.0
        mixed = []
        for item, row in zip(items, plans, strict=True):
            counter[0] += len(row)
            chosen = [plan for plan in row if plan.draw < limit]
            counter[1] += len(chosen)
            mixed.append(self._replace(item, chosen))
        return mixed

    def _limit(self, draws: list[float]) -> float:
        """Return the draw below which a video is replaced."""
        if self.mixing.ratio is None:
            return self.mixing.p
        count = int(self.mixing.ratio * len(draws) + 0.5)
        return draws[count] if count < len(draws) else 1.0

    def _plans(self, item: Any, epoch: int) -> list[_Plan]:
        plans = []
        for label, item_format in self._contract.views(item):
            # The stream is a function of video and epoch, not of the place in a batch
            # or of the worker: the number of workers changes nothing.
            key = fingerprint(item_format.get(item))
            generator = make_generator(self.mixing.seed, label, epoch, key)
            draw = torch.rand((), generator=generator, device="cpu").item()
            plans.append(_Plan(draw, label, generator))
        return plans

    def _replace(self, item: Any, chosen: list[_Plan]) -> Any:
        masks = {}
        for _, label, generator in chosen:
            if self._retarget is not None:
                label, item = self._retarget.choose(item, label, generator)
            item_format = dict(self._contract.views(item))[label]
            number = _draw_number(len(self._maker.sources[label]), generator)
            made = self._maker.make(
                label,
                number,
                generator,
                length=item_format.segments(item) if item_format.any_length else None,
            )
            item = item_format.replace(item, made.features)
            masks[label] = made.mask
        if self.mixing.give_mask:
            item = _add_masks(item, self._contract.views(item), masks)
        return item


class TargetShare(NamedTuple):
    """Draws the class of each pseudo video, for hosts whose loader mixes the classes.

    Attributes:
        share: Share of abnormal videos among the pseudo videos.
        templates: For each class, real items that can be the template.
    """

    share: float
    templates: Mapping[int, Sources]

    def choose(
        self, item: Any, label: int, generator: torch.Generator
    ) -> tuple[int, Any]:
        """Return the class to make, and an item of that class as the template."""
        draw = torch.rand((), generator=generator, device="cpu").item()
        target = ABNORMAL if draw < self.share else NORMAL
        if target == label:
            return label, item
        number = _draw_number(len(self.templates[target]), generator)
        return target, self.templates[target].item(number)


class _Plan(NamedTuple):
    """A video that may be replaced: if its draw is low enough, from this stream."""

    draw: float
    label: int
    generator: torch.Generator


def _draw_number(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator, device="cpu").item())


def _add_masks(item: Any, views: Sequence[View], masks: dict[int, Tensor]) -> Any:
    """Add the masks to an item: `(T,)`, of a pair `(2, T)`, the normal video first."""
    values = []
    for label, item_format in sorted(views, key=lambda view: view.label):
        full = torch.zeros(item_format.segments(item), dtype=torch.bool, device="cpu")
        if label in masks:
            full[: len(masks[label])] = masks[label]
        values.append(full)
    mask = values[0] if len(values) == 1 else torch.stack(values)
    if isinstance(item, tuple | list):
        return (*item, mask)
    if hasattr(item, "keys"):
        return with_members(item, {"pseudo_mask": mask})
    return (item, mask)


def fingerprint(features: Any) -> int:
    """Tell videos apart by a few rows of their features."""
    array = to_numpy(features)
    rows = array.reshape(-1, array.shape[-1])
    few = rows[[0, len(rows) // 3, len(rows) // 2, len(rows) - 1]]
    return zlib.crc32(np.ascontiguousarray(few).tobytes())
