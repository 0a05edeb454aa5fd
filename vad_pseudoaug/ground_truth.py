"""Readers for the field's frame-level ground truth, each to one 0 or 1 a frame.

| kind | what it is | given as |
| --- | --- | --- |
| concatenated | RTFM's `gt-sh.npy`, `gt-ucf.npy`: all test videos in a row | `.npy` |
| masks | ShanghaiTech's `test_frame_mask/01_0014.npy`, one file a video | folder |
| masks in one file | the same, one array a video | `.npz` |
| annotations | UCF-Crime's `NAME.mp4 CLASS start end start end`, -1 for none | `.txt` |
| intervals | `gt`, a cell of `(2, K)` first and last frames for each video | `.mat` |

Frames of UCF-Crime's text and of `.mat` files count from 1, and the last one named is
anomalous, too. A cell of `(K, 2)` is taken, too: of a `(2, 2)` one, that way round
counts in which its two intervals do not overlap, which is never both.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .claims import ALWAYS_ALLOWED, printable
from .matlab import read_cells
from .readers import read_all_npz, read_npy

FrameLabels = NDArray[np.uint8]

# Labels are packed to a hundredth and less. Those of the largest set in use,
# XD-Violence, have 19 MB as float64.
MAX_LABELS = 64 << 20
# By so much the snippets of a video may miss its frames: extractors leave out a tail.
MAX_MISSED = 64  # frames, or
MAX_MISSED_SHARE = 0.1


def read_ground_truth(
    path: str | os.PathLike[str], names: Sequence[str], num_frames: Sequence[int]
) -> list[FrameLabels]:
    """Read the frame labels of some test videos.

    Args:
        path: One of the kinds in the module's head.
        names: Names of the videos, without folder and ending. What an extractor adds
            behind a name, as `_i3d`, is ignored.
        num_frames: Number of frames of each video. Where the ground truth holds the
            true number itself (masks), that one counts.

    Returns:
        For each video `(F,)` uint8, 1 anomalous, 0 normal.

    Raises:
        FileNotFoundError: If there is no such file or folder, or it lacks a video.
        ValueError: If it is of no known kind, broken, or of another length: one that
            differs by more than 64 frames and a tenth is no tail that was left out.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such ground truth")
    if len(names) != len(num_frames):
        raise ValueError(f"num_frames: expected {len(names)}, got {len(num_frames)}")
    if path.is_dir() or path.suffix == ".npz":
        masks = _masks(path, names)
        for name, mask, count in zip(names, masks, num_frames, strict=True):
            _check_length(len(mask), count, f"{path}, {name}")
        return masks
    if path.suffix == ".npy":
        return _concatenated(path, num_frames)
    if path.suffix == ".txt":
        annotations = read_annotations(path)
        found = [annotations[_match(list(annotations), n, path)] for n in names]
    elif path.suffix == ".mat":
        found = _intervals(path, len(names))
    else:
        raise ValueError(
            f"{path}: expected a folder, .npy, .npz, .txt or .mat, got {path.suffix!r}"
        )
    return [
        _from_intervals(intervals, count, f"{path}, {name}")
        for name, intervals, count in zip(names, found, num_frames, strict=True)
    ]


def read_archive(
    path: Path, *, allowed: int = ALWAYS_ALLOWED
) -> dict[str, NDArray[Any]]:
    """Read all arrays of an `.npz` file; see `read_all_npz`.

    Raises:
        ValueError: If it is no archive of plain arrays, or broken; it names the file.
    """
    with _naming(path, "not readable as an archive of arrays"):
        return read_all_npz(path, allowed=allowed)


def read_annotations(path: str | os.PathLike[str]) -> dict[str, list[tuple[int, int]]]:
    """Read UCF-Crime's temporal annotation: first and last frames, counted from 1.

    Returns:
        For each video, by its name without ending, its anomalous intervals.

    Raises:
        ValueError: If the file is no text, or a row is not of that form.
    """
    path = Path(path)
    found: dict[str, list[tuple[int, int]]] = {}
    if path.stat().st_size > MAX_LABELS:
        raise ValueError(
            f"{path}: expected a text of annotations, got {path.stat().st_size} bytes"
        )
    try:
        rows = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected a text of annotations") from error
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        name, *rest = row.split()
        if Path(name).stem in found:
            raise ValueError(f"{path}, row {number}: {row!r:.80} is there twice")
        try:
            _, *frames = rest
            edges = [int(frame) for frame in frames]
            starts, ends = edges[0::2], edges[1::2]
            found[Path(name).stem] = [
                (start, end)
                for start, end in zip(starts, ends, strict=True)
                if start >= 0
            ]
        except ValueError as error:
            raise ValueError(
                f"{path}, row {number}: expected a name, a class and pairs of frames, "
                f"got {row!r:.80}"
            ) from error
    return found


