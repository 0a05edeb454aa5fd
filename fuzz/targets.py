"""What is fuzzed: a function of bytes for each kind of file, and where it starts from.

Each target writes the bytes to a file, reads it by the library, and raises
`FindingError` where the library does not keep its word.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
from safetensors.numpy import save

from vad_pseudoaug.features import read_features, read_list, to_segments

VIDEO = np.arange(24, dtype=np.float32).reshape(3, 2, 4)  # (T, N, D)
# What the documentation of the readers and of from_pretrained names.
REFUSALS = (ValueError, FileNotFoundError)


class FindingError(Exception):
    """The library accepted what it should have refused."""


class Target(NamedTuple):
    """One kind of file.

    Attributes:
        run: Reads bytes as such a file, in a folder that is kept between calls.
        seeds: Good files, to start from.
    """

    run: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]


def features_target(ending: str, seeds: Callable[[], list[bytes]]) -> Target:
    """Read the bytes as a file of features."""

    def run(data: bytes, folder: Path) -> None:
        path = folder / f"video{ending}"
        path.write_bytes(data)
        try:
            features = read_features(path)
            segments = to_segments(features, 2)
        except (*REFUSALS, TypeError):
            return
        if features.dtype != np.float32 or features.ndim != 3 or 0 in features.shape:
            raise FindingError(f"features {features.dtype} {features.shape}")
        if not (np.isfinite(features).all() and np.isfinite(segments).all()):
            raise FindingError("features that are not finite")

    return Target(run, seeds)


def npy_seeds() -> list[bytes]:
    """Give arrays of several dtypes and orders."""
    arrays = [VIDEO.astype(d) for d in ("f4", "f2", ">f8", "i4", "c8", "?", "f4,f4")]
    arrays += [
        np.asfortranarray(VIDEO),
        VIDEO[:, 0],
        np.zeros((0, 2, 4)),
        VIDEO * np.nan,
    ]
    arrays += [np.array(["a"]), np.array([{}], dtype=object)]
    return [_written(np.save, array) for array in arrays]


def npz_seeds() -> list[bytes]:
    """Give archives with one array and with two, packed and not."""
    files = [_written(write, VIDEO) for write in (np.savez, np.savez_compressed)]
    return [*files, _written(np.savez, VIDEO, VIDEO)]


def mat_seeds() -> list[bytes]:
    """Give variables of several kinds, packed and not."""
    contents: list[dict[str, Any]] = [
        {"features": VIDEO},
        {"a": {"b": VIDEO}, "features": VIDEO.astype("u1"), "text": "abc"},
        {"cell": np.array([VIDEO, "x"], dtype=object), "c": VIDEO + 1j},
    ]
    return [
        _written(scipy.io.savemat, content, do_compression=packed)
        for content in contents
        for packed in (False, True)
    ]


def safetensors_seeds() -> list[bytes]:
    """Give files with one tensor and with two."""
    return [
        save({"features": VIDEO}),
        save({"a": VIDEO.astype("f2"), "b": VIDEO}, metadata={"of": "video"}),
    ]


def _written(write: Callable[..., Any], *arguments: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    write(file, *arguments, **options)
    return file.getvalue()


def run_list(data: bytes, folder: Path) -> None:
    """Read the bytes as a list file."""
    path = folder / "videos.list"
    if not (folder / "a.npy").exists():
        np.save(folder / "a.npy", VIDEO)
        (folder / "deep").mkdir()
    path.write_bytes(data)
    try:
        videos = read_list(path)
    except (ValueError, OSError):  # a row may be longer than any file name
        return
    if len({video.resolve() for video in videos}) < len(videos) or not videos:
        raise FindingError(f"the videos {videos}")


def list_seeds() -> list[bytes]:
    """Give lists as they are found."""
    return [b"a.npy\n", b"\xef\xbb\xbfa.npy\r\n\r\n./a.npy", b"deep\n/a/b.npy\n../x\n"]


def _checkpoint(folder: Path) -> tuple[dict[str, Any], Path]:
    """Write a small checkpoint once; return its configuration and its weights."""
    if not (folder / "first.json").exists():
        # Here, so that the other targets start without torch.
        from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig

        vae = MultiTaskVAE(VAEConfig(3, hidden_dims=(2,), latent_dim=2))
        PseudoVideoSampler(vae).save_pretrained(folder)
        (folder / "config.json").rename(folder / "first.json")
    config = json.loads((folder / "first.json").read_text())
    return config, folder / config["weights"]["file"]


def _load(folder: Path) -> None:
    import torch

    from vad_pseudoaug import PseudoVideoSampler

    try:
        sampler = PseudoVideoSampler.from_pretrained(folder)
    except REFUSALS:
        return
    pseudo = sampler.sample(torch.ones(2, 3), label=1, generator=torch.Generator())
    if pseudo.features.shape != (2, 3):
        raise FindingError("a sampler of another size")


def run_config(data: bytes, folder: Path) -> None:
    """Read the bytes as the config.json of a sampler whose weights are good."""
    _checkpoint(folder)
    (folder / "config.json").write_bytes(data)
    _load(folder)


def config_seeds() -> list[bytes]:
    """Give a good configuration; its checksum is that of the weights written here."""
    with tempfile.TemporaryDirectory() as folder:
        config, _ = _checkpoint(Path(folder))
    return [json.dumps(config).encode()]


def run_weights(data: bytes, folder: Path) -> None:
    """Read the bytes as weights whose checksum is right."""
    config, _ = _checkpoint(folder)
    (folder / "data.safetensors").write_bytes(data)
    config["weights"] = {
        "file": "data.safetensors",
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    (folder / "config.json").write_text(json.dumps(config))
    _load(folder)


def weights_seeds() -> list[bytes]:
    """Give the weights of a small model."""
    with tempfile.TemporaryDirectory() as folder:
        _, weights = _checkpoint(Path(folder))
        return [weights.read_bytes()]


def run_state(data: bytes, folder: Path) -> None:
    """Read the bytes as tensors."""
    from vad_pseudoaug.checkpoint import read_tensors

    path = folder / "state.safetensors"
    path.write_bytes(data)
    try:
        read_tensors(path)
    except REFUSALS:
        return


TARGETS = {
    "npy": features_target(".npy", npy_seeds),
    "npz": features_target(".npz", npz_seeds),
    "safetensors": features_target(".safetensors", safetensors_seeds),
    "mat": features_target(".mat", mat_seeds),
    "list": Target(run_list, list_seeds),
    "config": Target(run_config, config_seeds),
    "weights": Target(run_weights, weights_seeds),
    "state": Target(run_state, safetensors_seeds),
}
warnings.simplefilter("ignore")  # of numpy, on headers of Python 2
