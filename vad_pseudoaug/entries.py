"""The files of a pool: one pseudo video each, put in place whole or not at all."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .claims import check_size
from .mixing import Made
from .readers import npy_header


class Entry(NamedTuple):
    """A pseudo video as it is stored.

    Attributes:
        features: `(N, T, D)`, float32 or float16.
        mask: `(T,)` bool.
        norm_channel: Whether the last feature is to be computed after rounding.
    """

    features: Tensor
    mask: Tensor
    norm_channel: bool

    @classmethod
    def pack(cls, made: Made, *, half: bool, norm_channel: bool) -> Entry:
        """Round to float16 where that is wanted, and loses no segment."""
        if half:
            rounded = made.features.half()
            lost = made.features.any(dim=-1) & ~rounded.any(dim=-1)
            if rounded.isfinite().all() and not lost.any():
                return cls(rounded, made.mask, norm_channel)
        return cls(made.features, made.mask, False)

    def unpack(self) -> Made:
        """Return the pseudo video in float32."""
        features = self.features.float()  # torch is far faster at it than numpy
        if self.norm_channel:
            features[..., -1] = features[..., :-1].norm(dim=-1)
        return Made(features, self.mask)


def write_entry(path: Path, entry: Entry, turn: int, *, keep: bool) -> None:
    """Write an entry: two arrays in the format of `.npy`, one behind the other.

    Args:
        path: What the file is called in the end.
        entry: What is written.
        turn: The round that it belongs to, see `Pool`.
        keep: Whether it has to outlast a power failure.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            head = [turn, int(entry.norm_channel), *entry.mask.tolist()]
            np.save(file, np.array(head, dtype=np.int64), allow_pickle=False)
            np.save(file, entry.features.numpy(), allow_pickle=False)
            if keep:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_entry(path: Path, turn: int) -> Entry | None:
    """Read an entry of this round; None where there is none, or no whole one."""
    try:
        with path.open("rb") as file:
            head = _head(file, turn)
            if head is None:
                return None
            features = _load(file)
    except Exception:  # whatever a broken file leads to: the entry is made again
        return None
    if features.dtype not in (torch.float32, torch.float16) or features.ndim != 3:
        return None
    if features.shape[1] != len(head) - 2:
        return None
    return Entry(features, head[2:].bool(), bool(head[1]))


def has_entry(path: Path, turn: int) -> bool:
    """Tell whether there is a whole entry of this round, without reading it all."""
    try:
        with path.open("rb") as file:
            if _head(file, turn) is None:
                return False
            size = npy_header(file).num_bytes + file.tell()
            return size == path.stat().st_size
    except Exception:  # as above
        return False


def _head(file: BinaryIO, turn: int) -> Tensor | None:
    """Read what stands before the features, if it is of this round."""
    head = _load(file)
    if head.dtype != torch.int64 or head.ndim != 1 or len(head) < 2 or head[0] != turn:
        return None
    return head


def _load(file: BinaryIO) -> Tensor:
    found = npy_header(file)
    check_size(found, os.fstat(file.fileno()).st_size - file.tell())
    values = np.fromfile(file, found.dtype, math.prod(found.shape))
    return torch.from_numpy(values.reshape(found.shape, order=found.order))
