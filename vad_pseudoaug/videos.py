"""A set of videos of one class, whatever it is made of."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from .features import (
    Array,
    Layout,
    as_float32,
    open_features,
    read_list,
    to_canonical,
)
from .items import copied, detect_format
from .pooling import blocks, to_segments
from .untouched import parts_of, read_item

Rows: TypeAlias = "NDArray[np.int64] | slice"
VideoSource: TypeAlias = "VideoSet | str | os.PathLike[str] | Sequence[Any] | Any"
IDENTITY_SNIPPETS = 4  # of each video: to read all of a large set would take long


class VideoSet(Sequence[NDArray[np.float32]]):
    """Videos as a sequence of float32 arrays `(N, T, D)`, read when asked for.

    Lengths T may differ from video to video; N and D may not.
    """

    def __init__(
        self,
        source: VideoSource,
        *,
        layout: Layout | None = None,
        key: str | None = None,
        name: str = "videos",
    ):
        """Take videos from a source.

        Args:
            source: The path of a list file; a sequence of feature files; a sequence
                of arrays or tensors; a host's dataset (anything with `len` and `[i]`),
                whose items hold the features and possibly more.
            layout: Order of the axes; None takes `(T, D)` and, for three axes,
                `(T, N, D)` from files and `(N, T, D)` from memory.
            key: Name of the features in files that hold several arrays.
            name: What the set is called in messages, for instance "normal".

        Raises:
            FileNotFoundError: If a named file does not exist.
            ValueError: If there is no video.
            TypeError: If the source is none of these.
        """
        if isinstance(source, VideoSet):
            layout, key = layout or source.layout, key or source.key
            source = source._source
        if isinstance(source, str | os.PathLike):
            if not os.fspath(source):
                raise FileNotFoundError(
                    f"{name}: expected a list file, got an empty path"
                )
            source = read_list(source)
        check_sequence(source, name=name)
        if len(source) == 0:
            raise ValueError(f"{name}: expected at least one video, got none")
        self._source: Any = source
        self.layout: Layout | None = layout
        self.key: str | None = key
        self.name = name
        first = self._read(0).shape
        self._num_crops, self._feature_dim = int(first[0]), int(first[2])

    @property
    def feature_dim(self) -> int:
        """Feature size D."""
        return self._feature_dim

    @property
    def num_crops(self) -> int:
        """Number of crops N."""
        return self._num_crops

    @property
    def paths(self) -> list[Path] | None:
        """The videos' files, None where they do not come from files."""
        return [Path(row) for row in self._source] if self._from_files else None

    @property
    def files(self) -> set[Path]:
        """The videos' files, however they were spelled; none of videos in memory."""
        return {path.resolve() for path in self.paths or ()}

    def record(self) -> dict[str, Any] | None:
        """Return files, layout and key as JSON values; None if there are no files."""
        if self.paths is None:
            return None
        files = [str(path.resolve()) for path in self.paths]
        return {"files": files, "layout": self.layout, "key": self.key}

    def identity(self) -> str:
        """Say what tells the set from others: how many videos, and which.

        Files are known by their paths and by some snippets, arrays in memory by the
        latter. A dataset's items may differ from reading to reading: only their shape
        counts.
        """
        shape = f"{len(self)} videos (..., {self.num_crops}, {self.feature_dim})"
        if not isinstance(self._source, list | tuple):
            return shape
        digest = sha256(json.dumps(self.record(), sort_keys=True).encode())
        for own in self.digests():
            digest.update(own)
        return f"{shape}, content {digest.hexdigest()[:8]}"

    def digests(self) -> Iterator[bytes]:
        """Digest length and some snippets of each video."""
        for i in range(len(self)):
            yield digest_snippets(*self.glance(i, IDENTITY_SNIPPETS))

    def glance(self, index: int, count: int) -> tuple[NDArray[np.float32], int]:
        """Read some snippets of a video, spread over its length.

        Returns:
            The snippets, float32 `(N, M, D)`, and the video's length T.
        """
        length, read = self.opened(index)
        return read(spread_out(length, count)), length

    @property
    def _from_files(self) -> bool:
        return _are_files(self._source)

    def title(self, index: int) -> str:
        """Name one video: its file, or the set's name and its number."""
        if self._from_files:
            return str(self._source[index])
        return f"{self.name}[{index}]"

    def _read(self, index: int) -> NDArray[np.float32]:
        return as_float32(self._open(index), name=self.title(index))

    def _open(self, index: int) -> Array:
        """Return video `index` as `(N, T, D)`, of a file neither read nor converted."""
        title = self.title(index)
        if isinstance(self._source, list | tuple):
            item = self._source[index]
        else:  # a host's dataset
            item = read_item(self._source, index)
        if isinstance(item, str | os.PathLike):
            return open_features(item, layout=self.layout, key=self.key)
        if isinstance(item, np.ndarray | Tensor):
            array = item.detach().cpu().numpy() if isinstance(item, Tensor) else item
            return to_canonical(array, layout=self.layout, name=title)
        item_format = detect_format(item, layout=self.layout)
        return item_format.read(item, name=title).numpy()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        """Return video `index` as a float32 array `(N, T, D)`; read-only if mapped."""
        index = range(len(self))[index]
        if isinstance(index, range):
            raise TypeError(f"{self.name}: one video at a time, got a slice")
        return as_float32(self._open_alike(index), name=self.title(index))

    def _open_alike(self, index: int) -> Array:
        """Open a video, and make sure that it has crops and features as the first."""
        features = self._open(index)
        num_crops, _, feature_dim = features.shape
        if (num_crops, feature_dim) != (self._num_crops, self._feature_dim):
            as_float32(features, name=self.title(index))  # what is broken is said first
            raise ValueError(
                f"{self.title(index)}: expected {self._num_crops} crops of size "
                f"{self._feature_dim} as in {self.title(0)}, got {num_crops} of "
                f"{feature_dim}"
            )
        return features

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (self[i] for i in range(len(self)))

    def num_snippets(self, index: int) -> int:
        """Return the length T of a video; of a file, no features are read for it."""
        return int(self._open_alike(index).shape[1])

    def rows(self, index: int, chosen: Rows) -> NDArray[np.float32]:
        """Read some snippets of a video, and no others.

        Args:
            index: Number of the video.
            chosen: Numbers of the snippets.

        Returns:
            A float32 array `(N, M, D)`, in the order chosen.

        Raises:
            ValueError: If one of them is not finite.
        """
        _, read = self.opened(index)
        return read(chosen)

    def opened(self, index: int) -> tuple[int, Callable[[Rows], NDArray[np.float32]]]:
        """Open a video; return its length T, and what reads some snippets of it.

        They are read when that is called, by whatever thread; see `rows`.
        """
        features = self._open_alike(index)
        return features.shape[1], lambda rows: self._convert(features[:, rows], index)

    def blocks(self, index: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Give a video's snippets some at a time: no file need fit into memory.

        Returns:
            The number of each block's first snippet, and the block, float32
            `(N, t, D)`, of some 32 MiB.

        Raises:
            ValueError: If one is not finite.
        """
        for first, block in blocks(self._open_alike(index)):
            yield first, self._convert(block, index)

    def segments(
        self, index: int, num_segments: int, *, method: Literal["mean", "linear"]
    ) -> NDArray[np.float32]:
        """Pool a video to segments, `(N, S, D)`, see `to_segments`.

        Raises:
            ValueError: If a snippet is not finite, and be it none that is pooled.
        """
        for _ in self.blocks(index):
            pass
        title = self.title(index)
        return to_segments(
            self._open_alike(index), num_segments, method=method, name=title
        )

    def _convert(self, part: Array, index: int) -> NDArray[np.float32]:
        try:
            return as_float32(part, name=self.title(index))
        except ValueError:
            self._read(index)  # names the place in the whole video
            raise

    def part(self, indices: Sequence[int]) -> VideoSet:
        """Return some of the videos, by their files where they have any."""
        if isinstance(self._source, list | tuple):
            source = [self._source[i] for i in indices]
            return VideoSet(source, layout=self.layout, key=self.key, name=self.name)
        subset: Any = Subset(self, list(indices))  # type: ignore[arg-type]
        return VideoSet(subset, layout="NTD", name=self.name)  # as this set gives them

    def tensor(self, index: int) -> Tensor:
        """Return video `index` as a float32 CPU tensor `(N, T, D)`, a copy."""
        return copied(self[index])


def spread_out(length: int, count: int) -> NDArray[np.int64]:
    """Return the numbers of so many snippets, from the first to the last of a video.

    Example:
        >>> spread_out(10, 4).tolist(), spread_out(2, 4).tolist()
        ([0, 3, 6, 9], [0, 1])
    """
    return np.linspace(0, length - 1, min(length, count)).astype(np.int64)


def digest_snippets(snippets: NDArray[np.float32], length: int) -> bytes:
    """Return a digest of some snippets `(N, M, D)`, and of the length, of a video."""
    num_crops, _, feature_dim = snippets.shape
    shape = repr((num_crops, length, feature_dim))
    return sha256(shape.encode() + snippets.tobytes()).digest()


def _are_files(source: Any) -> bool:
    return (
        isinstance(source, list | tuple)
        and len(source) > 0
        and isinstance(source[0], str | os.PathLike)
    )


def as_recorded(
    source: VideoSource, record: Mapping[str, Any] | None, *, name: str = "videos"
) -> VideoSet:
    """Take more videos of the kind that a record is of.

    Args:
        source: A list file or files are read in the layout and by the key of the
            record. All else, a `VideoSet` too, has axes of its own.
        record: What `VideoSet.record` returned; None says nothing.
        name: What the set is called in messages.

    Raises:
        FileNotFoundError: See `VideoSet`, as for the others.
        ValueError: If there is no video, or its axes are others.
        TypeError: If the source is none.
    """
    if record is None or not (
        isinstance(source, str | os.PathLike) or _are_files(source)
    ):
        return VideoSet(source, name=name)
    return VideoSet(source, layout=record["layout"], key=record["key"], name=name)


def check_sequence(source: Any, *, name: str) -> None:
    """Refuse what has no `len` and `[i]`, and say what to give instead.

    Raises:
        TypeError: If it is no sequence of videos.
        ValueError: If pseudo videos are among them.
    """
    is_sequence = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    if is_sequence and not isinstance(source, IterableDataset | Mapping):
        if any(getattr(part, "is_mixed", False) for part in parts_of(source)):
            raise ValueError(
                f"{name}: pseudo videos are appended to the dataset already, and would "
                "be taken for real ones: give it as it was before wrap"
            )
        return
    if isinstance(source, DataLoader):
        advice = ": give its dataset, loader.dataset"
    elif isinstance(source, Iterable):
        advice = ": give list(...) of it"
    else:
        advice = ""
    raise TypeError(
        f"{name}: expected a list file, a sequence of videos or a dataset with len() "
        f"and [i], got {type(source).__name__}{advice}"
    )


def as_pair(
    normal: VideoSource,
    abnormal: VideoSource,
    *,
    layout: Layout | None = None,
    key: str | None = None,
) -> tuple[VideoSet, VideoSet]:
    """Take normal and abnormal videos, and check that their features fit together.

    Raises:
        ValueError: If feature size or crop count differ between the two, or a video
            is in both.
    """
    first = VideoSet(normal, layout=layout, key=key, name="normal")
    second = VideoSet(abnormal, layout=layout, key=key, name="abnormal")
    ours = (first.num_crops, first.feature_dim)
    theirs = (second.num_crops, second.feature_dim)
    if ours != theirs:
        raise ValueError(
            f"normal videos have {ours[0]} crops of size {ours[1]}, abnormal videos "
            f"{theirs[0]} of {theirs[1]}: the same extractor is needed for both"
        )
    if first._source is second._source:
        raise ValueError("normal and abnormal videos are the very same: expected two")
    if both := first.files & second.files:
        raise ValueError(
            f"{len(both)} videos are both normal and abnormal, such as {min(both)}"
        )
    return first, second