def _masks(path: Path, names: Sequence[str]) -> list[FrameLabels]:
    if path.is_dir():
        return [_binary(_open(_mask_file(path, name)), path / name) for name in names]
    archive = read_archive(path, allowed=MAX_LABELS)
    return [
        _binary(archive[_match(list(archive), name, path)], f"{path}, {name}")
        for name in names
    ]


def _check_length(labelled: int, num_frames: int, where: str) -> None:
    """Refuse labels of a video of quite another length than the features'."""
    if abs(labelled - num_frames) > max(MAX_MISSED, MAX_MISSED_SHARE * labelled):
        raise ValueError(
            f"{where}: the labels go up to frame {labelled}, the snippets to "
            f"{num_frames}; expected features of 16 frames a snippet, neither of "
            "segments nor of another stride"
        )


def _concatenated(path: Path, num_frames: Sequence[int]) -> list[FrameLabels]:
    labels = _binary(_open(path), path)
    if len(labels) != sum(num_frames):
        raise ValueError(
            f"{path}: holds {len(labels)} frames, the {len(num_frames)} test videos "
            f"have {sum(num_frames)}; the order and the number of videos must be those "
            "of the test list"
        )
    return np.split(labels, np.cumsum(num_frames)[:-1])


def _open(path: Path) -> NDArray[Any]:
    with _naming(path, "not readable as a plain array"):
        return read_npy(path, None)


@contextmanager
def _naming(path: Path, what: str) -> Iterator[None]:
    """Name the file in whatever the parsers raise of a broken one."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: {what}: {error}") from error


def _binary(array: NDArray[Any], where: object) -> FrameLabels:
    flat = np.asarray(array).squeeze()
    if flat.dtype.kind == "c" or flat.ndim != 1 or not np.isin(flat, (0, 1)).all():
        raise ValueError(
            f"{where}: expected one 0 or 1 a frame, got shape {np.shape(array)} and "
            f"values {np.unique(flat)[:4].tolist()}"
        )
    return flat.astype(np.uint8)


def _mask_file(folder: Path, name: str) -> Path:
    return (
        folder / f"{_match([p.stem for p in folder.glob('*.npy')], name, folder)}.npy"
    )


def _match(known: Sequence[str], name: str, path: Path) -> str:
    """Find a video by its name; the longest known start of it counts, as `01_0014`."""
    if name in known:
        return name
    starts = [one for one in known if name.startswith((f"{one}_", f"{one}."))]
    if not starts:
        raise FileNotFoundError(
            f"{path}: has no ground truth for the video {printable(name)}"
        )
    return max(starts, key=len)


def _intervals(path: Path, num_videos: int) -> list[list[tuple[int, int]]]:
    with _naming(path, f"holds no readable 'gt' of {num_videos} videos"):
        cells = read_cells(path, "gt", num_videos)
    found = []
    for edges in cells:
        if edges.size and (edges.ndim != 2 or 2 not in edges.shape):
            raise ValueError(f"{path}: expected cells of (2, K), got {edges.shape}")
        if edges.size and (edges.shape[0] != 2 or _apart(edges)):
            edges = edges.T
        if not (np.isfinite(edges).all() and (edges == np.floor(edges)).all()):
            raise ValueError(f"{path}: expected whole numbers of frames in each cell")
        found.append([(int(a), int(b)) for a, b in edges.T] if edges.size else [])
    return found


def _apart(edges: NDArray[Any]) -> bool:
    """Whether the rows of a `(2, 2)` cell are intervals that do not overlap."""
    if edges.shape != (2, 2):
        return False
    (start, end), (next_start, next_end) = sorted(edges.tolist())
    return bool(start <= end < next_start <= next_end)


def _from_intervals(
    intervals: Sequence[tuple[int, int]], num_frames: int, where: str
) -> FrameLabels:
    labels = np.zeros(num_frames, dtype=np.uint8)
    for start, end in intervals:
        if not 0 <= start <= end:
            raise ValueError(f"{where}: {start} to {end} is no interval of frames")
        labels[max(start - 1, 0) : end] = 1
    _check_length(max([num_frames, *(end for _, end in intervals)]), num_frames, where)
    return labels
