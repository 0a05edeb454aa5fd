"""Checkpoints: one folder with `config.json` and a `.safetensors` file, no pickle.

`config.json` names the file with the weights and its checksum, and is replaced in one
step after the weights are complete: at every moment the folder holds either the old
checkpoint or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT_VERSION = 1
TRAINING_STATE = "training.safetensors"


class CheckpointError(ValueError):
    """A checkpoint is broken, of another kind, or newer than this library."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary file to write, and put it in the place of `path` at the end.

    The content is on the disk before it takes the name: a reader sees the old file or
    the whole new one. If the block fails, the old file stays and nothing is left.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as JSON, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def claim_folder(
    folder: str | os.PathLike[str], name: str, record: Mapping[str, Any]
) -> None:
    """Write what a folder is for, or make sure that it is for the same.

    Args:
        folder: Made if it does not exist.
        name: The record's file.
        record: JSON values: the choices that what is in the folder depends on.

    Raises:
        ValueError: If the folder is for something else.
    """
    path = Path(folder) / name
    if not path.exists():
        write_json(path, record)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from error
    if found != json.loads(json.dumps(record)):
        raise ValueError(
            f"{folder}: holds the results of another run, sources or choices; take "
            "another folder"
        )


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Tensor],
    *,
    meta: Mapping[str, str] | None = None,
) -> None:
    """Write tensors and text entries to a `.safetensors` file, atomically."""
    data = save(
        {k: v.detach().cpu().contiguous() for k, v in tensors.items()},
        metadata=dict(meta or {}),
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def read_tensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a `.safetensors` file: its tensors, on the CPU, and its text entries.

    Raises:
        CheckpointError: If the file is missing or broken.
    """
    try:
        with safe_open(Path(path), framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not readable as weights: {error}") from error


def write_checkpoint(
    folder: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint, so that a crash leaves the old one or the new one.

    Args:
        folder: Made if it does not exist. Foreign files in it are left alone.
        kind: The class that can read it.
        config: JSON values.
        tensors: The weights.

    Raises:
        NotADirectoryError: If `folder` is a file.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder, this is a file")
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    weights = folder / f"model-{digest[:12]}.safetensors"
    with atomic_path(weights) as temporary:
        temporary.write_bytes(data)
    write_json(
        folder / "config.json",
        {
            "format_version": FORMAT_VERSION,
            "kind": kind,
            "library_version": metadata.version("vad-pseudoaug"),
            "weights": {"file": weights.name, "sha256": digest},
            **config,
        },
    )
    for old in folder.glob("model-*.safetensors"):
        if old != weights:
            old.unlink(missing_ok=True)


def read_checkpoint(
    folder: str | os.PathLike[str], kind: str, entries: Collection[str]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint, weights on the CPU.

    Args:
        folder: What `write_checkpoint` filled.
        kind: The class that reads it.
        entries: The configuration's entries, all of which must be there.

    Returns:
        The configuration, without the checkpoint's own entries, and the weights.

    Raises:
        FileNotFoundError: If there is no `config.json`.
        CheckpointError: If anything in it is not as `write_checkpoint` writes it.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        if (path.parent / TRAINING_STATE).exists():
            raise FileNotFoundError(
                f"{path.parent}: the fit has not finished; repeat it to go on"
            )
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from error
    found = config.pop("kind", None) if isinstance(config, dict) else config
    if found != kind:
        raise CheckpointError(
            f"{path}: expected a checkpoint of {kind}, got {found!r:.80}"
        )
    if config.pop("format_version", None) != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: expected format_version {FORMAT_VERSION}; this library is "
            f"{metadata.version('vad-pseudoaug')}, the checkpoint was written by "
            f"{config.get('library_version')!r:.40}"
        )
    config.pop("library_version", None)
    weights = config.pop("weights", None)
    unknown, missing = set(config) - set(entries), set(entries) - set(config)
    if unknown or missing:
        raise CheckpointError(
            f"{path}: unknown entries {sorted(unknown)}, missing {sorted(missing)}"
        )
    name = weights.get("file") if isinstance(weights, dict) else None
    if not isinstance(name, str) or Path(name).name != name:
        raise CheckpointError(f"{path}: 'weights' names no file in the same folder")
    file = path.parent / name
    if not file.is_file():
        raise CheckpointError(f"{file}: the weights that config.json names are missing")
    if _sha256(file) != weights.get("sha256"):
        raise CheckpointError(f"{file}: checksum differs from the one in config.json")
    return config, read_tensors(file)[0]
