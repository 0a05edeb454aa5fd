"""The commands `check` and `compare`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_modes import HELD_OUT, REPORT, add_layout, add_modes, add_output, answer
from .cli_parser import seed
from .writing import check_folder

if TYPE_CHECKING:
    from .protocol import Data
    from .sampler import PseudoVideoSampler

COMPARE_EPILOG = """
on features that come with the package, a new draw of UCSD Ped2 for each seed:
  vad-pseudoaug compare -o ped2/

on your own, RTFM's way: list files, and frame labels of the test videos in a row
  vad-pseudoaug compare --normal normal.list --abnormal abnormal.list \\
      --test test.list --truth gt-sh.npy --expect shanghaitech -o sht/

the paper's tables: --experiment table3 and table4 (figure 4: their ROC curves), table5,
  table6; on features of UCF-Crime, table4 is the pair of table 7 and figure 5

experiments: all, ablation (from paper to robust, a choice at a time), table3 to table6
arms: none, duplicate, jitter, mixup, psemix, mean-shift, cutmix, smote, paper, robust,
  one-class, auto; with choices of a recipe: small=paper:hidden_dims=512/256,per_video=1
  or those of --experiment by their names: --experiment ablation --arms none "+ model"
hosts: mlp (the paper's), rtfm, mil, or your own, my_module:train, a
  train(normal, abnormal, seed) that returns a score function, from features (N, T, D)
  to one score a snippet (T,)
"""


def add_check(commands: Any) -> None:
    """Add the command `check`."""
    check = commands.add_parser(
        "check",
        help="are the pseudo videos any good? before training on them",
        description="Judge the pseudo videos of a run on held-out training videos, "
        "and write a report page. Exits with 1 where a gate fails. Without --normal "
        "and --abnormal, the fit is repeated once on half of the run's own videos, in "
        "RUN/held-out, and judged on the other half.",
    )
    check.add_argument("checkpoint", metavar="RUN", help="what `fit` wrote")
    check.add_argument(
        "-o", "--output", metavar="FOLDER", help="report [RUN/report]", default=None
    )
    check.add_argument(
        "--normal",
        metavar="LIST",
        help="normal training videos that RUN never saw, read with the layout and key "
        "of the fit",
    )
    check.add_argument("--abnormal", metavar="LIST", help="abnormal ones")
    check.add_argument("--seed", type=seed, default=0, help="[0]")
    add_modes(check, dry_run=False)
    check.set_defaults(run=_check, goes_on=True)


def add_compare(commands: Any) -> None:
    """Add the command `compare`."""
    compare = commands.add_parser(
        "compare",
        help="did they help? paired experiments with controls and intervals",
        description="Train hosts with several ways to make more videos, paired by "
        "seed, and compare them on test videos. Every run is kept: interrupted, the "
        "same command goes on where it stopped.",
        epilog=COMPARE_EPILOG,
    )
    data = compare.add_argument_group("videos")
    data.add_argument(
        "--data",
        default="ped2",
        metavar="ped2|synthetic|FOLDER",
        help="UCSD Ped2, a synthetic set of sparse anomalies, or a folder of "
        "train.csv, test.csv, features.npz and frame_labels_test.npz [ped2]",
    )
    for name, text in (
        ("normal", "list file of normal training videos, in place of --data"),
        ("abnormal", "list file of abnormal training videos"),
        ("test", "list file of test videos"),
    ):
        data.add_argument(f"--{name}", metavar="LIST", help=text)
    data.add_argument(
        "--truth",
        metavar="PATH",
        help="frame labels of the test videos: .npy in a row, a folder of masks, .npz, "
        "UCF-Crime's .txt, .mat",
    )
    add_layout(data, "order of the axes in the files of the lists")
    data.add_argument(
        "--standardise",
        action="store_true",
        help="features to mean 0 and spread 1, for features of unlike units",
    )
    data.add_argument(
        "--expect",
        choices=("shanghaitech", "ucf-crime"),
        help="make sure that the counts are those of a published split",
    )
    what = compare.add_argument_group("experiment")
    what.add_argument(
        "--experiment",
        default="all",
        metavar="NAME",
        help="arms and hosts by name, see below [all]",
    )
    what.add_argument(
        "--arms",
        nargs="+",
        metavar="ARM",
        help="arms, see below, the first as base",
    )
    what.add_argument("--hosts", nargs="+", metavar="HOST", help="hosts, see below")
    what.add_argument(
        "--against", nargs="+", metavar="ARM", help="arms to compare with, too"
    )
    what.add_argument(
        "--seeds",
        type=int,
        default=10,
        metavar="NUMBER",
        help="paired runs, at least 2 [10]",
    )
    what.add_argument(
        "--first-seed",
        type=seed,
        default=0,
        metavar="SEED",
        help="seeds count from it: draws to choose by, other than those to show [0]",
    )
    what.add_argument(
        "--set",
        default="",
        metavar="CHOICE=VALUE,...",
        help="choices of the recipe in all arms, such as epochs=20",
    )
    compare.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="NUMBER",
        help="runs at a time [1]",
    )
    add_output(compare, "FOLDER")
    add_modes(compare, dry_run=False)
    compare.set_defaults(run=_compare, goes_on=True)


def _check(options: argparse.Namespace) -> int:
    from .check import check_sampler, refit_on_part
    from .colours import painter
    from .extras import require
    from .report import format_gates, write_report
    from .sampler import PseudoVideoSampler

    for module, extra in (("matplotlib", "plots"), ("sklearn", "eval")):
        require(module, extra=extra)  # before the fit, not after
    folder = Path(options.output or Path(options.checkpoint) / REPORT)
    check_folder(folder)  # as well
    sampler = PseudoVideoSampler.from_pretrained(options.checkpoint)
    both = sampler.recipe.learns_abnormal
    if (options.normal is None) != (options.abnormal is None) and both:
        raise ValueError("--normal and --abnormal: expected both or none")
    if options.abnormal is not None and not both and sampler.abnormal is None:
        raise ValueError(
            f"--abnormal: {options.checkpoint} learned of normal videos alone"
        )
    _refuse_without_videos(options.checkpoint, sampler)
    held_out = (options.normal, options.abnormal)
    if options.normal is None:
        sampler, *held_out = refit_on_part(  # type: ignore[assignment]
            sampler, Path(options.checkpoint) / HELD_OUT
        )
    check = check_sampler(sampler, *held_out, seed=options.seed)
    page = write_report(check, folder)
    values = {**check.to_dict(), "report": str(page)}
    text = format_gates(check, paint=painter(sys.stdout))
    answer(options, values, f"{text}\n\nwrote {page}")
    return 0 if check.passed else 1


def _refuse_without_videos(run: str, sampler: PseudoVideoSampler) -> None:
    """Say what to do where the videos that a run was fitted on are lost."""
    lacking = [
        name
        for name in ("normal", "abnormal")
        if getattr(sampler, name) is None
        and (name == "normal" or sampler.recipe.learns_abnormal)
    ]
    if lacking:
        lists = " ".join(f"--{name} LIST" for name in lacking)
        raise ValueError(
            f"{run}: a check compares with the {' and '.join(lacking)} videos that the "
            "run was fitted on, which are not where they were; fit it again where they "
            f"are now, `fit --config {run} {lists} -o NEW`, and check NEW"
        )


def _compare(options: argparse.Namespace) -> int:
    from .compare import Comparison, run_comparison
    from .experiments import find_experiment, parse_arm
    from .extras import require
    from .recipe import Recipe
    from .summary import format_tables, summarise, write_summary

    # As `python -m` does: a host of one's own is found in the working folder.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    experiment = find_experiment(options.experiment)
    arms = experiment.arms
    against: list[str] = [*experiment.against]
    if options.arms is not None:
        known = {arm.name: arm for arm in experiment.arms}
        arms = [known.get(text) or parse_arm(text) for text in options.arms]
        against = []
    comparison = Comparison(
        _data(options),
        arms,
        options.hosts or experiment.hosts,
        options.seeds,
        Recipe.parse(options.set),
        options.first_seed,
    )
    against = [arms[0].name, *(options.against or against)]
    unknown = sorted(set(against) - {arm.name for arm in arms})
    if unknown:
        raise ValueError(f"--against: {', '.join(unknown)} is none of the arms")
    require("matplotlib", extra="plots")  # before the hours of training, not after
    runs = run_comparison(
        comparison,
        options.output,
        processes=options.processes,
        say=lambda line: print(
            line, file=sys.stderr if options.json else sys.stdout, flush=True
        ),
    )
    results = summarise(comparison, runs, against=against)
    write_summary(options.output, comparison, runs, results)
    written = (Path(options.output) / "summary.json").read_bytes()
    answer(
        options,
        {"output": options.output, "results": json.loads(written)},
        f"\n{format_tables(results)}\n\nwrote summary and pictures: {options.output}",
    )
    return 0


def _data(options: argparse.Namespace) -> Data:
    from .protocol import Data

    lists = {
        name: getattr(options, name) for name in ("normal", "abnormal", "test", "truth")
    }
    given = {name: path for name, path in lists.items() if path is not None}
    if options.layout is not None and not given:
        raise ValueError(
            "--layout: of --normal, --abnormal and --test; --data has its own"
        )
    choices = {"standardise": options.standardise, "expect": options.expect}
    if not given:
        return Data.named(options.data, **choices)
    if len(given) < len(lists) or options.data != "ped2":
        raise ValueError(
            "expected --data, or --normal, --abnormal, --test and --truth; there is "
            f"{', '.join(f'--{name}' for name in given)}"
        )
    return Data("lists", given, options.layout, **choices)
