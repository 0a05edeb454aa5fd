"""Pseudo videos as files, for hosts that cannot be touched."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .checkpoint import atomic_path
from .extras import progress_bar
from .features import Layout
from .generation import count_pseudo_videos, order_sources
from .randomness import make_generator
from .repeatable import one_thread
from .sampler import PseudoVideoSampler
from .shards import (
    MANIFEST,
    Job,
    Shard,
    Stream,
    claim,
    cut,
    find_rank,
    write_checksums,
)
from .vae import ABNORMAL, NORMAL
from .writing import check_claim

NAMES = {NORMAL: "pseudo_normal", ABNORMAL: "pseudo_abnormal"}
MAX_PER_VIDEO = 1000


class Export(NamedTuple):
    """What is in the folder after `export_videos`.

    Attributes:
        normal_list: The list file of the pseudo normal videos; None of no videos.
        abnormal_list: That of the pseudo abnormal videos; None of no videos.
        num_normal: Pseudo normal videos in all.
        num_abnormal: Pseudo abnormal videos in all.
        num_missing: Videos that other processes have still to write; the list files
            are there once it is 0.
    """

    normal_list: Path | None
    abnormal_list: Path | None
    num_normal: int
    num_abnormal: int
    num_missing: int = 0


def export_videos(
    sampler: PseudoVideoSampler,
    folder: str | os.PathLike[str],
    *,
    per_video: float | None = None,
    seed: int = 0,
    layout: Layout = "TND",
    dtype: str = "float32",
    file_format: Literal["npy", "safetensors"] = "npy",
    relative: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    dry_run: bool = False,
    progress: bool | None = None,
) -> Export:
    """Write pseudo videos of all the sampler's sources, with list files.

    `folder` then holds `pseudo_normal/` and `pseudo_abnormal/` with one `.npy` a video,
    its mask (bool, `(T,)`) under the same name in `masks/`, a list file for each class
    that has videos, `manifest.json` and `checksums.json` with size and SHA-256 of each
    file. With "safetensors", some videos share a file, each under its name and its
    mask under `NAME.mask`, and the lists name these files.

    The work is cut into shards of a few videos. Of several processes, on one machine
    or on several with one folder, each does every `world_size`-th shard, and the last
    one to finish writes the lists. Files are written whole or not at all, and finished
    shards are kept: an interrupted call is continued by the same call, in any number
    of processes. What is in a file depends on seed and source alone.

    Args:
        sampler: With its sources.
        folder: Made if it does not exist.
        per_video: Pseudo videos per source, at most 1000; None is the recipe's.
        seed: Seed of the pseudo videos.
        layout: Order of the axes in the files.
        dtype: "float32" or "float16".
        file_format: "npy" or "safetensors".
        relative: Rows of the lists relative to the folder, which may then move; else
            absolute, and good in a list anywhere.
        rank: Number of this process; None takes `RANK`, which torchrun sets, or 0.
        world_size: Number of processes; None takes `WORLD_SIZE`, or 1.
        dry_run: Check everything, write nothing, and say what is there.
        progress: Show a bar; None decides by the terminal.

    Raises:
        ValueError: If the folder holds the output of another call, the sampler has no
            sources, rank and number of processes do not fit, or there is nothing to
            write.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype: expected 'float32' or 'float16', got {dtype!r}")
    if file_format not in ("npy", "safetensors"):
        raise ValueError(
            f"file_format: expected 'npy' or 'safetensors', got {file_format!r}"
        )
    folder = Path(folder)
    rank, world_size = find_rank(rank, world_size)
    per_video = sampler.recipe.per_video if per_video is None else per_video
    if not 0 < per_video <= MAX_PER_VIDEO:
        raise ValueError(
            f"per_video: expected a number above 0, at most {MAX_PER_VIDEO}, got "
            f"{per_video}"
        )
    jobs = _jobs(sampler, per_video, seed)
    if not jobs:
        raise ValueError(f"per_video={per_video} makes no video of these sources")
    if layout == "TD":
        num_crops = max(sampler.sources(job.label).num_crops for job in jobs)
        if num_crops > 1:
            raise ValueError(
                f"layout 'TD' has no axis for {num_crops} crops: take 'TND' or 'NTD'"
            )
    shards = cut(jobs, file_format)
    manifest = {
        "seed": seed,
        "per_video": per_video,
        "layout": layout,
        "dtype": dtype,
        "format": file_format,
        "model": sampler.fingerprint(),
        "videos": [
            {"file": file, "label": job.label, "source": job.title}
            for file, job in _files(shards)
        ],
    }
    num_normal = sum(job.label == NORMAL for job in jobs)
    counts = {NORMAL: num_normal, ABNORMAL: len(jobs) - num_normal}
    lists = {
        label: folder / f"{name}.list" for label, name in NAMES.items() if counts[label]
    }
    if dry_run:
        check_claim(folder, MANIFEST, manifest)
        return _export(folder, shards, lists, counts)
    claim(folder, manifest)
    own = shards[rank::world_size]
    num_own = sum(len(shard.jobs) for shard in own)
    with progress_bar(num_own, "pseudo videos", show=progress) as step:
        for shard in own:
            if not shard.finished(folder):
                made = (_make(sampler, job, seed, layout, dtype) for job in shard.jobs)
                with one_thread():
                    shard.write(folder, made)
            for _ in shard.jobs:
                step()
    done = _export(folder, shards, lists, counts)
    if not done.num_missing:
        write_checksums(folder, shards)
        start = Path() if relative else folder.resolve()
        for label, path in lists.items():
            # Videos that share a file have one row: a set that keeps its order.
            rows = dict.fromkeys(
                str(start / file) for file, job in _files(shards) if job.label == label
            )
            with atomic_path(path) as temporary:
                # Names of sources that are not UTF-8 go out as they came in.
                temporary.write_text(
                    "".join(f"{row}\n" for row in rows),
                    encoding="utf-8",
                    errors="surrogateescape",
                )
    return done


