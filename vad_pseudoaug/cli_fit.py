"""The command `fit`: learn from training videos."""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .cli_modes import (
    HELD_OUT,
    REPORT,
    add_device,
    add_layout,
    add_modes,
    add_output,
    answer,
    own_device,
)
from .cli_parser import seed
from .recipe import ALTERNATIVES, RECIPES, Recipe
from .writing import write_json

if TYPE_CHECKING:
    from .record import Record

SKIPPED = "skipped.json"


def add_fit(commands: Any) -> None:
    """Add the command `fit`."""
    fit = commands.add_parser(
        "fit",
        help="learn from training videos",
        usage="%(prog)s --normal LIST --abnormal LIST -o RUN [option ...]",
        description="Train baseline and multi-task VAE on training videos, and write "
        "a checkpoint. Interrupted, the same command goes on where it stopped.",
    )
    fit.add_argument("--normal", metavar="LIST", help="normal videos")
    fit.add_argument(
        "--abnormal", metavar="LIST", help="abnormal videos; none: recipe one-class"
    )
    fit.add_argument(
        "--config",
        metavar="FILE",
        help="RUN/config.json of another run: its recipe, seed and videos, unless "
        "others are given",
    )
    add_output(fit, "RUN")
    fit.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run, finished or not, that RUN holds; without it a run of "
        "other choices or videos is refused, and one of the same is left as it is",
    )
    add_layout(
        fit,
        "order of the axes in the files (T snippets, N crops, D features); "
        "default: TD for two axes, TND for three",
    )
    fit.add_argument(
        "--key", metavar="NAME", help="the features in files of several arrays"
    )
    fit.add_argument(
        "--skip-bad",
        action="store_true",
        help="set videos of both lists that cannot be read aside, and name them in "
        "RUN/skipped.json, instead of stopping at the first; every video is read once "
        "more for it",
    )
    fit.add_argument("--recipe", choices=tuple(RECIPES), help="[robust]")
    add_device(fit)
    fit.add_argument("--seed", type=seed, help="[0]")
    add_modes(fit)
    choices = fit.add_argument_group(
        "choices of the recipe, with the paper's defaults, and those of robust where "
        "they differ"
    )
    for one in fields(Recipe):
        if one.name != "name":
            _add_choice(choices, one.name, one.metadata["help"])
    fit.set_defaults(run=_fit, goes_on=True)


def _add_choice(group: Any, name: str, text: str) -> None:
    paper, robust = (getattr(RECIPES[recipe], name) for recipe in ("paper", "robust"))
    options: dict[str, Any] = {"type": type(paper), "metavar": "VALUE"}
    if isinstance(paper, bool):
        options = {"action": argparse.BooleanOptionalAction}
    elif isinstance(paper, tuple):
        options = {"type": int, "nargs": "+", "metavar": "WIDTH"}
    elif name in ALTERNATIVES:
        options = {"choices": ALTERNATIVES[name]}
    shown = _shown(paper)
    if robust != paper:
        shown += f", robust {_shown(robust)}"
    group.add_argument(
        f"--{name.replace('_', '-')}", default=None, help=f"{text} [{shown}]", **options
    )


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


class _Task(NamedTuple):
    """What is to be fitted, and what was set aside for it."""

    recipe: Recipe
    seed: int
    normal: Any
    abnormal: Any
    skipped: dict[str, Any] | None

    def record(self) -> Record:
        """Return what a finished run is known by."""
        from .record import Record

        sources = {
            name: videos and videos.record()
            for name, videos in (("normal", self.normal), ("abnormal", self.abnormal))
        }
        return Record(self.recipe, self.seed, sources)


def _fit(options: argparse.Namespace) -> None:
    """Fit, or say what would be fitted.

    Raises:
        ValueError: If there are no normal videos, or something is not usable.
    """
    from .checkpoint import check_place
    from .extras import as_device
    from .processes import joined
    from .sampler import PseudoVideoSampler
    from .shards import find_rank

    is_first = find_rank(None, None)[0] == 0
    device = own_device(options.device)
    as_device(device)  # before a long list is screened
    check_place(options.output)
    task = _task(options, tell=is_first)
    is_there = _is_there(options, task)
    if options.dry_run:
        if is_first:
            _preview(options, task, is_there)
        return
    if is_there:
        if is_first:
            sampler = PseudoVideoSampler.from_pretrained(options.output)
            _tell(options, task, sampler, "is there already")
        return
    with joined(device) as processes:
        sampler = PseudoVideoSampler.fit(
            task.normal,
            task.abnormal,
            recipe=task.recipe,
            seed=task.seed,
            device=device,
            folder=options.output,
            overwrite=options.overwrite,
            progress=None if is_first else False,
            processes=processes,
        )
    if is_first:
        folder = Path(options.output)
        for name in (HELD_OUT, REPORT):  # of the run that was there before
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / SKIPPED).unlink(missing_ok=True)
        if task.skipped is not None:
            write_json(folder / SKIPPED, task.skipped)
        _tell(options, task, sampler, "wrote")


