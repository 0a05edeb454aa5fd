"""Reading a host's dataset without leaving a trace in it."""

from __future__ import annotations

import functools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from .randomness import preserved_global_rng

# What Subset and our own classes call what they read from; a ConcatDataset has a list.
_INNER_NAMES = ("dataset", "_dataset", "_source")
_held: set[int] = set()  # parts that a block of `left_as_it_was` looks after already


def parts_of(dataset: Any) -> list[Any]:
    """Return a dataset and all those that it reads from, the outermost first.

    These are torch's datasets in its attributes, alone or in a list, as a Subset, a
    ConcatDataset and most hosts' own wrappers have them, and any sequence that has the
    name these two give it.
    """
    parts, waiting = {}, [dataset]
    while waiting:
        part = waiting.pop(0)
        if id(part) not in parts:
            parts[id(part)] = part
            for name, value in _namespace(part).items():
                several = isinstance(value, list | tuple)
                inner = value if several else [value]
                named = name == "datasets" if several else name in _INNER_NAMES
                if inner and _is_dataset(inner[0], named=named):
                    waiting.extend(inner)
    return list(parts.values())


def lists_of_paths(part: Any) -> list[Sequence[str | os.PathLike[str]]]:
    """Return a dataset's attributes with a text or a path for each item, by name.

    Most hosts' datasets keep the rows of their list file so.
    """
    count = len(part) if hasattr(part, "__len__") else 0
    return [
        value
        for _, value in sorted(_namespace(part).items())
        if isinstance(value, list | tuple)
        and 0 < len(value) == count
        and all(isinstance(row, str | os.PathLike) for row in value)
    ]


def read_item(dataset: Any, index: Any) -> Any:
    """Return an item; dataset and global random states stay as they were."""
    with preserved_global_rng(), left_as_it_was(dataset):
        return dataset[index]


@contextmanager
def left_as_it_was(*datasets: Any) -> Iterator[None]:
    """Give datasets back, after a block that reads them, as they were before it.

    Many hosts open a file when an item is first read, so that each worker process has
    its own. Opened by a reading of ours, the file would be shared by all workers that
    are forked, which then read from each other's places, and no dataset could be sent
    to one that is spawned. So attributes of a dataset, and of its `parts_of`, are set
    back, and what has a `close` is taken out of dictionaries that it was put into.
    Files so let go are closed with the last reference to them; those that were open
    before stay open, and a cache that was there keeps what it has learned. A random
    generator in an attribute goes on where it was.

    Within a block another one for the same dataset does nothing: one around many
    readings opens each file once. Nor does any in a worker process, whose dataset is
    its own.

    What is kept elsewhere is not seen: in globals, `__slots__`, lists, or attributes of
    an object that is no dataset. Nor may two threads read a dataset at once that opens
    its file so.
    """
    parts: list[Any] = []
    if get_worker_info() is None:
        every = [part for dataset in datasets for part in parts_of(dataset)]
        parts = [part for part in every if id(part) not in _held]
    states = [(_namespace(part), dict(_namespace(part))) for part in parts]
    sizes = [
        (value, len(value))
        for _, before in states
        for value in before.values()
        if isinstance(value, dict)
    ]
    rewinds = [
        rewind
        for _, before in states
        for value in before.values()
        if (rewind := _rewinding(value)) is not None
    ]
    own = {id(part) for part in parts}
    _held.update(own)
    try:
        yield
    finally:
        _held.difference_update(own)
        for namespace, before in states:
            _set_back(namespace, before)
        for rewind in rewinds:
            rewind()
        for dictionary, size in sizes:
            for key in list(dictionary)[size:]:
                if hasattr(dictionary[key], "close"):
                    del dictionary[key]


def _set_back(namespace: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Change attributes to what they were, one by one and only where they differ."""
    for name in namespace.keys() - before.keys():
        del namespace[name]
    for name, value in before.items():
        if name not in namespace or namespace[name] is not value:
            namespace[name] = value


def _rewinding(value: Any) -> Callable[[], Any] | None:
    """Return what puts a random generator back to where it is now."""
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator
        return functools.partial(setattr, bits, "state", bits.state)
    if isinstance(value, torch.Generator):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, np.random.RandomState):
        return functools.partial(value.set_state, value.get_state())
    if isinstance(value, random.Random):
        return functools.partial(value.setstate, value.getstate())
    return None


def _namespace(part: Any) -> dict[str, Any]:
    found = getattr(part, "__dict__", None)
    return found if isinstance(found, dict) else {}


def _is_dataset(value: Any, *, named: bool) -> bool:
    if isinstance(value, Dataset):
        return True
    return (
        named
        and not isinstance(value, Tensor)
        and all(hasattr(value, n) for n in ("__getitem__", "__len__", "__dict__"))
    )
