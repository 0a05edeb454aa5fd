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
from vad_pseudoaug.ground_truth import read_ground_truth

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


LABELS = {
    "a": np.array([0, 1, 1, 0], np.uint8),
    "b": np.zeros(3, np.uint8),
    "c": np.array([1, 0, 0, 1, 1], np.uint8),
}


def truth_target(ending: str, seeds: Callable[[], list[bytes]]) -> Target:
    """Read the bytes as the frame labels of three videos."""
    counts = [len(labels) for labels in LABELS.values()]

    def run(data: bytes, folder: Path) -> None:
        path = folder / f"truth{ending}"
        path.write_bytes(data)
        try:
            found = read_ground_truth(path, list(LABELS), counts)
        except REFUSALS:
            return
        for labels, count in zip(found, counts, strict=True):
            if labels.dtype != np.uint8 or labels.ndim != 1 or (labels > 1).any():
                raise FindingError(f"labels {labels.dtype} {labels.shape}")
            if ending != ".npz" and len(labels) != count:  # masks know their length
                raise FindingError(f"{len(labels)} labels of {count} frames")

    return Target(run, seeds)


def truth_npy_seeds() -> list[bytes]:
    """Give labels in a row, of several dtypes."""
    row = np.concatenate(list(LABELS.values()))
    return [_written(np.save, row.astype(dtype)) for dtype in ("u1", "?", "f8", "c8")]


def truth_npz_seeds() -> list[bytes]:
    """Give masks, packed and not."""
    return [_written(write, **LABELS) for write in (np.savez, np.savez_compressed)]


def truth_mat_seeds() -> list[bytes]:
    """Give cells of intervals, packed and not."""
    cells = np.empty((1, 3), dtype=object)
    for number, edges in enumerate(([[2], [3]], np.zeros((0, 0)), [[1, 4], [1, 5]])):
        cells[0, number] = np.asarray(edges, dtype=np.float64)
    contents: list[dict[str, Any]] = [
        {"gt": cells},
        {"x": VIDEO, "gt": cells.astype(object).T, "text": "abc"},
    ]
    return [
        _written(scipy.io.savemat, content, do_compression=packed)
        for content in contents
        for packed in (False, True)
    ]


def truth_txt_seeds() -> list[bytes]:
    """Give annotations as UCF-Crime has them."""
    rows = (
        b"a.mp4  Abuse  2  3  -1  -1\nb.mp4 Normal -1 -1 -1 -1\nc.mp4 Arson 1 1 4 5\n"
    )
    return [rows, b"\xef\xbb\xbf" + rows.replace(b"\n", b"\r\n\r\n")]


def run_entry(data: bytes, folder: Path) -> None:
    """Read the bytes as an entry of a pool."""
    from vad_pseudoaug.entries import has_entry, read_entry

    path = folder / "entry"
    path.write_bytes(data)
    has_entry(path, 0)
    entry = read_entry(path, 0)
    if entry is not None and entry.features.shape[1:2] != entry.mask.shape:
        raise FindingError(f"features {entry.features.shape} {entry.mask.shape}")


def entry_seeds() -> list[bytes]:
    """Give entries of both dtypes."""
    import torch

    from vad_pseudoaug.entries import Entry, write_entry

    video, mask = torch.from_numpy(VIDEO), torch.tensor([True, False])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "entry"
        seeds = []
        for features in (video, video.half()):
            write_entry(path, Entry(features, mask, False), 0, keep=False)
            seeds.append(path.read_bytes())
    return seeds


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
    """Write a small checkpoint of all parts once; return configuration and weights."""
    if not (folder / "first.json").exists():
        # Here, so that the other targets start without torch.
        import torch

        from vad_pseudoaug import (
            Baseline,
            MultiTaskVAE,
            PseudoVideoSampler,
            Recipe,
            VAEConfig,
        )
        from vad_pseudoaug.bank import Bank

        config = VAEConfig(3, hidden_dims=(2,), latent_dim=2, standardise=True)
        banks = {k: Bank(torch.ones(2, 1, 2, 3), torch.tensor([1, 2])) for k in (0, 1)}
        PseudoVideoSampler(
            MultiTaskVAE(config),
            recipe=Recipe.named("robust"),
            scorer=Baseline(3, hidden_dims=(2,)),
            banks=banks,
            means=torch.zeros(2, 3),
        ).save_pretrained(folder)
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


def _train(path: Path) -> None:
    """Train a small model for two epochs, or go on from a state."""
    from vad_pseudoaug import MultiTaskVAE, Recipe, VAEConfig, VideoSet
    from vad_pseudoaug.selection import select_above
    from vad_pseudoaug.training import train_vae

    vae = MultiTaskVAE(VAEConfig(4, hidden_dims=(2,), latent_dim=2))
    recipe = Recipe.named("paper", epochs=2, hidden_dims=(2,), latent_dim=2)
    sets = (VideoSet([VIDEO], layout="TND"), VideoSet([VIDEO / 2], layout="TND"))
    selection = select_above([np.ones(3)])
    history = train_vae(vae, *sets, selection, recipe, state_path=path, progress=False)
    weights = [weight for own in vae.state_dict().values() for weight in own.flatten()]
    if len(history) != 2 or not np.isfinite(weights).all():
        raise FindingError(f"{len(history)} epochs, weights {weights}")


def run_state(data: bytes, folder: Path) -> None:
    """Read the bytes as the state of a run of which an epoch is left."""
    path = folder / "state.safetensors"
    path.write_bytes(data)
    try:
        _train(path)
    except (*REFUSALS, FloatingPointError):  # huge weights diverge
        return


def state_seeds() -> list[bytes]:
    """Give the state after an epoch, and after the last one."""
    from vad_pseudoaug.checkpoint import read_tensors, write_tensors

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        _train(path)
        last = path.read_bytes()
        tensors, meta = read_tensors(path)
        meta["history"] = json.dumps(json.loads(meta["history"])[:1])
        write_tensors(path, tensors, meta=meta)
        return [path.read_bytes(), last]


TARGETS = {
    "npy": features_target(".npy", npy_seeds),
    "npz": features_target(".npz", npz_seeds),
    "safetensors": features_target(".safetensors", safetensors_seeds),
    "mat": features_target(".mat", mat_seeds),
    "list": Target(run_list, list_seeds),
    "config": Target(run_config, config_seeds),
    "weights": Target(run_weights, weights_seeds),
    "state": Target(run_state, state_seeds),
    "truth-npy": truth_target(".npy", truth_npy_seeds),
    "truth-npz": truth_target(".npz", truth_npz_seeds),
    "truth-mat": truth_target(".mat", truth_mat_seeds),
    "truth-txt": truth_target(".txt", truth_txt_seeds),
    "entry": Target(run_entry, entry_seeds),
}
warnings.simplefilter("ignore")  # of numpy, on headers of Python 2