def _task(options: argparse.Namespace, *, tell: bool) -> _Task:
    """Put options, and the record of another run, together."""
    from .fitting import as_training
    from .record import read_record

    choices = {
        one.name: getattr(options, one.name)
        for one in fields(Recipe)
        if one.name != "name" and getattr(options, one.name) is not None
    }
    normal, abnormal = options.normal, options.abnormal
    recipe: str | Recipe | None = options.recipe
    chosen_seed = options.seed
    report = None
    if options.skip_bad:
        normal, abnormal, report = _screen(options, tell=tell)
    if options.config is not None:
        record = read_record(options.config)
        recipe = recipe or record.recipe
        chosen_seed = record.seed if chosen_seed is None else chosen_seed
        normal = normal or record.videos("normal")
        abnormal = abnormal or record.videos("abnormal")
    if normal is None:
        raise ValueError("--normal: expected a list, or --config of a run on files")
    recipe = recipe or Recipe.default_name(abnormal=abnormal is not None)
    recipe = Recipe.named(recipe, **choices)
    read = {"layout": options.layout, "key": options.key}
    videos = as_training(normal, abnormal, recipe, **read)
    return _Task(recipe, chosen_seed or 0, *videos, report)


def _is_there(options: argparse.Namespace, task: _Task) -> bool:
    """Tell whether the run is finished and to be kept; refuse to replace another.

    Raises:
        ValueError: If the folder holds another run.
    """
    from .checkpoint import TRAINING_STATE
    from .record import read_record
    from .training import check_state
    from .writing import differences

    if options.overwrite:
        return False
    folder = Path(options.output)
    state = folder / TRAINING_STATE
    check_state(
        state,
        task.recipe,
        seed=task.seed,
        normal=task.normal,
        abnormal=task.abnormal,
    )
    if not (folder / "config.json").exists():
        return False
    advice = "take another folder, or replace it with --overwrite"
    try:
        found = read_record(folder)
    except ValueError as error:
        raise ValueError(f"{error}; {advice}") from error
    if other := differences(found.to_dict(), task.record().to_dict()):
        raise ValueError(f"{folder}: holds a run that differs in {other}; {advice}")
    return not state.exists()  # else it is being fitted anew


def _screen(
    options: argparse.Namespace, *, tell: bool
) -> tuple[Any, Any, dict[str, Any]]:
    from .screening import screen_pair

    if options.normal is None or options.abnormal is None:
        raise ValueError("--skip-bad: expected --normal and --abnormal")
    normal, abnormal = screen_pair(
        options.normal,
        options.abnormal,
        layout=options.layout,
        key=options.key,
        say=lambda line: print(line, file=sys.stderr) if tell else None,
    )
    report = {"normal": normal.report(), "abnormal": abnormal.report()}
    return normal.good, abnormal.good, report


def _tell(options: argparse.Namespace, task: _Task, sampler: Any, what: str) -> None:
    """Say what was learned, and where it is."""
    chosen = sampler.selection
    last = sampler.history[-1] if sampler.history else {}
    parts = []
    if task.abnormal is not None:
        parts.append(
            f"{chosen['num_selected']} of {chosen['num_snippets']} snippets of "
            "abnormal videos selected"
        )
    if last:
        text = f"squared error a snippet {last['reconstruction_normal']:.3g} normal"
        if task.abnormal is not None:
            text += f", {last['reconstruction_abnormal']:.3g} abnormal"
        parts.append(text)
    there = what != "wrote"
    end = f"{options.output}: {what}" if there else f"{what} {options.output}"
    values = {
        "output": options.output,
        "already_there": there,
        "recipe": task.recipe.to_dict(),
        "seed": task.seed,
        "num_selected": chosen.get("num_selected"),
        "num_snippets": chosen.get("num_snippets"),
        "last_epoch": dict(last),
        "skipped": task.skipped,
    }
    answer(options, values, "\n".join(filter(None, ("; ".join(parts), end))))


def _preview(options: argparse.Namespace, task: _Task, is_there: bool) -> None:
    read = {
        videos.name: {
            "num_videos": len(videos),
            "num_crops": videos.num_crops,
            "feature_dim": videos.feature_dim,
        }
        for videos in (task.normal, task.abnormal)
        if videos is not None
    }
    lines = [
        f"would read {own['num_videos']} {name} videos, {own['num_crops']} crops of "
        f"size {own['feature_dim']}"
        for name, own in read.items()
    ]
    recipe = task.recipe
    lines += [
        f"would train recipe {recipe.name!r}, {recipe.epochs} epochs, seed "
        f"{task.seed}, on {options.device}",
        f"would write config.json and model-*.safetensors to {options.output}",
    ]
    if is_there:
        lines = [f"{options.output}: is there already, nothing would be done"]
    values = {
        "dry_run": True,
        "already_there": is_there,
        "read": read,
        "recipe": recipe.to_dict(),
        "seed": task.seed,
        "output": options.output,
    }
    answer(options, values, "\n".join(lines))
