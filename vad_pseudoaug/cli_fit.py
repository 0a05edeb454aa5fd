"""What the command `fit` does."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from .cli_modes import answer
from .recipe import Recipe


def run_fit(options: argparse.Namespace) -> None:
    """Fit, or say what would be fitted.

    Raises:
        ValueError: If there are no normal videos, or something is not usable.
    """
    from .checkpoint import write_json
    from .processes import joined
    from .sampler import PseudoVideoSampler
    from .videos import VideoSet, as_pair

    recipe, seed, sources = _choose(options)
    report: dict[str, Any] | None = None
    if options.skip_bad:
        sources, report = _screen(options, *sources)
    if options.dry_run:
        normal, abnormal = sources
        read = {"layout": options.layout, "key": options.key}
        if abnormal is None:
            sets = [VideoSet(normal, **read, name="normal")]
        else:
            sets = list(as_pair(normal, abnormal, **read))
        _preview(options, recipe, seed, sets)
        return
    device = options.device
    if device == "cuda":  # torchrun's processes each have a GPU of their own
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    with joined(device) as processes:
        sampler = PseudoVideoSampler.fit(
            *sources,
            recipe=recipe,
            seed=seed,
            device=device,
            layout=options.layout,
            key=options.key,
            folder=options.output,
            progress=False if processes is not None and processes.rank else None,
            processes=processes,
        )
    if processes is not None and processes.rank:
        return
    if report is not None:
        write_json(Path(options.output) / "skipped.json", report)
    chosen = sampler.selection
    last = sampler.history[-1] if sampler.history else {}
    parts = []
    if sources[1] is not None:
        parts.append(
            f"{chosen['num_selected']} of {chosen['num_snippets']} snippets of "
            "abnormal videos selected"
        )
    if last:
        text = f"squared error {last['reconstruction_normal']:.3g} normal"
        if sources[1] is not None:
            text += f", {last['reconstruction_abnormal']:.3g} abnormal"
        parts.append(text)
    text = "; ".join(parts)
    values = {
        "output": options.output,
        "recipe": recipe.to_dict(),
        "seed": seed,
        "num_selected": chosen.get("num_selected"),
        "num_snippets": chosen.get("num_snippets"),
        "last_epoch": dict(last),
        "skipped": report,
    }
    answer(options, values, f"{text}\nwrote {options.output}")


def _choose(options: argparse.Namespace) -> tuple[Recipe, int, tuple[Any, Any]]:
    """Put options, and the record of another run, together."""
    from .record import read_record
    from .videos import VideoSet

    choices = {
        one.name: getattr(options, one.name)
        for one in fields(Recipe)
        if one.name != "name" and getattr(options, one.name) is not None
    }
    normal, abnormal = options.normal, options.abnormal
    recipe: str | Recipe | None = options.recipe
    seed = options.seed
    if options.config is not None:
        record = read_record(options.config)
        recipe = recipe or record.recipe
        seed = record.seed if seed is None else seed
        if normal is None and abnormal is None:
            if options.skip_bad:
                raise ValueError("--skip-bad: expected --normal and --abnormal")
            normal, abnormal = (
                saved
                and VideoSet(saved["files"], layout=saved["layout"], key=saved["key"])
                for saved in record.sources.values()
            )
    if normal is None:
        raise ValueError("--normal: expected a list, or --config of a run on files")
    recipe = recipe or Recipe.default_name(abnormal=abnormal is not None)
    return Recipe.named(recipe, **choices), seed or 0, (normal, abnormal)


def _screen(
    options: argparse.Namespace, normal: Any, abnormal: Any
) -> tuple[tuple[Any, Any], dict[str, Any]]:
    from .screening import screen_pair

    if abnormal is None:
        raise ValueError("--skip-bad: expected --normal and --abnormal")
    found = screen_pair(
        normal,
        abnormal,
        layout=options.layout,
        key=options.key,
        say=lambda line: print(line, file=sys.stderr),
    )
    report = dict(zip(("normal", "abnormal"), (s.report() for s in found), strict=True))
    return (found[0].good, found[1].good), report


def _preview(
    options: argparse.Namespace, recipe: Recipe, seed: int, sets: list[Any]
) -> None:
    read = {
        videos.name: {
            "num_videos": len(videos),
            "num_crops": videos.num_crops,
            "feature_dim": videos.feature_dim,
        }
        for videos in sets
    }
    lines = [
        f"would read {own['num_videos']} {name} videos, {own['num_crops']} crops of "
        f"size {own['feature_dim']}"
        for name, own in read.items()
    ]
    lines += [
        f"would train recipe {recipe.name!r}, {recipe.epochs} epochs, seed {seed}, on "
        f"{options.device}",
        f"would write config.json and model-*.safetensors to {options.output}",
    ]
    values = {
        "dry_run": True,
        "read": read,
        "recipe": recipe.to_dict(),
        "seed": seed,
        "output": options.output,
    }
    answer(options, values, "\n".join(lines))
