"""Normal items with an abnormal label: templates where a host has no abnormal video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .contracts import class_of_label
from .items import Slot, describe, members, with_members
from .untouched import read_item
from .vae import NORMAL

USUAL_SLOTS = (1, "label")


class RelabelledDataset(Dataset[Any]):
    """A host's normal items, each with the label of an abnormal one.

    The features are still normal: they are to be replaced.

    Args:
        dataset: The host's normal videos.
        beside: Slots that are no label: those of the features and their length.
        label_slot: Slot of the label; None finds it: 1 or "label", or the only member
            beside those. Items without another member need none.
        abnormal_label: What takes the label's place; None is 1 in the type of the 0
            that is there.
        like: The host's empty dataset of abnormal videos, whose attributes this one
            has; None is `dataset`.

    Raises:
        ValueError: If the label is not found, or is not 0 and none is given.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        beside: Sequence[Slot],
        label_slot: Slot = None,
        abnormal_label: Any = None,
        like: Any = None,
    ):
        self._dataset = dataset
        self._like = dataset if like is None else like
        item = read_item(dataset, 0)
        self._slot = find_label(item, beside) if label_slot is None else label_slot
        self._abnormal = abnormal_label
        self._relabel(item)

    def _relabel(self, item: Any) -> Any:
        if self._slot is None:
            return item
        label = self._abnormal
        if label is None:
            label = _abnormal_like(item[self._slot])
        return with_members(item, {self._slot: label})

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        return self._relabel(self._dataset[index])

    def __getattr__(self, name: str) -> Any:
        # Called only for what this class lacks; nothing is there yet while unpickling.
        if name.startswith("__") or "_like" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._like, name)


def find_label(item: Any, beside: Sequence[Slot]) -> Slot:
    """Find the slot of an item's label; None where nothing is beside the features.

    Raises:
        ValueError: If it may be any of several.
    """
    others = [slot for slot, _ in members(item) if slot not in beside]
    if not others:
        return None
    found: list[Slot] = [slot for slot in others if slot in USUAL_SLOTS]
    if not found and len(others) == 1:
        found = others
    if not found:
        raise ValueError(
            f"the label of an item {describe(item)} may be any of {others}: pass "
            "label_slot="
        )
    return found[0]


def _abnormal_like(label: Any) -> Any:
    """Return 1 in the type of a normal label, a number 0 or an array of one."""
    try:
        is_normal = not isinstance(label, str) and class_of_label(label) == NORMAL
    except ValueError:
        is_normal = False
    if not is_normal:
        raise ValueError(
            f"the label of a normal item is {label!r}, of which an abnormal one cannot "
            "be told: pass abnormal_label="
        )
    if isinstance(label, Tensor):
        return torch.ones_like(label)
    if isinstance(label, np.ndarray):
        return np.ones_like(label)
    return type(label)(1)
