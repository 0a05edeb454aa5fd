"""The ground truth of pseudo videos, handed out as a further member of the items."""

from __future__ import annotations

import functools
from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .contracts import View
from .items import with_members

NAME = "pseudo_mask"


def add_masks(item: Any, views: Sequence[View], masks: Mapping[int, Tensor]) -> Any:
    """Add the masks to an item: `(T,)`, of a pair `(2, T)`, the normal video first.

    Dictionaries and NamedTuples get a member "pseudo_mask", tuples and lists one more
    at the end; a bare array becomes a tuple of two.

    Args:
        item: The host's.
        views: Its videos.
        masks: Bool `(T,)` of those that were replaced, by class; they may be shorter
            than the item, which is then padded.
    """
    values = []
    for label, item_format in sorted(views, key=lambda view: view.label):
        full = torch.zeros(item_format.segments(item), dtype=torch.bool, device="cpu")
        if label in masks:
            full[: len(masks[label])] = masks[label]
        values.append(full)
    mask = values[0] if len(values) == 1 else torch.stack(values)
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return _masked(item.__class__)(*item, mask)
    if isinstance(item, list):
        return [*item, mask]
    if isinstance(item, tuple):
        return (*item, mask)
    if hasattr(item, "keys"):
        return with_members(item, {NAME: mask})
    return (item, mask)


@functools.cache
def _masked(kind: Any) -> Any:
    """Derive a NamedTuple type with one member more."""
    base = namedtuple(kind.__name__, (*kind._fields, NAME))  # type: ignore[misc]

    def __reduce__(self: Any) -> tuple[Any, ...]:  # noqa: N807
        # Batches of workers are pickled, and nothing can import the derived type.
        return _restored, (kind, *self)

    return type(kind.__name__, (base,), {"__slots__": (), "__reduce__": __reduce__})


def _restored(kind: Any, *members: Any) -> Any:
    return _masked(kind)(*members)
