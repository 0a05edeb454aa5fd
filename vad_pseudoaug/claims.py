"""What a file says of the arrays in it, and whether its size bears that out.

Everything here comes before memory is taken: a header that claims a terabyte, an
archive that unpacks to a thousand times its size, are refused by their own words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Features compress by 1.1 to 4; deflate can by 1000. Small files may do as they like.
MAX_EXPANSION = 100
ALWAYS_ALLOWED = 1 << 20


class Claim(NamedTuple):
    """What a file says of an array: dtype, shape, and order of the axes, "C" or "F"."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]

    @property
    def num_bytes(self) -> int:
        """Bytes of its values, without overflow."""
        return math.prod(self.shape) * self.dtype.itemsize


def claim(
    dtype: np.dtype[Any], shape: Sequence[Any], order: Literal["C", "F"] = "C"
) -> Claim:
    """Take what a file says, if it is an array of numbers at all.

    Raises:
        ValueError: If the values are no plain numbers, or the shape is none.
    """
    if dtype.kind not in "biufc" or dtype.shape:
        raise ValueError(f"expected an array of plain numbers, got dtype {dtype!s:.80}")
    if len(shape) > 32 or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"the header's shape {shape!s:.80} is none")
    return Claim(dtype, tuple(shape), order)


def map_values(path: Path, found: Claim, start: int, end: int) -> NDArray[Any]:
    """Map the values that lie from byte `start` on, and before `end`, in the file.

    Raises:
        ValueError: If there are fewer than claimed.
    """
    check_size(found, end - start)
    if found.num_bytes == 0:  # nothing to map
        return np.empty(found.shape, found.dtype)
    return np.memmap(
        path, found.dtype, "r", offset=start, shape=found.shape, order=found.order
    )


def check_size(found: Claim, num_bytes: int) -> None:
    """Refuse a claim that the bytes which are there do not bear out.

    Raises:
        ValueError: If there are fewer than claimed.
    """
    if found.num_bytes > num_bytes:
        raise ValueError(
            f"the header claims an array {list(found.shape)} of {found.num_bytes} "
            f"bytes, there are {num_bytes}"
        )


def check_expansion(
    num_bytes: int, packed_bytes: int, *, allowed: int = ALWAYS_ALLOWED
) -> None:
    """Refuse compressed data that claims to hold far more than it has.

    Args:
        num_bytes: What it claims to unpack to.
        packed_bytes: What is there.
        allowed: What any file may unpack to.

    Raises:
        ValueError: If it would unpack to more than allowed, and over 100 times its
            size.
    """
    if num_bytes > max(allowed, MAX_EXPANSION * packed_bytes):
        raise ValueError(
            f"{packed_bytes} bytes that unpack to {num_bytes} are no features: more "
            f"than {MAX_EXPANSION} times is refused"
        )


def pick(names: Sequence[str], key: str | None) -> str:
    """Choose the array of a container file, by name or because it is the only one.

    Raises:
        ValueError: If there is none of that name, or the name is needed.
    """
    if key is not None:
        if key not in names:
            raise ValueError(f"no array {key!r}, only {_few(names)}")
        return key
    if len(names) != 1:
        raise ValueError(f"holds {len(names)} arrays: pass key=, one of {_few(names)}")
    return names[0]


def _few(names: Sequence[str]) -> str:
    few = ", ".join(printable(name[:80]) for name in names[:10])
    return f"{few}, ..." if len(names) > 10 else few or "none"


def printable(text: str) -> str:
    """Return a text from a file as it is, or quoted if it would steer a terminal."""
    return text if text.isprintable() else repr(text)
