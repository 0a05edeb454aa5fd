"""Pooling a video's snippets into segments, without holding the video in memory."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# So much is converted at a time.
BLOCK_BYTES = 32 << 20
# Of a memory-mapped file, about so much stays resident: small files stay mapped, as
# giving pages back costs a tenth of the time that reading them does.
RESIDENT_BYTES = 128 << 20


def blocks(
    array: NDArray[Any], start: int = 0, end: int | None = None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Give the snippets from `start` to `end` of `(N, T, D)`, some at a time.

    A block is a view of at most 32 MiB, or of one snippet, and comes with the number
    of its first snippet. Of a memory map, some 128 MiB stay resident.
    """
    num_crops, length, feature_dim = array.shape
    end = length if end is None else end
    snippet_bytes = num_crops * feature_dim * array.itemsize
    step = max(1, BLOCK_BYTES // max(snippet_bytes, 1))
    unreleased = 0
    for first in range(start, end, step):
        block = array[:, first : min(first + step, end)]
        yield first, block
        unreleased += block.nbytes
        if unreleased > RESIDENT_BYTES:
            release(array)
            unreleased = 0


def release(array: NDArray[Any]) -> None:
    """Give the memory of a file map's pages back; reading them again is allowed.

    Without this, a file that is read once counts as memory of the process. Arrays that
    are no such map are left alone.
    """
    owner: Any = array
    is_file = False
    while isinstance(owner, np.ndarray):
        if isinstance(owner, np.memmap):
            # A map of mode "c" holds the caller's changes in those pages.
            is_file = owner.mode != "c"
        owner = owner.base
    if is_file and isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)


def bin_means(features: NDArray[Any], num_segments: int) -> NDArray[np.float32]:
    """Average `(N, T, D)` over `num_segments` bins; see `to_segments`.

    The snippets of a bin are added in their order, in float32: the result is that of
    `numpy.mean` over each bin of each crop, to the bit.
    """
    num_crops, length, feature_dim = features.shape
    edges = np.linspace(0, length, num_segments + 1, dtype=int)
    pooled = np.empty((num_crops, num_segments, feature_dim), np.float32)
    unreleased = 0
    for segment, (start, end) in enumerate(itertools.pairwise(edges.tolist())):
        total = pooled[:, segment]
        for first, block in blocks(features, start, max(end, start + 1)):
            snippets = np.asarray(block, dtype=np.float32)
            if first > start:  # the sum so far comes first, so that the order is kept
                snippets = np.concatenate([total[:, None], snippets], axis=1)
            # Without `out`, numpy sums in the order of the memory, which is faster.
            total = np.add.reduce(snippets, axis=1)  # (N, D)
            unreleased += block.nbytes
        pooled[:, segment] = total
        if unreleased > RESIDENT_BYTES:
            release(features)
            unreleased = 0
    pooled /= np.maximum(np.diff(edges), 1).astype(np.float32)[:, None]
    return pooled


def interpolate(features: NDArray[Any], num_segments: int) -> NDArray[np.float32]:
    """Interpolate `(N, T, D)` at `num_segments` points; see `to_segments`."""
    length = features.shape[1]
    position = np.linspace(0, length - 1, num_segments)
    left = np.minimum(position.astype(int), max(length - 2, 0))
    right = np.minimum(left + 1, length - 1)
    weight = (position - left).astype(np.float32)[:, None]  # (S, 1)
    start = features[:, left].astype(np.float32)  # (N, S, D)
    step = features[:, right].astype(np.float32) - start
    pooled: NDArray[np.float32] = start + weight * step  # (N, S, D)
    return pooled


def to_segments(
    features: NDArray[Any],
    num_segments: int = 32,
    *,
    method: Literal["mean", "linear"] = "mean",
    name: str = "features",
) -> NDArray[np.float32]:
    """Pool a video's snippets into a fixed number of segments.

    Args:
        features: `(N, T, D)`. A memory map is read once, and not held.
        num_segments: How many segments, S.
        method: `"mean"`: segment i is the mean of the snippets in
            `[floor(iT/S), floor((i+1)T/S))`, an empty bin repeats its first snippet
            (RTFM, Sultani et al., whose `numpy.linspace` rounds some bounds down once
            more, of no video in 32 segments). `"linear"`: linear interpolation at S
            points spread evenly from the first to the last snippet (the paper, section
            4.1).
        name: What the video is called in error messages.

    Returns:
        Float32 `(N, S, D)`.

    Raises:
        ValueError: If a side is empty, the rank is not 3, the method is unknown, or a
            segment would not be finite.

    Example:
        >>> to_segments(np.arange(4.0).reshape(1, 4, 1), 2).ravel().tolist()
        [0.5, 2.5]
    """
    if features.ndim != 3 or 0 in features.shape:
        raise ValueError(f"{name}: expected (N, T, D), got shape {features.shape}")
    if num_segments < 1:
        raise ValueError(f"num_segments: expected at least 1, got {num_segments}")
    if method not in ("mean", "linear"):
        raise ValueError(f"method: expected 'mean' or 'linear', got {method!r}")
    pool = bin_means if method == "mean" else interpolate
    # NaN and infinity stay what they are in sums: the small result tells of them all.
    with np.errstate(over="ignore", invalid="ignore"):
        pooled = pool(features, num_segments)
    if not np.isfinite(pooled).all():
        crop, segment, channel = np.argwhere(~np.isfinite(pooled))[0].tolist()
        raise ValueError(
            f"{name}: expected finite values, got {pooled[crop, segment, channel]} in "
            f"segment {segment} of {num_segments}, crop {crop}, feature {channel}"
        )
    return pooled
