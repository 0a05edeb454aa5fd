"""How a video lies in the items of a host's dataset.

An item is whatever `dataset[i]` gives: a bare array, a tuple, a dictionary. The
features of a video in it are read and replaced; every other member is kept as the very
same object.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .features import Array, Layout, as_float32, to_canonical

Slot: TypeAlias = int | str | None
Length: TypeAlias = int | str | None


@dataclass(frozen=True)
class ItemFormat:
    """How one video lies in a host's items.

    Attributes:
        slot: Where the features are: position in a tuple, key of a mapping, None
            where the item is the array itself.
        layout: Order of the axes of the features.
        dims: Start and end of the features that are generated; the others, say the
            audio of rgb + audio, are the source's own. None generates all.
        norm_channel: Whether the last feature is the L2 norm of the others; it is
            then computed anew.
        length: Slot of the true number of segments of a zero-padded video; "nonzero"
            where it ends with the last row that is not zero; None where nothing is
            padded.
        any_length: Whether items may differ in length: a pseudo video is then
            interpolated to the length of the item whose place it takes.
    """

    slot: Slot = None
    layout: Layout = "NTD"
    dims: tuple[int, int] | None = None
    norm_channel: bool = False
    length: Length | Literal["nonzero"] = None
    any_length: bool = False

    def __str__(self) -> str:
        parts = [f"features ({', '.join(self.layout)})"]
        if self.slot is not None:
            parts[0] += f" at {self.slot!r}"
        if self.dims is not None:
            parts.append("of which {} to {} are generated".format(*self.dims))
        if self.norm_channel:
            parts.append("the last one the norm of the others")
        if self.length == "nonzero":
            parts.append("padded with zeros")
        elif self.length is not None:
            parts.append(f"padded, the true length at {self.length!r}")
        if self.any_length:
            parts.append("of any length")
        return ", ".join(parts)

    @property
    def generated(self) -> slice:
        """The features that the VAE sees and makes."""
        if self.dims is not None:
            return slice(*self.dims)
        return slice(None, -1) if self.norm_channel else slice(None)

    def get(self, item: Any) -> Any:
        """Return the member that holds the features, as the host made it."""
        return item if self.slot is None else item[self.slot]

    def read(self, item: Any, *, name: str) -> Tensor:
        """Copy all features, without padding, to a float32 CPU tensor `(N, T, D)`.

        Raises:
            ValueError: If they are not one video of finite values.
        """
        return copied(as_float32(self._without_padding(item, name), name=name))

    def wanted_length(self, item: Any) -> int | None:
        """Return how many segments a pseudo video in its place has; None: any."""
        if not self.any_length:
            return None
        return int(self._without_padding(item, "the dataset's item").shape[1])

    def _without_padding(self, item: Any, name: str) -> Array:
        array = to_canonical(to_numpy(self.get(item)), layout=self.layout, name=name)
        if self.length == "nonzero":
            rows = np.flatnonzero(array.any(axis=(0, 2)))
            return array[:, : (rows[-1] + 1 if len(rows) else 1)]
        if self.length is not None:
            return array[:, : max(1, int(item[self.length]))]
        return array

    def write(self, features: Tensor, pseudo: Tensor) -> Tensor:
        """Put generated features into those of their source, both `(N, T, ...)`."""
        features = features.clone()
        features[..., self.generated] = pseudo
        if self.norm_channel:
            features[..., -1] = features[..., :-1].norm(dim=-1)
        return features

    def segments(self, item: Any) -> int:
        """Return the number of segments that the item has room for."""
        return int(self.get(item).shape[self.layout.index("T")])

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
                f"the pseudo video has shape {list(features.shape)} where the "
                f"dataset's item has {list(own.shape)}: items of one shape are needed"
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
        return with_members(item, changed)


def detect_format(
    item: object,
    *,
    feature_dim: int | None = None,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length | Literal["nonzero"] = None,
    any_length: bool = False,
) -> ItemFormat:
    """Find the features in an item; what is ambiguous is refused, not guessed.

    Args:
        item: What the host's dataset gives.
        feature_dim: Feature size that the sampler makes; None does not check it.
        slot: Where the features are; None finds the one floating array of two or more
            axes.
        layout: Order of its axes; None is `(T, D)` for two and `(N, T, D)` for three.
        dims: See `ItemFormat`; None generates all features. If there is one more than
            the sampler makes, and it is the norm of the others, it is known as such.
        length: See `ItemFormat`.
        any_length: See `ItemFormat`.

    Raises:
        TypeError: If there is no such member.
        ValueError: If there are several, or the size does not fit the sampler.
    """
    candidates = [s for s, value in members(item) if _is_features(value)]
    if slot is not None and slot not in candidates:
        raise TypeError(
            f"slot={slot!r}: expected a floating array of two or more axes there, got "
            f"an item {describe(item)}"
        )
    if slot is None:
        if not candidates:
            raise TypeError(
                "expected features, a floating array of two or more axes, in the "
                f"dataset's item, got {describe(item)}"
            )
        if len(candidates) > 1:
            raise ValueError(
                "several members of the dataset's item may be the features "
                f"({describe(item)}); pass slot=, one of {candidates}"
            )
        [slot] = candidates
    value = to_numpy(dict(members(item))[slot])
    array = to_canonical(value, layout=layout, name="the dataset's item")
    layout = layout or ("TD" if value.ndim == 2 else "NTD")
    size = array.shape[-1]
    norm_channel = dims is None and feature_dim == size - 1 and ends_in_norm(array)
    found = ItemFormat(slot, layout, dims, norm_channel, length, any_length)
    made = len(range(size)[found.generated])
    if feature_dim is not None and made != feature_dim:
        advice = "" if dims else f"; pass dims=, as (0, {feature_dim}), to make a part"
        raise ValueError(
            f"the sampler was fitted on feature size {feature_dim}, the dataset's item "
            f"{describe(item)} has {made}{advice if made > feature_dim else ''}"
        )
    return found


def describe(item: object) -> str:
    """Say what an item is made of, for error messages and the log."""

    def one(value: object) -> str:
        shape = getattr(value, "shape", None)
        kind = type(value).__name__
        return kind if shape is None else f"{kind}{list(shape)}"

    if isinstance(item, tuple | list):
        return f"({', '.join(one(v) for v in item)})"
    if hasattr(item, "keys"):
        return f"{{{', '.join(f'{s}: {one(v)}' for s, v in members(item))}}}"
    return one(item)


def members(item: Any) -> list[tuple[Slot, Any]]:
    """List an item's members with their slots; a bare array is its own member."""
    if isinstance(item, tuple | list):
        return list(enumerate(item))
    if hasattr(item, "keys"):  # a dictionary, a TensorDict
        return [(key, item[key]) for key in item.keys()]  # noqa: SIM118
    return [(None, item)]


