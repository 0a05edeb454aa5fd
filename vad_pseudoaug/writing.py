"""Files that are written whole or not at all, and JSON that is read with care."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Larger ones are not read: those of this library have some KB.
MAX_JSON = 64 << 20
MAX_SHOWN = 40  # characters of a value that is named in a message
# Weights of a run, named by their content: those of others may lie beside them.
WEIGHTS = f"model-{'[0-9a-f]' * 12}.safetensors"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file to write, and put it in the place of `path` at the end.

    The content is on the disk before it takes the name: a reader sees the old file or
    the whole new one. If the block fails, the old file stays and nothing is left.

    Raises:
        OSError: If the file cannot be written; it is named by `path`.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f".{path.stem[:50]}-{secrets.token_hex(8)}{path.suffix}"
        path.with_name(name).touch(exist_ok=False)  # with the rights of any new file
        temporary = path.with_name(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # A full disk names no file at all, a folder without rights the temporary one.
        name = error.filename
        if name is None or Path(str(name)).parent.resolve() == path.parent.resolve():
            reason = f"not written: {error.strerror or error}"
            raise OSError(error.errno, reason, str(path)) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file that nobody vouches for.

    Raises:
        ValueError: If it is no JSON, too large, nested too deeply, or holds infinity
            or a whole number beyond 64 bits.
    """
    num_bytes = path.stat().st_size
    if num_bytes > MAX_JSON:
        raise ValueError(f"{num_bytes} bytes, at most {MAX_JSON} are read")
    try:
        return json.loads(
            path.read_text(encoding="utf-8"),
            parse_int=_number(int),
            parse_float=_number(float),
            parse_constant=_number(float),
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _number(kind: type[int] | type[float]) -> Callable[[str], int | float]:
    """Return a parser of numbers that refuses those beyond 64 bits, and infinity."""

    def parse(text: str) -> int | float:
        value = kind(text) if len(text) < 400 else float("inf")
        if abs(value) >= 2**63 and (kind is int or abs(value) == float("inf")):
            raise ValueError(f"the number {text:.40} is too large")
        return value

    return parse


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Make sure that a folder can be written to, before the work and not after it.

    It need not exist: then the nearest folder above it that does is asked.

    Raises:
        OSError: If it cannot.
        ValueError: If the path is empty.
    """
    if not os.fspath(folder):
        raise ValueError("expected a folder, got an empty path")
    found = Path(folder)
    while not found.exists() and found != found.parent:
        found = found.parent
    if not found.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder, {found} is a file")
    if not os.access(found, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: nothing may be written to {found}")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name the entries in which two records differ, with their values if short.

    Example:
        >>> differences({"seed": 0, "lr": 0.1}, {"seed": 1, "lr": 0.1})
        'seed (0, now 1)'
    """
    old, new = json.loads(json.dumps([old, new]))
    found = []
    for name in {**new, **old}:
        pair = [str(record.get(name)) for record in (old, new)]
        if old.get(name) != new.get(name):
            is_short = max(map(len, pair)) <= MAX_SHOWN
            found.append(f"{name} ({pair[0]}, now {pair[1]})" if is_short else name)
    return ", ".join(found)


def check_claim(
    folder: str | os.PathLike[str], name: str, record: Mapping[str, Any]
) -> bool:
    """Make sure that a folder is for nothing else; return whether its record is there.

    Args:
        folder: It need not exist.
        name: The record's file.
        record: JSON values: the choices that what is in the folder depends on.

    Raises:
        ValueError: If the folder is for something else; it says in what they differ.
        OSError: If it cannot be written to.
    """
    check_folder(folder)
    path = Path(folder) / name
    if not path.exists():
        return False
    try:
        found = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from error
    found = found if isinstance(found, dict) else {}
    if other := differences(found, record):
        raise ValueError(
            f"{folder}: holds the results of another run, which differs in {other}; "
            "take another folder"
        )
    return True


def claim_folder(
    folder: str | os.PathLike[str], name: str, record: Mapping[str, Any]
) -> None:
    """Write what a folder is for, or make sure that it is for the same.

    Arguments and errors as of `check_claim`; the folder is made if there is none.
    """
    if not check_claim(folder, name, record):
        write_json(Path(folder) / name, record)