def _files(shards: Sequence[Shard]) -> Iterator[tuple[str, Job]]:
    """Name the file of each video, relative to the folder."""
    return ((shard.file(job), job) for shard in shards for job in shard.jobs)


def _export(
    folder: Path,
    shards: Sequence[Shard],
    lists: Mapping[int, Path],
    counts: Mapping[int, int],
) -> Export:
    left = [shard for shard in shards if not shard.finished(folder)]
    return Export(
        lists.get(NORMAL),
        lists.get(ABNORMAL),
        counts[NORMAL],
        counts[ABNORMAL],
        sum(len(shard.jobs) for shard in left),
    )


def _jobs(sampler: PseudoVideoSampler, per_video: float, seed: int) -> list[Job]:
    """List all pseudo videos, those of a class together."""
    jobs = []
    for label, name in NAMES.items():
        if not sampler.recipe.rate(label):
            continue
        sources = sampler.sources(label)
        rate = per_video * sampler.recipe.rate(label)
        count = count_pseudo_videos(len(sources), rate)
        order = order_sources(
            len(sources), count, generator=make_generator(seed, label)
        )
        for number, source in enumerate(order):
            title = sources.title(source)
            stem = f"{name}/{number:05d}_{Path(title).stem}"
            jobs.append(Job(label, number, source, title, stem))
    return jobs


def _make(
    sampler: PseudoVideoSampler, job: Job, seed: int, layout: Layout, dtype: str
) -> tuple[Stream, Any]:
    """Make one pseudo video: its features in the layout asked for, and its mask.

    One video a call and, by the caller, one thread: the last bits of a product may
    depend on both.
    """
    mask, blocks = sampler.sample_source(
        job.source,
        label=job.label,
        generator=make_generator(seed, job.label, job.number),
    )
    if layout == "NTD":  # crop after crop, which no block is
        blocks = iter((torch.cat(list(blocks), dim=1),))
    sources = sampler.sources(job.label)
    sizes = {"N": sources.num_crops, "T": len(mask), "D": sources.feature_dim}
    shape = tuple(sizes[axis] for axis in layout)
    return Stream(shape, dtype, _laid_out(blocks, layout, dtype)), mask.numpy()


def _laid_out(blocks: Iterable[Tensor], layout: Layout, dtype: str) -> Iterator[Any]:
    for block in blocks:
        features = block
        if layout == "TND":
            features = features.transpose(0, 1)
        elif layout == "TD":
            [features] = features
        # torch is far faster than numpy at the conversion to float16.
        yield features.to(getattr(torch, dtype)).contiguous().numpy()
