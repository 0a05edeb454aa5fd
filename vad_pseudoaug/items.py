"""Where the videos are in the items of a host's dataset.

An item is whatever `dataset[i]` gives: a bare array, a tuple, a dictionary. The
features of a video in it are read and replaced; every other member is kept as the very
same object.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .features import Layout, as_float32, to_canonical

Slot: TypeAlias = int | str | None


@dataclass(frozen=True)
class ItemFormat:
    """How one video lies in a host's items.

    Attributes:
        slot: Where the features are: position in a tuple, key of a mapping, None
            where the item is the array itself.
        layout: Order of the axes of the features.
        length: Slot of the true number of segments of a zero-padded video;
            "nonzero" where it is found from the last row that is not zero; None where
            nothing is padded.
    """

    slot: Slot = None
    layout: Layout = "NTD"
    length: Slot | Literal["nonzero"] = None

    @classmethod
    def detect(
        cls, item: object, *, slot: Slot = None, layout: Layout | None = None
    ) -> ItemFormat:
        """Find the one member of `item` that is a floating array of two or more axes.

        Raises:
            TypeError: If there is no such member.
            ValueError: If there are several and `slot` does not choose one.
        """
        members = _members(item)
        found = [s for s, value in members if _is_features(value)]
        if slot is not None:
            if slot not in found:
                raise TypeError(
                    f"slot={slot!r}: expected a floating array of two or more axes "
                    f"there, got an item {describe(item)}"
                )
            found = [slot]
        if not found:
            raise TypeError(
                "expected features, a floating array of two or more axes, in the "
                f"dataset's item, got {describe(item)}"
            )
        if len(found) > 1:
            raise ValueError(
                "several members of the dataset's item may be the features "
                f"({describe(item)}); pass slot=, one of {found}"
            )
        [slot] = found
        value = dict(members)[slot]
        to_canonical(_to_numpy(value), layout=layout, name="the dataset's item")
        return cls(slot, layout or ("TD" if value.ndim == 2 else "NTD"))

    def get(self, item: Any) -> Any:
        """Return the member that holds the features, as the host made it."""
        return item if self.slot is None else item[self.slot]

    def read(self, item: Any, *, name: str) -> Tensor:
        """Copy the features, without padding, to a float32 CPU tensor `(N, T, D)`.

        Raises:
            ValueError: If they are not one video of finite values.
        """
        array = to_canonical(_to_numpy(self.get(item)), layout=self.layout, name=name)
        if self.length == "nonzero":
            rows = np.flatnonzero(array.any(axis=(0, 2)))
            array = array[:, : (rows[-1] + 1 if len(rows) else 1)]
        elif self.length is not None:
            array = array[:, : max(1, int(item[self.length]))]
        return torch.from_numpy(np.array(as_float32(array, name=name), order="C"))

    def replace(self, item: Any, features: Tensor) -> Any:
        """Return a copy of `item` with `features` `(N, T, D)` in place of its own.

        Kind (numpy or torch), dtype, device and padded shape are those of the item's
        own features; a stored length is set, in its own type.

        Raises:
            ValueError: If the item holds another number of crops, segments or
                features, or is too short for them.
        """
        own = self.get(item)
        if self.layout == "TD":
            features = features[0]
        elif self.layout == "TND":
            features = features.transpose(0, 1)
        time = self.layout.index("T")
        num_segments = features.shape[time]
        if self.length is not None and num_segments < own.shape[time]:
            padding = list(features.shape)
            padding[time] = own.shape[time] - num_segments
            features = torch.cat([features, features.new_zeros(padding)], dim=time)
        if tuple(features.shape) != tuple(own.shape):
            raise ValueError(
                f"the pseudo video has shape {tuple(features.shape)} where the "
                f"dataset's item has {tuple(own.shape)}: all items need one shape"
            )
        new: Any
        if isinstance(own, Tensor):
            new = features.to(dtype=own.dtype, device=own.device)
        else:
            new = features.numpy().astype(own.dtype, copy=False)
        if self.slot is None:
            return new
        changed: dict[Slot, Any] = {self.slot: new}
        if self.length is not None and self.length != "nonzero":
            changed[self.length] = _like(item[self.length], num_segments)
        return _with_members(item, changed)


def replace_length(
    item_format: ItemFormat, length: Slot | Literal["nonzero"]
) -> ItemFormat:
    """Return the format with another way to find the true length."""
    return replace(item_format, length=length)


def describe(item: object) -> str:
    """Say what an item is made of, for error messages and the log."""

    def one(value: object) -> str:
        shape = getattr(value, "shape", None)
        kind = type(value).__name__
        return kind if shape is None else f"{kind}{list(shape)}"

    if isinstance(item, dict):
        return f"{{{', '.join(f'{k}: {one(v)}' for k, v in item.items())}}}"
    if isinstance(item, tuple | list):
        return f"({', '.join(one(v) for v in item)})"
    return one(item)


def _is_features(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.ndim >= 2 and value.is_floating_point()
    return isinstance(value, np.ndarray) and value.ndim >= 2 and value.dtype.kind == "f"


def _members(item: Any) -> list[tuple[Slot, Any]]:
    if isinstance(item, np.ndarray | Tensor):
        return [(None, item)]
    if isinstance(item, tuple | list):
        return list(enumerate(item))
    if hasattr(item, "keys"):  # a dictionary, a TensorDict
        return [(key, item[key]) for key in item.keys()]  # noqa: SIM118
    return [(None, item)]


def _with_members(item: Any, changed: dict[Slot, Any]) -> Any:
    """Copy a container, some members changed; its type stays."""
    if isinstance(item, tuple | list):
        members = [changed.get(i, member) for i, member in enumerate(item)]
        if hasattr(item, "_fields"):  # a NamedTuple takes its members one by one
            return type(item)(*members)
        return type(item)(members)
    new = copy.copy(item)
    for slot, value in changed.items():
        new[slot] = value
    return new


def _like(old: Any, value: int) -> Any:
    """Give a number the type of the one that it replaces."""
    if isinstance(old, Tensor):
        return torch.full_like(old, value)
    if isinstance(old, np.ndarray):
        return np.full_like(old, value)
    return type(old)(value)


def _to_numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
