"""Video features: their canonical layout, reading them, and list files.

Everywhere in the library one video is an array `(N, T, D)`: crops, snippets or
segments, feature size. Files usually hold `(T, N, D)` or `(T, D)`. No reader ever
unpickles, so no file can run code.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .claims import printable
from .matlab import read_mat
from .pooling import blocks
from .pooling import to_segments as to_segments
from .readers import read_npy, read_npz, read_safetensors

Layout: TypeAlias = Literal["TD", "TND", "NTD"]
Array: TypeAlias = NDArray[np.floating[Any]]

LAYOUTS: tuple[Layout, ...] = ("TD", "TND", "NTD")
# I3D extractors use 1, 5 or 10 crops. A larger count on the crop axis is taken for a
# layout mix-up unless the layout was named.
MAX_GUESSED_CROPS = 16
# A million rows; a video that was given for a list is not read.
MAX_LIST = 64 << 20


def to_canonical(
    array: NDArray[Any],
    *,
    layout: Layout | None = None,
    default: Layout = "NTD",
    name: str = "features",
) -> Array:
    """View one video's array in the canonical layout `(N, T, D)`.

    Args:
        array: `(T, D)`, or three axes in the order that `layout` names.
        layout: Order of the axes. None takes `(T, D)` for two axes and `default` for
            three, and refuses three axes that look like the other order.
        default: The layout of three axes when `layout` is None.
        name: What the array is called in error messages.

    Returns:
        A view `(N, T, D)` with the dtype of `array`.

    Raises:
        ValueError: If the rank does not fit the layout, a side is empty, or the
            layout has to be named.
        TypeError: If the array does not hold real numbers.

    Example:
        >>> to_canonical(np.zeros((45, 10, 2048)), layout="TND").shape
        (10, 45, 2048)
    """
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    if layout is not None and layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout}")
    guessed = layout is None
    if guessed and array.ndim not in (2, 3):
        raise ValueError(
            f"{name}: expected two axes (T, D) or three ({', '.join(default)}), "
            f"got shape {array.shape}"
        )
    layout = layout or ("TD" if array.ndim == 2 else default)
    if array.ndim != len(layout):
        raise ValueError(
            f"{name}: expected {len(layout)} axes ({', '.join(layout)}), "
            f"got shape {array.shape}"
        )
    if 0 in array.shape:
        raise ValueError(f"{name}: the video is empty, shape {array.shape}")
    if layout == "TD":
        return array[None]  # (1, T, D)
    canonical = array.transpose(1, 0, 2) if layout == "TND" else array  # (N, T, D)
    num_crops, num_snippets, _ = canonical.shape
    if guessed and num_crops > MAX_GUESSED_CROPS:
        other = "NTD" if layout == "TND" else "TND"
        raise ValueError(
            f"{name}: shape {array.shape} read as {layout} would have {num_crops} "
            f"crops of {num_snippets} snippets; pass layout={other!r} or "
            f"layout={layout!r}"
        )
    return canonical


_READERS: dict[str, Callable[[Path, str | None], NDArray[Any]]] = {
    ".npy": read_npy,
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    ".mat": read_mat,
}


def open_features(
    path: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    key: str | None = None,
) -> Array:
    """Open one video's features without reading more than needed.

    Args:
        path: A `.npy` (memory-mapped), `.npz`, `.safetensors` or `.mat` file.
        layout: Order of the axes in the file; None takes `(T, D)` or `(T, N, D)`.
        key: Name of the array in a file that holds several.

    Returns:
        A view `(N, T, D)` in the file's own dtype, read-only where it is mapped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is of another kind, broken, holds pickled objects, or
            does not hold one video.
        TypeError: If the array does not hold real numbers.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: expected a file that ends in {', '.join(_READERS)}, "
            f"got {path.suffix or 'no ending'}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file")
    try:
        array = reader(path, key)
    except Exception as error:  # the parsers raise whatever a broken file leads to
        raise ValueError(f"{path}: not readable as features: {error}") from error
    return to_canonical(array, layout=layout, default="TND", name=str(path))


def as_float32(array: Array, *, name: str = "features") -> NDArray[np.float32]:
    """Convert `(N, T, D)` to float32; refuse NaN and infinity, naming where.

    What is float32 already is looked at some MiB at a time, and returned as it is.
    """
    with np.errstate(over="ignore"):  # too large for float32 is infinite, so refused
        converted = np.asarray(array, dtype=np.float32)
    video = converted.reshape((1,) * (3 - converted.ndim) + converted.shape)
    for start, block in blocks(video):
        if np.isfinite(block).all():
            continue
        crop, snippet, feature = np.argwhere(~np.isfinite(block))[0].tolist()
        place = (crop, start + snippet, feature)[3 - converted.ndim :]
        names = ("crop", "snippet", "feature")[3 - converted.ndim :]
        where = ", ".join(f"{n} {i}" for n, i in zip(names, place, strict=True))
        count = sum(int((~np.isfinite(part)).sum()) for _, part in blocks(video))
        raise ValueError(
            f"{name}: expected finite values, got {block[crop, snippet, feature]} at "
            f"{where} and {count} in all"
        )
    return converted


def read_features(
    path: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
    key: str | None = None,
) -> NDArray[np.float32]:
    """Read one video's features as float32 `(N, T, D)`.

    Arguments and errors are those of `open_features`; NaN and infinity are refused
    with a ValueError as well. A float32 `.npy` stays a memory map.

    Example:
        >>> from vad_pseudoaug.data import ped2
        >>> read_features(ped2() / "features" / "Test001_i3d.npy").shape
        (1, 11, 1024)
    """
    return as_float32(open_features(path, layout=layout, key=key), name=str(path))


def read_list(
    path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Read a list file: one feature file a row, blank rows ignored.

    Args:
        path: The list file. RTFM's own lists fit.
        root: Folder that relative rows start from; None is the list's own folder.

    Returns:
        The paths in the order of the rows. Each is a file that exists.

    Raises:
        FileNotFoundError: If the list or a file that it names does not exist.
        ValueError: If it is no text, names no file at all, or one twice.
    """
    path = Path(path)
    rows: dict[Path, int] = {}
    videos = []
    for number, video in list_rows(path, root=root):
        if not video.is_file():
            kind = "is a folder" if video.is_dir() else "no such file"
            raise FileNotFoundError(
                f"{path}, row {number}: {kind}: {printable(str(video))}"
            )
        first = rows.setdefault(video.resolve(), number)
        if first != number:
            raise ValueError(f"{path}: rows {first} and {number} name the same file")
        videos.append(video)
    if not videos:
        raise ValueError(f"{path}: the list names no feature file")
    return videos


def list_rows(
    path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None
) -> Iterator[tuple[int, Path]]:
    """Give the number and the path of each row of a list file that is not blank.

    Raises:
        FileNotFoundError: If there is no list file.
        ValueError: If it is no text, or too large for one.
    """
    path = Path(path)
    if not path.is_file():
        kind = "this is a folder" if path.is_dir() else "there is no such file"
        raise FileNotFoundError(f"{path}: expected a list file, {kind}")
    expected = f"{path}: expected a text with one path a row, UTF-8 or ASCII"
    if path.stat().st_size > MAX_LIST:
        raise ValueError(f"{expected}, got {path.stat().st_size} bytes")
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if b"\0" in content:
        raise ValueError(expected)
    folder = path.parent if root is None else Path(root)
    for number, row in enumerate(content.splitlines(), start=1):
        if row.strip():
            # File names need not be valid UTF-8.
            yield number, folder / os.fsdecode(row.strip())
