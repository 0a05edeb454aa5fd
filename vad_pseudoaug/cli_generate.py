"""The command `generate`: pseudo videos as files."""

from __future__ import annotations

import argparse
from typing import Any

from .cli_modes import (
    add_device,
    add_layout,
    add_modes,
    add_output,
    answer,
    own_device,
)
from .cli_parser import seed


def add_generate(commands: Any) -> None:
    """Add the command `generate`."""
    generate = commands.add_parser(
        "generate",
        help="write pseudo videos as .npy files with list files",
        description="Write pseudo videos of the videos that RUN was fitted on. "
        "Interrupted, the same command goes on where it stopped. Several processes "
        "share the work, started by `torchrun --nproc-per-node 4 -m vad_pseudoaug "
        "generate ...` or with --rank and --world-size.",
    )
    generate.add_argument("checkpoint", metavar="RUN", help="what `fit` wrote")
    add_output(generate, "FOLDER")
    generate.add_argument(
        "--per-video",
        type=float,
        metavar="NUMBER",
        help="pseudo videos per video [the recipe's]",
    )
    generate.add_argument(
        "--normal",
        metavar="LIST",
        help="other normal sources, read with the layout and key of the fit",
    )
    generate.add_argument("--abnormal", metavar="LIST", help="other abnormal sources")
    add_layout(generate, "order of the axes in the files written [TND]", default="TND")
    generate.add_argument(
        "--dtype", default="float32", choices=("float32", "float16"), help="[float32]"
    )
    generate.add_argument(
        "--format",
        default="npy",
        choices=("npy", "safetensors"),
        help="one .npy a video, or files of several videos [npy]",
    )
    generate.add_argument(
        "--relative",
        action="store_true",
        help="rows of the list files relative to FOLDER, for a folder that will move; "
        "without it they are absolute, and can be added to a list anywhere",
    )
    generate.add_argument(
        "--rank", type=int, metavar="NUMBER", help="number of this process [$RANK, 0]"
    )
    generate.add_argument(
        "--world-size",
        type=int,
        metavar="NUMBER",
        help="number of processes [$WORLD_SIZE, 1]",
    )
    add_device(generate)
    generate.add_argument("--seed", type=seed, default=0, help="[0]")
    add_modes(generate)
    generate.set_defaults(run=_generate, goes_on=True)


def _generate(options: argparse.Namespace) -> None:
    """Write pseudo videos, or say how many would be written.

    Raises:
        ValueError: If checkpoint, sources or folder are not usable.
    """
    from .export import export_videos
    from .sampler import PseudoVideoSampler

    sampler = PseudoVideoSampler.from_pretrained(
        options.checkpoint,
        normal=options.normal,
        abnormal=options.abnormal,
        device=own_device(options.device),
    )
    done = export_videos(
        sampler,
        options.output,
        per_video=options.per_video,
        seed=options.seed,
        layout=options.layout,
        dtype=options.dtype,
        file_format=options.format,
        relative=options.relative,
        rank=options.rank,
        world_size=options.world_size,
        dry_run=options.dry_run,
    )
    total = done.num_normal + done.num_abnormal
    counts = (
        (done.num_normal, "normal", done.normal_list),
        (done.num_abnormal, "abnormal", done.abnormal_list),
    )
    if options.dry_run:
        names = " and ".join(f"{n} pseudo {name}" for n, name, _ in counts)
        text = (
            f"would write {names} videos, {options.dtype}, {options.layout}, "
            f"{options.format}, with list files to {options.output}; "
            f"{total - done.num_missing} of them are there"
        )
    elif done.num_missing:
        text = (
            f"this process's share is done; of {total} videos {done.num_missing} are "
            "left to other processes"
        )
    else:
        text = "\n".join(
            f"there are {number} pseudo {name} videos, {path}"
            if path is not None
            else f"no pseudo {name} videos: the recipe, or --per-video, makes none"
            for number, name, path in counts
        )
    values = {
        **done._asdict(),
        "normal_list": done.normal_list and str(done.normal_list),
        "abnormal_list": done.abnormal_list and str(done.abnormal_list),
        "output": options.output,
        "dry_run": options.dry_run,
    }
    answer(options, values, text)
