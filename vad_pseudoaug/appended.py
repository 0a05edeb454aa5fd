"""The first way in: pseudo videos behind the real ones in a host's dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from .auto import Choice
from .contracts import Contract
from .entries import Entry, read_entry, write_entry
from .filling import temporary_folder
from .generation import count_pseudo_videos, order_sources
from .mixing import POOL_BYTES, Made, PseudoVideoMaker
from .randomness import make_generator, preserved_global_rng
from .repeatable import one_thread, seeded_global_rng
from .untouched import left_as_it_was


class AppendedDataset(Dataset[Any]):
    """A host's dataset with pseudo videos behind its own.

    Items below the host's length are the host's, untouched. Each item above is made
    when first asked for, and then read from a temporary folder that goes with this
    object; it is the same one each time. Attributes and methods that this class does
    not have are the host's, to be read and to be set.

    Args:
        dataset: The host's.
        contract: What its items look like.
        maker: Makes the pseudo videos.
        templates: For each class appended, the items whose features are replaced.
        per_video: Pseudo videos per source, for each class.
        seed: Seed of the pseudo videos.
        together: Whether an item holds one video of each class, and both are replaced.
        pool_bytes: What the folder may take on the disk; 0 keeps nothing.
        alone: Whether the host's items are templates only, and none is real.
        choice: Why so many are appended, where that was tried.
    """

    def __init__(
        self,
        dataset: Any,
        contract: Contract,
        maker: PseudoVideoMaker,
        *,
        templates: Mapping[int, Sequence[int]],
        per_video: Mapping[int, float],
        seed: int,
        together: bool = False,
        pool_bytes: int = POOL_BYTES,
        alone: bool = False,
        choice: Choice | None = None,
    ):
        self.choice = choice
        self._dataset = dataset
        self._alone = alone
        self._contract = contract
        self._maker = maker
        self._seed = seed
        orders = {}
        for label in templates:
            num_sources = len(maker.sources[label])
            count = count_pseudo_videos(num_sources, per_video[label])
            generator = make_generator(seed, label)
            orders[label] = order_sources(num_sources, count, generator=generator)
        # For each item appended: the template, and the source for each class made.
        self._plan: list[tuple[int, dict[int, int]]] = []
        if together:
            for number in range(max(map(len, orders.values()))):
                row = {k: own[number] for k, own in orders.items() if number < len(own)}
                self._plan.append((number % len(dataset), row))
        else:
            for label, order in orders.items():
                real = templates[label]
                for number, source in enumerate(order):
                    self._plan.append((real[number % len(real)], {label: source}))
        self._pool_bytes = pool_bytes
        self._folder = temporary_folder(self) if pool_bytes else None

    @property
    def _num_real(self) -> int:
        return 0 if self._alone else len(self._dataset)

    @property
    def num_pseudo(self) -> int:
        """Number of pseudo items behind the real ones."""
        return len(self._plan)

    @property
    def is_mixed(self) -> bool:
        """Whether there are pseudo items behind real ones."""
        return bool(self._num_real and self._plan)

    def pseudo_mask(self, index: int) -> Tensor | None:
        """Return which segments of item `index` were generated: bool `(T,)`.

        None for a real item; of a pair, the mask of the abnormal video.
        """
        number = range(len(self))[index] - self._num_real
        if number < 0:
            return None
        with left_as_it_was(self._dataset):
            masks = self._make(number)[1]
        return masks[max(masks)]

    def _make(self, number: int) -> tuple[Any, dict[int, Tensor]]:
        template, sources = self._plan[number]
        with preserved_global_rng():
            item = self._dataset[template]
        masks = {}
        for label, item_format in self._contract.views(item):
            if label not in sources:  # of a pair, this one stays real
                continue
            length = item_format.wanted_length(item)
            made = self._take(label, number, sources[label], length)
            item = item_format.replace(item, made.features)
            masks[label] = made.mask
        return item, masks

    def _take(self, label: int, number: int, source: int, length: int | None) -> Made:
        path = None
        if self._folder is not None:
            path = self._folder / f"{label}-{number:06d}"
            entry = read_entry(path, 0)
            # Of items of any length, the one stored may be of another one.
            if entry is not None and length in (None, len(entry.mask)):
                return entry.unpack()
        key = (self._seed, label, number)
        with seeded_global_rng(*key):
            features, item_format = self._maker.read(label, source, length=length)
        with one_thread():
            made = self._maker.translate(
                features, item_format, label, make_generator(*key)
            )
        size = made.features.numel() * made.features.element_size()
        if path is not None and (number + 1) * size <= self._pool_bytes:
            entry = Entry.pack(made, half=False, norm_channel=False)
            # Where there is no room, it is made again each time.
            with suppress(OSError):
                write_entry(path, entry, 0, keep=False)
        return made

    def __len__(self) -> int:
        return self._num_real + len(self._plan)

    def __getitem__(self, index: int) -> Any:
        number = range(len(self))[index] - self._num_real
        if number < 0:
            return self._dataset[range(len(self))[index]]
        return self._make(number)[0]

    def __getattr__(self, name: str) -> Any:
        # Called only for what this class lacks; nothing is there yet while unpickling.
        if name.startswith("__") or "_dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # A host's own attributes, which it may set for each epoch or in each worker.
        own = name.startswith("_") or name == "choice"
        if own or not hasattr(self._dataset, name):
            super().__setattr__(name, value)
        else:
            setattr(self._dataset, name, value)
