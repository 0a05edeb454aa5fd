"""Pseudo videos as files, for hosts that cannot be touched."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .checkpoint import atomic_path, claim_folder
from .extras import progress_bar
from .features import Layout
from .generation import count_pseudo_videos, order_sources
from .randomness import make_generator
from .sampler import PseudoVideoSampler
from .vae import ABNORMAL, NORMAL

NAMES = {NORMAL: "pseudo_normal", ABNORMAL: "pseudo_abnormal"}


class Export(NamedTuple):
    """What `export_videos` wrote: the list files, and how many videos of each class."""

    normal_list: Path
    abnormal_list: Path
    num_normal: int
    num_abnormal: int


def export_videos(
    sampler: PseudoVideoSampler,
    folder: str | os.PathLike[str],
    *,
    per_video: float | None = None,
    seed: int = 0,
    layout: Layout = "TND",
    dtype: str = "float32",
    progress: bool | None = None,
) -> Export:
    """Write pseudo videos of all the sampler's sources, with list files.

    `folder` then holds `pseudo_normal/` and `pseudo_abnormal/` with one `.npy` a video
    and its mask in `NAME.mask.npy` (bool, `(T,)`), two list files with paths relative
    to the folder, and `manifest.json`. Files are written whole or not at all; those
    that are there already are kept, so an interrupted call is continued by the same
    call. What is in a file depends on seed and source alone.

    Args:
        sampler: With its sources.
        folder: Made if it does not exist.
        per_video: Pseudo videos per source; None is the recipe's.
        seed: Seed of the pseudo videos.
        layout: Order of the axes in the files.
        dtype: "float32" or "float16".
        progress: Show a bar; None decides by the terminal.

    Raises:
        ValueError: If the folder holds the output of another call, or the sampler has
            no sources.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype: expected 'float32' or 'float16', got {dtype!r}")
    folder = Path(folder)
    per_video = sampler.recipe.per_video if per_video is None else per_video
    manifest: dict[str, Any] = {
        "seed": seed,
        "per_video": per_video,
        "layout": layout,
        "dtype": dtype,
        "model": sampler.fingerprint(),
        "videos": [],
    }
    jobs = []
    for label, name in NAMES.items():
        sources = sampler.sources(label)
        count = count_pseudo_videos(len(sources), per_video)
        order = order_sources(
            len(sources), count, generator=make_generator(seed, label)
        )
        for number, source in enumerate(order):
            title = sources.title(source)
            file = f"{name}/{number:05d}_{Path(title).stem}.npy"
            jobs.append((label, number, source, file))
            manifest["videos"].append({"file": file, "label": label, "source": title})
    claim_folder(folder, "manifest.json", manifest)
    with progress_bar(len(jobs), "pseudo videos", show=progress) as step:
        for label, number, source, file in jobs:
            mask = (folder / file).with_suffix(".mask.npy")
            if not ((folder / file).exists() and mask.exists()):
                pseudo = sampler.sample(
                    sampler.sources(label).tensor(source),
                    label=label,
                    generator=make_generator(seed, label, number),
                )
                features = pseudo.features.numpy()
                if layout == "TND":
                    features = features.transpose(1, 0, 2)
                elif layout == "TD":
                    [features] = features
                _save(mask, pseudo.pseudo_mask.numpy())
                _save(folder / file, np.ascontiguousarray(features, dtype=dtype))
            step()
    lists = []
    for label, name in NAMES.items():
        rows = [file for made, _, _, file in jobs if made == label]
        lists.append(folder / f"{name}.list")
        with atomic_path(lists[-1]) as temporary:
            temporary.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    num_normal = sum(job[0] == NORMAL for job in jobs)
    return Export(lists[0], lists[1], num_normal, len(jobs) - num_normal)


def _save(path: Path, array: Any) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)
