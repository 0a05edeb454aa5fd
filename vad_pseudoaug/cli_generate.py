"""What the command `generate` does."""

from __future__ import annotations

import argparse
import os

from .cli_modes import answer


def run_generate(options: argparse.Namespace) -> None:
    """Write pseudo videos, or say how many would be written.

    Raises:
        ValueError: If checkpoint, sources or folder are not usable.
    """
    from .export import count_exports, export_videos
    from .sampler import PseudoVideoSampler

    device = options.device
    if device == "cuda":  # torchrun's processes each have a GPU of their own
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    sampler = PseudoVideoSampler.from_pretrained(
        options.checkpoint,
        normal=options.normal,
        abnormal=options.abnormal,
        device=device,
    )
    if options.dry_run:
        num_normal, num_abnormal = count_exports(sampler, options.per_video)
        values = {
            "dry_run": True,
            "num_normal": num_normal,
            "num_abnormal": num_abnormal,
            "output": options.output,
        }
        text = (
            f"would write {num_normal} pseudo normal and {num_abnormal} pseudo "
            f"abnormal videos, {options.dtype}, {options.layout}, {options.format}, "
            f"and two list files to {options.output}"
        )
        answer(options, values, text)
        return
    done = export_videos(
        sampler,
        options.output,
        per_video=options.per_video,
        seed=options.seed,
        layout=options.layout,
        dtype=options.dtype,
        file_format=options.format,
        rank=options.rank,
        world_size=options.world_size,
    )
    text = (
        f"wrote {done.num_normal} pseudo normal videos, {done.normal_list}\n"
        f"wrote {done.num_abnormal} pseudo abnormal videos, {done.abnormal_list}"
    )
    if done.num_missing:
        text = (
            f"wrote this process's share; of {done.num_normal + done.num_abnormal} "
            f"videos {done.num_missing} are left to other processes"
        )
    values = {
        **done._asdict(),
        "normal_list": str(done.normal_list),
        "abnormal_list": str(done.abnormal_list),
    }
    answer(options, values, text)
