"""Items that are loaded only if they are not replaced.

A pseudo video takes the place of the features in a real item, and of that item nothing
but its small members is needed: label, name, length. Where these are known, the host
need not read and pool features that nobody will see.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .contracts import Contract
from .draws import Draw, DrawnBatches
from .items import Slot, members, to_numpy, with_members
from .ledger import Ledger
from .repeatable import seeded_global_rng

MAX_SMALL = 16  # elements of an array that is kept of an item
_TORCH_ONLY = (torch.bfloat16,)  # numpy has no such dtype


class Blank(NamedTuple):
    """What is kept of an array: its kind, and its value where it is small.

    Attributes:
        is_tensor: Whether it was a tensor.
        value: The array; of features, one zero of their dtype.
        shape: Its shape.
    """

    is_tensor: bool
    value: Any
    shape: tuple[int, ...]

    def fill(self) -> Any:
        """Return an array like the one that was there; of features, without memory."""
        if self.is_tensor:
            value = torch.from_numpy(np.array(self.value))
            return value if value.shape == self.shape else value.expand(self.shape)
        if self.value.shape == self.shape:
            return self.value.copy()
        return np.broadcast_to(self.value, self.shape)


class Shell(NamedTuple):
    """An item without its features.

    Attributes:
        item: The item, its arrays each a `Blank`.
        blanks: Where these are.
        keys: Fingerprints of its videos, in the order of the contract's views.
    """

    item: Any
    blanks: dict[Slot, Blank]
    keys: tuple[int, ...]

    def template(self) -> Any:
        """Return an item like the host's, its features not there."""
        filled: dict[Slot, Any] = {s: blank.fill() for s, blank in self.blanks.items()}
        return filled[None] if None in filled else with_members(self.item, filled)


class Survey:
    """What is known of a dataset's items without loading them.

    Nothing is kept of a dataset that draws from the global random states: its items
    must be loaded, or the host's later draws would be others. Nor of one that gives
    another item each time, or large members beside the features.

    Args:
        dataset: The host's.
        contract: What its items look like.
    """

    def __init__(self, dataset: Any, contract: Contract):
        self.dataset = dataset
        self._count = len(dataset)
        self._contract = contract
        self._shells: dict[int, Shell] = {}
        self._possible = True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "dataset": None}  # worker processes have their own

    def get(self, index: Any) -> Shell | None:
        """Return what is known of item `index`."""
        if not isinstance(index, int | np.integer):
            return None
        return self._shells.get(int(index))

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to learn."""
        return not self._possible or len(self._shells) == self._count

    @property
    def useful(self) -> bool:
        """Whether all items are known, so that none need be loaded to replace it."""
        return self._possible and self.complete

    def load(self, index: int) -> Any:
        """Load an item, and keep what is small of it."""
        if self.complete or index in self._shells:
            return self.dataset[index]
        before = _global_states()
        item = self.dataset[index]
        shell = _strip(item, self._contract)
        if shell is not None and not self._shells:
            again = _strip(self.dataset[index], self._contract)
            shell = shell if again is not None and again.keys == shell.keys else None
        if shell is None or _global_states() != before:
            self._shells, self._possible = {}, False
        else:
            self._shells[index] = shell
        return item

    def finish(self, seed: int) -> None:
        """Load the items that nobody has loaded yet."""
        for index in range(self._count):
            if self.complete:
                return
            with seeded_global_rng(seed, index):
                self.load(index)


class Pending(NamedTuple):
    """An item that may still be loaded."""

    dataset: Any
    draw: Draw

    def load(self) -> Any:
        """Load it as the host's fetcher does."""
        [item] = load_pending([self])
        return item


def load_pending(items: list[Any]) -> list[Any]:
    """Load the items of a batch as the host's fetcher does: together, in order.

    Items that are no `Pending` are loaded already, and all are, or none is.
    """
    if not items or not isinstance(items[0], Pending):
        return items
    dataset, indices = items[0].dataset, [item.draw.index for item in items]
    several = getattr(dataset, "__getitems__", None)
    loaded: list[Any] = several(indices) if several else [dataset[i] for i in indices]
    return loaded


class PendingDataset:
    """Stands for a host's dataset in one iteration: its items are yet to be loaded.

    Everything else is the host's, whose `worker_init_fn` may look for its attributes
    and set them.
    """

    def __init__(self, dataset: Any):
        self.__dict__["_dataset"] = dataset

    def __getitem__(self, draw: Any) -> Any:
        if not isinstance(draw, Draw):  # the host's own code reads an item
            return self._dataset[draw]
        return Pending(self._dataset, draw)

    def __getitems__(self, draws: Sequence[Draw]) -> list[Pending]:
        return [self[draw] for draw in draws]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_dataset" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._dataset, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        return PendingDataset, (self._dataset,)


@contextmanager
def pending_items(loader: DataLoader[Any], ledger: Ledger) -> Iterator[None]:
    """Let iterators of `loader` that are made in this block give pending items.

    Each item is told when it is drawn; see `draws.Draw`.
    """
    own = {"dataset": loader.dataset, "batch_sampler": loader.batch_sampler}
    assert loader.batch_sampler is not None
    # An assignment is refused by DataLoader; the host never sees these.
    object.__setattr__(loader, "dataset", PendingDataset(loader.dataset))
    batches = DrawnBatches(loader.batch_sampler, ledger)
    object.__setattr__(loader, "batch_sampler", batches)
    try:
        yield
    finally:
        for name, value in own.items():
            object.__setattr__(loader, name, value)


def fingerprint(features: Any) -> int:
    """Tell videos apart by a few rows of their features."""
    array = to_numpy(features)
    rows = array.reshape(-1, array.shape[-1])
    few = rows[[0, len(rows) // 3, len(rows) // 2, len(rows) - 1]]
    return zlib.crc32(np.ascontiguousarray(few).tobytes())


def _strip(item: Any, contract: Contract) -> Shell | None:
    """Take the features out of an item; None if something else in it is large."""
    if not isinstance(item, tuple | list | dict | np.ndarray | Tensor):
        return None
    views = contract.views(item)
    features = {item_format.slot for _, item_format in views}
    blanks: dict[Slot, Blank] = {}
    for slot, value in members(item):
        if isinstance(value, Tensor):
            if value.device.type != "cpu" or value.dtype in _TORCH_ONLY:
                return None
            if type(value) is not Tensor or value.requires_grad:
                return None
        elif not isinstance(value, np.ndarray):
            if not isinstance(value, np.generic | int | float | str | bytes | None):
                return None
            continue
        array = to_numpy(value)
        if slot in features:
            kept = np.zeros((), array.dtype)
        elif array.size <= MAX_SMALL and array.dtype.kind != "O":
            kept = array.copy()
        else:
            return None
        blanks[slot] = Blank(isinstance(value, Tensor), kept, tuple(value.shape))
    keys = tuple(fingerprint(item_format.get(item)) for _, item_format in views)
    bare = None if None in blanks else with_members(item, dict(blanks))
    return Shell(bare, blanks, keys)


def _global_states() -> tuple[Any, ...]:
    kind, words, *rest = np.random.get_state()  # noqa: NPY002
    return (
        torch.default_generator.get_state().numpy().tobytes(),
        (kind, np.asarray(words).tobytes(), *rest),
        random.getstate(),
    )
