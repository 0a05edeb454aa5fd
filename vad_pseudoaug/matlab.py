"""Arrays out of MATLAB's `.mat` files, level 5 (MATLAB 5 to 7).

Only plain arrays of numbers are read, and cells of them where they are asked for;
structs, objects, functions and cells in cells are stepped over without a look inside.
scipy's reader follows nested cells as deep as a file likes, and takes what a file
claims for granted.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .claims import Claim, check_expansion, check_size, claim, map_values, pick

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4"},
    **{7: "f4", 9: "f8", 12: "i8", 13: "u8"},
}
_NUMBER_CLASSES = range(6, 16)  # double, single, int8 to uint64
_CELL_CLASS = range(1, 2)
_COMPLEX, _LOGICAL = 0x800, 0x200
# Flags, shape and name of a variable fit in; its values follow.
_HEAD = 4096


class _Variable(NamedTuple):
    """A variable at the top level of a file: where it is, and its first bytes."""

    start: int
    size: int
    compressed: bool
    head: bytes


class _Part(NamedTuple):
    """One data element: its type, and where its bytes are."""

    kind: int
    start: int
    size: int
    next: int


def read_mat(path: Path, key: str | None) -> NDArray[Any]:
    """Map or unpack one array of a `.mat` file.

    Raises:
        ValueError: If the file is none of level 5, or is not what it says it is.
    """
    with path.open("rb") as file:
        endian, variables = _find(file, path.stat().st_size, _NUMBER_CLASSES)
        chosen = variables[pick(list(variables), key)]
        if chosen.compressed:
            return _array(_unpack(file, chosen, endian), endian)
    found, start = _values(chosen.head, chosen.size, endian)
    end = chosen.start + chosen.size
    return map_values(path, found, chosen.start + start, end)


def read_cells(path: Path, key: str | None, count: int) -> list[NDArray[Any]]:
    """Read the arrays of numbers in one cell array of a `.mat` file, column by column.

    Args:
        path: The file.
        key: Name of the cell array; None takes the only one.
        count: Number of cells that there must be.

    Raises:
        ValueError: If the file is none of level 5, is not what it says it is, has
            another number of cells, or something else in one.
    """
    with path.open("rb") as file:
        endian, variables = _find(file, path.stat().st_size, _CELL_CLASS)
        chosen = variables[pick(list(variables), key)]
        if chosen.compressed:
            content = _unpack(file, chosen, endian)
        else:
            file.seek(chosen.start)
            content = file.read(chosen.size)
    _, _, position = _flags(content, endian)
    shape, position = _shape(content, position, endian)
    position = _part(content, position, endian).next  # over the name
    if math.prod(shape) != count or any(side < 0 for side in shape):
        raise ValueError(f"expected {count} cells, got shape {list(shape)!s:.80}")
    cells: list[NDArray[Any]] = []
    for _ in range(count):
        part = _part(content, position, endian)
        body = content[part.start : part.start + part.size]
        if part.kind != _MATRIX or len(body) != part.size:
            raise ValueError(f"cell {len(cells) + 1} is no whole array")
        # MATLAB writes nothing at all of an empty cell.
        cells.append(_array(body, endian) if body else np.empty((0, 0)))
        position = part.next
    return cells


def _array(content: bytes, endian: str) -> NDArray[Any]:
    """Read the values of a variable that is in memory."""
    if not _is_numbers(content, endian):
        raise ValueError("expected an array of real numbers")
    found, start = _values(content, len(content), endian)
    count = found.num_bytes // found.dtype.itemsize
    array: NDArray[Any] = np.frombuffer(content, found.dtype, count, start)
    return array.reshape(found.shape, order="F")


def _find(
    file: IO[bytes], file_bytes: int, classes: range
) -> tuple[str, dict[str, _Variable]]:
    """Return the byte order of a file, and its variables of some classes by name."""
    endian = _endian(file.read(128))
    variables: dict[str, _Variable] = {}
    position = 128
    while position < file_bytes:
        variable = _variable(file, position, file_bytes, endian)
        position = variable.start + variable.size
        name = _name(variable.head, endian, classes)
        if name in variables:
            raise ValueError(f"two variables are called {name!r:.80}")
        if name is not None:
            variables[name] = variable
    return endian, variables


def _endian(header: bytes) -> str:
    if header[124:128] == b"\x00\x01IM":
        return "<"
    if header[124:128] == b"\x01\x00MI":
        return ">"
    if b"MATLAB 7.3" in header:
        raise ValueError("MATLAB 7.3 files are HDF5: save with -v7, or as .npy")
    raise ValueError("the content is not that of a MATLAB 5 to 7 file")


def _variable(file: IO[bytes], position: int, end: int, endian: str) -> _Variable:
    file.seek(position)
    tag = file.read(8)
    if len(tag) < 8:
        raise ValueError("the file is truncated")
    kind, size = struct.unpack(f"{endian}2I", tag)
    start = position + 8
    if kind not in (_MATRIX, _COMPRESSED) or not 0 < size <= end - start:
        raise ValueError(
            f"at byte {position}: an element of type {kind} claims {size} bytes, "
            f"{end - start} are left"
        )
    if kind == _MATRIX:
        return _Variable(start, size, False, file.read(min(size, _HEAD)))
    unpacked = zlib.decompressobj().decompress(file.read(min(size, 2 * _HEAD)), _HEAD)
    # Before what a matrix holds is its own tag.
    return _Variable(start, size, True, unpacked[8:])


def _unpack(file: IO[bytes], variable: _Variable, endian: str) -> bytes:
    """Unpack a compressed matrix, as much of it as it claims to have and no more."""
    file.seek(variable.start)
    unpacker = zlib.decompressobj()
    packed = file.read(variable.size)
    tag = unpacker.decompress(packed, 8)
    if len(tag) < 8:
        raise ValueError("the compressed data is truncated")
    kind, size = struct.unpack(f"{endian}2I", tag)
    if kind != _MATRIX:
        raise ValueError(f"expected compressed data of a matrix, got type {kind}")
    check_expansion(size, variable.size)
    content = unpacker.decompress(unpacker.unconsumed_tail, size) if size else b""
    unpacker.decompress(unpacker.unconsumed_tail, 1)  # to the checksum at the end
    if len(content) != size or not unpacker.eof:
        raise ValueError("the compressed data is truncated, or longer than it claims")
    return content


def _part(content: bytes, position: int, endian: str) -> _Part:
    """Read the tag of the element at `position`; its bytes need not be there."""
    tag = content[position : position + 8]
    if len(tag) < 8:
        raise ValueError("a variable is truncated")
    kind, size = struct.unpack(f"{endian}2I", tag)
    if kind >> 16:  # up to four bytes lie in the tag itself
        return _Part(kind & 0xFFFF, position + 4, kind >> 16, position + 8)
    start = position + 8
    return _Part(kind, start, size, start + size + -size % 8)


def _flags(head: bytes, endian: str) -> tuple[int, int, int]:
    """Return class and flags of a variable, and where what follows them starts."""
    part = _part(head, 0, endian)
    if part.size != 8 or len(head) < 16:
        raise ValueError("a variable has no flags")
    [flags] = struct.unpack(f"{endian}I", head[part.start : part.start + 4])
    return flags & 0xFF, flags, part.next


def _name(head: bytes, endian: str, classes: range) -> str | None:
    """Return the name of a variable, None where it is of no such class, or complex."""
    kind, flags, position = _flags(head, endian)
    if kind not in classes or flags & (_COMPLEX | _LOGICAL):
        return None
    part = _part(head, _part(head, position, endian).next, endian)
    if part.start + part.size > len(head):
        raise ValueError("a variable's name is too long")
    return head[part.start : part.start + part.size].decode("latin-1")


def _is_numbers(content: bytes, endian: str) -> bool:
    kind, flags, _ = _flags(content, endian)
    return kind in _NUMBER_CLASSES and not flags & (_COMPLEX | _LOGICAL)


def _shape(content: bytes, position: int, endian: str) -> tuple[tuple[int, ...], int]:
    """Return the shape of a variable, and where its name starts."""
    part = _part(content, position, endian)
    sides = content[part.start : part.start + part.size]
    if len(sides) != part.size or len(sides) % 4 or part.kind != 5:
        raise ValueError("a variable has no shape")
    return struct.unpack(f"{endian}{len(sides) // 4}i", sides), part.next


def _values(head: bytes, size: int, endian: str) -> tuple[Claim, int]:
    """Return what a variable claims to be, and where in it the values start."""
    _, _, position = _flags(head, endian)
    shape, position = _shape(head, position, endian)
    position = _part(head, position, endian).next  # over the name
    part = _part(head, position, endian)
    if part.kind not in _NUMBERS:
        raise ValueError(f"expected values that are numbers, got type {part.kind}")
    found = claim(np.dtype(f"{endian}{_NUMBERS[part.kind]}"), shape, "F")
    if found.num_bytes != part.size:
        raise ValueError(
            f"the shape {list(shape)} needs {found.num_bytes} bytes, the values have "
            f"{part.size}"
        )
    check_size(found, size - part.start)
    return found, part.start