def with_members(item: Any, changed: dict[Slot, Any]) -> Any:
    """Copy a container, some members changed; its type stays."""
    if isinstance(item, tuple | list):
        new = [changed.get(i, member) for i, member in enumerate(item)]
        if hasattr(item, "_fields"):  # a NamedTuple takes its members one by one
            return type(item)(*new)
        return type(item)(new)
    copied = copy.copy(item)
    for slot, value in changed.items():
        copied[slot] = value
    return copied


def to_numpy(value: Any) -> Any:
    """Return a tensor as an array, anything else as it is."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def as_tensor(value: Any, *, name: str = "features") -> Tensor:
    """Take an array or a tensor of floating numbers as a tensor.

    An array that torch cannot share (read-only, of another byte order, of negative
    strides) is copied; any other, and a tensor, is not.

    Raises:
        TypeError: If it is neither, or does not hold floating numbers: whole numbers
            would cut what is generated to whole numbers.
    """
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            raise TypeError(f"{name}: expected floating numbers, got {value.dtype}")
        native = value.dtype.newbyteorder("=")
        shared = value.flags.writeable and min(value.strides, default=0) >= 0
        return torch.from_numpy(value.astype(native, order="C", copy=not shared))
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name}: expected an array or tensor, got {type(value).__name__}"
        )
    if not value.is_floating_point():
        raise TypeError(f"{name}: expected floating numbers, got {value.dtype}")
    return value


def _is_features(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.ndim >= 2 and value.is_floating_point()
    return isinstance(value, np.ndarray) and value.ndim >= 2 and value.dtype.kind == "f"


def ends_in_norm(array: Any) -> bool:
    """Tell whether the last feature is the L2 norm of the others, as MGFN's is."""
    values = np.asarray(array, dtype=np.float64)
    norms = np.linalg.norm(values[..., :-1], axis=-1)
    return bool(np.allclose(values[..., -1], norms, rtol=1e-2, atol=1e-4))


def _like(old: Any, value: int) -> Any:
    """Give a number the type of the one that it replaces."""
    if isinstance(old, Tensor):
        return torch.full_like(old, value)
    if isinstance(old, np.ndarray):
        return np.full_like(old, value)
    return type(old)(value)


def copied(array: NDArray[np.float32]) -> Tensor:
    """Copy an array, which may be read only or a view of a file, into a tensor."""
    return torch.from_numpy(np.array(array, order="C"))
