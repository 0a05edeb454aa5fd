"""Checkpoints: one folder with `config.json` and a `.safetensors` file, no pickle.

`config.json` names the file with the weights and its checksum, and is replaced in one
step after the weights are complete: at every moment the folder holds either the old
checkpoint or the new one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .readers import safetensors_header
from .writing import WEIGHTS, check_folder, read_json
from .writing import atomic_path as atomic_path
from .writing import claim_folder as claim_folder
from .writing import write_json as write_json

FORMAT_VERSION = 1
TRAINING_STATE = "training.safetensors"
# Larger ones are not read: the paper's model has 34 MB.
MAX_WEIGHTS = 8 << 30


class CheckpointError(ValueError):
    """A checkpoint is broken, of another kind, or newer than this library."""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


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
    path = Path(path)
    try:
        num_bytes = path.stat().st_size
        if num_bytes > MAX_WEIGHTS:
            raise ValueError(f"{num_bytes} bytes, at most {MAX_WEIGHTS} are read")
        with path.open("rb") as head:
            safetensors_header(head.read(8), num_bytes)
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not readable as weights: {error}") from error


def check_place(folder: str | os.PathLike[str]) -> None:
    """Make sure that a checkpoint can be written to a folder, before the work.

    Raises:
        FileExistsError: If it holds a `config.json` of something else.
        OSError: If it cannot be written to.
    """
    check_folder(folder)
    path = Path(folder) / "config.json"
    if not path.is_file():
        return
    try:
        found = read_json(path)
    except ValueError:
        return  # nothing that is lost
    if not (isinstance(found, dict) and {"format_version", "kind"} <= found.keys()):
        raise FileExistsError(
            f"{path}: is of something else than this library; take another folder"
        )


def write_checkpoint(
    folder: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint, so that a crash leaves the old one or the new one.

    Args:
        folder: Made if it does not exist. Foreign files in it are left alone; a
            foreign `config.json` is refused.
        kind: The class that can read it.
        config: JSON values.
        tensors: The weights.

    Raises:
        OSError: See `check_place`, or the disk is full. What was there is still whole.
    """
    check_place(folder)
    folder = Path(folder)
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    weights = folder / f"model-{digest[:12]}.safetensors"
    is_new = not weights.exists()
    with atomic_path(weights) as temporary:
        temporary.write_bytes(data)
    try:
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
    except BaseException:
        if is_new:  # weights that no config.json names
            weights.unlink(missing_ok=True)
        raise
    for old in folder.glob(WEIGHTS):
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
        config = read_json(path)
    except ValueError as error:
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
            f"{path}: unknown entries {sorted(unknown)!s:.200}, missing "
            f"{sorted(missing)}"
        )
    name = weights.get("file") if isinstance(weights, dict) else None
    if not isinstance(name, str) or Path(name).name != name:
        raise CheckpointError(f"{path}: 'weights' names no file in the same folder")
    file = path.parent / name
    if not file.is_file():
        raise CheckpointError(f"{file}: the weights that config.json names are missing")
    if file.stat().st_size <= MAX_WEIGHTS and _sha256(file) != weights.get("sha256"):
        raise CheckpointError(f"{file}: checksum differs from the one in config.json")
    tensors, _ = read_tensors(file)
    _check_weights(file, config, tensors)
    return config, tensors


def _check_weights(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Refuse weights that are no finite numbers, and widths that they do not have.

    A configuration may claim any width, and any number of layers: a model is built
    only of those that the tensors show.
    """
    for name, tensor in tensors.items():
        # The lengths of a bank's runs are the only whole numbers.
        whole = name.endswith(".lengths") and not tensor.is_complex()
        if not whole and not (
            tensor.is_floating_point() and bool(tensor.isfinite().all())
        ):
            raise CheckpointError(f"{path}: {name} is not of finite numbers")
    sizes = {size for tensor in tensors.values() for size in tensor.shape}
    claims = config.get("vae")
    claimed = claims if isinstance(claims, dict) else {}
    layers = claimed.get("hidden_dims")
    layers = layers if isinstance(layers, list) else []
    widths = [claimed.get("feature_dim"), claimed.get("latent_dim"), *layers]
    foreign = [w for w in widths if isinstance(w, int) and w not in sizes]
    if foreign or len(layers) > len(tensors):
        raise CheckpointError(
            f"{path}: expected shapes for {len(layers)} hidden layers and widths such "
            f"as {(foreign or layers)[0]!s:.40}, which config.json claims; there are "
            "others"
        )
