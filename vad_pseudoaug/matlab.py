"""Arrays out of MATLAB's `.mat` files, level 5 (MATLAB 5 to 7).

Only plain arrays of numbers are read; cells, structs, objects and functions are
stepped over without a look inside. scipy's reader follows nested cells as deep as a
file likes, and takes what a file claims for granted.
"""

from __future__ import annotations

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
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        endian = _endian(file.read(128))
        variables: dict[str, _Variable] = {}
        position = 128
        while position < file_bytes:
            variable = _variable(file, position, file_bytes, endian)
            position = variable.start + variable.size
            name = _name(variable.head, endian)
            if name in variables:
                raise ValueError(f"two variables are called {name!r:.80}")
            if name is not None:
                variables[name] = variable
        chosen = variables[pick(list(variables), key)]
        if chosen.compressed:
            content = _unpack(file, chosen, endian)
            found, start = _values(content[:_HEAD], len(content), endian)
            array: NDArray[Any] = np.frombuffer(
                content, found.dtype, offset=start, count=_count(found)
            )
            return array.reshape(found.shape, order="F")
    found, start = _values(chosen.head, chosen.size, endian)
    end = chosen.start + chosen.size
    return map_values(path, found, chosen.start + start, end)


def _count(found: Claim) -> int:
    return found.num_bytes // found.dtype.itemsize


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


def _name(head: bytes, endian: str) -> str | None:
    """Return the name of a variable, None where it is no array of real numbers."""
    kind, flags, position = _flags(head, endian)
    if kind not in _NUMBER_CLASSES or flags & (_COMPLEX | _LOGICAL):
        return None
    part = _part(head, _part(head, position, endian).next, endian)
    if part.start + part.size > len(head):
        raise ValueError("a variable's name is too long")
    return head[part.start : part.start + part.size].decode("latin-1")


def _values(head: bytes, size: int, endian: str) -> tuple[Claim, int]:
    """Return what a variable claims to be, and where in it the values start."""
    _, _, position = _flags(head, endian)
    shape_part = _part(head, position, endian)
    text = head[shape_part.start : shape_part.start + shape_part.size]
    if len(text) != shape_part.size or len(text) % 4 or shape_part.kind != 5:
        raise ValueError("a variable has no shape")
    shape = struct.unpack(f"{endian}{len(text) // 4}i", text)
    name_part = _part(head, shape_part.next, endian)
    part = _part(head, name_part.next, endian)
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
