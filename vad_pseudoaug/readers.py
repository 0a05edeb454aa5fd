"""Arrays out of `.npy`, `.npz` and `.safetensors` files that nobody vouches for.

A reader compares what a file says of itself with the file's size, and takes memory
only then. Nothing is unpickled, so no file can run code.
"""

from __future__ import annotations

import functools
import io
import json
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .claims import (
    ALWAYS_ALLOWED,
    Claim,
    check_expansion,
    check_size,
    claim,
    map_values,
    pick,
    printable,
)

# numpy's own limit; its headers have some 100 bytes.
MAX_NPY_HEADER = 10_000
MAX_SAFETENSORS_HEADER = 16 << 20

_SAFETENSORS_DTYPES = {
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"I{8 * size}": f"<i{size}" for size in (1, 2, 4, 8)},
    **{f"U{8 * size}": f"<u{size}" for size in (1, 2, 4, 8)},
}


def npy_header(file: IO[bytes]) -> Claim:
    """Read the header of a `.npy`; the file is then where the values start.

    Raises:
        ValueError: If it is none, or larger than any real one.
    """
    magic = file.read(8)
    # np.load would take whatever is no .npy for a pickle, and say how to run it.
    if magic[:6] != b"\x93NUMPY":
        raise ValueError("the content is not that of a .npy file")
    version = tuple(magic[6:])
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"expected version 1.0 or 2.0 of the format, got {version}")
    length = file.read(2 if version == (1, 0) else 4)
    size = int.from_bytes(length, "little")
    if size > MAX_NPY_HEADER:
        raise ValueError(
            f"the header claims {size} bytes, at most {MAX_NPY_HEADER} are allowed"
        )
    return _parse_npy_header(version[0], length + file.read(size))


# The files of a pool have a handful of headers. Each parse leaves some ten objects in
# cycles, those of `ast.literal_eval`, which take memory until the next full collection.
@functools.lru_cache(maxsize=64)
def _parse_npy_header(version: int, text: bytes) -> Claim:
    if version == 1:
        parse = np.lib.format.read_array_header_1_0
    else:
        parse = np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = parse(io.BytesIO(text))
    return claim(dtype, shape, "F" if fortran_order else "C")


def read_npy(path: Path, key: str | None) -> NDArray[Any]:
    """Map a `.npy` file."""
    with path.open("rb") as file:
        found = npy_header(file)
        return map_values(path, found, file.tell(), path.stat().st_size)


def read_npz(path: Path, key: str | None) -> NDArray[Any]:
    """Read one array of a `.npz` archive, into as much memory as it claims."""
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        infos = {
            info.filename.removesuffix(".npy"): info
            for info in archive.infolist()
            if info.filename.endswith(".npy")
        }
        info = infos[pick(list(infos), key)]
        check_expansion(info.file_size, path.stat().st_size)
        return _member(archive, info)


def read_all_npz(
    path: Path, *, allowed: int = ALWAYS_ALLOWED
) -> dict[str, NDArray[Any]]:
    """Read all arrays of a `.npz` archive, if they fit the limit together.

    Args:
        path: The archive.
        allowed: Bytes that it may unpack to, however small it is.

    Raises:
        ValueError: If a member is no array, has the name of another, or they would
            unpack to too much.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        num_bytes = sum(info.file_size for info in infos)
        check_expansion(num_bytes, path.stat().st_size, allowed=allowed)
        arrays: dict[str, NDArray[Any]] = {}
        for info in infos:
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                raise ValueError(f"{printable(name[:80])} is no array")
            if name in arrays:
                raise ValueError(f"two arrays are called {printable(name[:80])}")
            arrays[name] = _member(archive, info)
    return arrays


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one `.npy` out of an archive, whose sizes were looked at."""
    # As numpy writes them; the other methods can unpack to any size.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"compressed by method {info.compress_type}, not deflate")
    with archive.open(info) as member:
        found = npy_header(member)
        check_size(found, info.file_size - member.tell())
        values = bytearray(found.num_bytes)
        position = 0
        # To the end of the member, where its checksum is looked at.
        while block := member.read(1 << 20):
            part = block[: found.num_bytes - position]
            values[position : position + len(part)] = part
            position += len(part)
        if position < found.num_bytes:
            raise ValueError("the archive is truncated")
    array: NDArray[Any] = np.frombuffer(values, found.dtype)
    return array.reshape(found.shape, order=found.order)


def read_safetensors(path: Path, key: str | None) -> NDArray[Any]:
    """Map one array of a `.safetensors` file."""
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        size = safetensors_header(file.read(8), file_bytes)
        entries = json.loads(file.read(size))
    if not isinstance(entries, dict):
        raise ValueError("the header is no JSON object")
    entries.pop("__metadata__", None)
    entry = entries[pick(list(entries), key)]
    dtype = _SAFETENSORS_DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ValueError(
            f"expected numbers, one of {', '.join(_SAFETENSORS_DTYPES)}, got "
            f"{entry['dtype']!r:.40}"
        )
    found = claim(np.dtype(dtype), entry["shape"])
    start, end = (offset + 8 + size for offset in entry["data_offsets"])
    if not 8 + size <= start <= end <= file_bytes or end - start != found.num_bytes:
        raise ValueError(
            f"the header claims an array {list(found.shape)} of {found.num_bytes} "
            f"bytes at bytes {start} to {end} of {file_bytes}"
        )
    return map_values(path, found, start, end)


def safetensors_header(head: bytes, file_bytes: int) -> int:
    """Return the size of the header, of the file's first 8 bytes.

    Raises:
        ValueError: If the file has no room for it, or it is unreasonably large.
    """
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > min(file_bytes - 8, MAX_SAFETENSORS_HEADER):
        raise ValueError(
            f"the header claims {size} bytes of a file of {file_bytes}, at most "
            f"{MAX_SAFETENSORS_HEADER} are allowed"
        )
    return size
