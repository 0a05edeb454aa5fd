"""The command `vad-pseudoaug`: the library from a shell."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from . import __version__
from .cli_completion import add_completion, write_completion
from .cli_evidence import add_check, add_compare
from .cli_inspect import add_inspect
from .cli_modes import add_modes
from .colours import painter
from .recipe import RECIPES, Recipe

EPILOG = """
a first run, on real features that come with the package:
  vad-pseudoaug demo

on your own features, one .npy a video, (T, D) or (T, N, D), named in two list files:
  vad-pseudoaug inspect normal.list
  vad-pseudoaug fit --normal normal.list --abnormal abnormal.list -o run/
  vad-pseudoaug generate run/ --per-video 2 -o pseudo/
and add pseudo/pseudo_normal.list and pseudo/pseudo_abnormal.list to the training lists.

are they any good, and do they help? before and after you train on them:
  vad-pseudoaug check run/
  vad-pseudoaug compare --normal normal.list --abnormal abnormal.list \\
      --test test.list --truth gt.npy -o compare/

Where the training script can be changed, one line of python does more: see the README.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vad-pseudoaug",
        description="Pseudo normal and abnormal videos for weakly supervised video "
        "anomaly detection, from the features you already have.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    fit = commands.add_parser(
        "fit",
        help="learn from training videos",
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
    fit.add_argument("-o", "--output", required=True, metavar="RUN", help="checkpoint")
    fit.add_argument(
        "--layout",
        choices=("TD", "TND", "NTD"),
        help="order of the axes in the files (T snippets, N crops, D features); "
        "default: TD for two axes, TND for three",
    )
    fit.add_argument(
        "--key", metavar="NAME", help="the features in files of several arrays"
    )
    fit.add_argument(
        "--skip-bad",
        action="store_true",
        help="set videos that cannot be read aside, and name them in RUN/skipped.json, "
        "instead of stopping at the first; every video is read once more for it",
    )
    fit.add_argument("--recipe", choices=tuple(RECIPES), help="[robust]")
    fit.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    fit.add_argument("--seed", type=int, help="[0]")
    add_modes(fit)
    choices = fit.add_argument_group("choices of the recipe, with the paper's defaults")
    for one in fields(Recipe):
        if one.name != "name":
            default: Any = one.default
            is_tuple = isinstance(default, tuple)
            shown = " ".join(map(str, default)) if is_tuple else default
            choices.add_argument(
                f"--{one.name.replace('_', '-')}",
                type=int if is_tuple else type(default),
                nargs="+" if is_tuple else None,
                metavar=one.name.rpartition("_")[2].upper(),
                help=f"{one.metadata['help']} [{shown}]",
            )
    fit.set_defaults(run=_fit)

    generate = commands.add_parser(
        "generate",
        help="write pseudo videos as .npy files with list files",
        description="Write pseudo videos of the videos that RUN was fitted on. "
        "Interrupted, the same command goes on where it stopped. Several processes "
        "share the work, started by `torchrun --nproc-per-node 4 -m vad_pseudoaug "
        "generate ...` or with --rank and --world-size.",
    )
    generate.add_argument("checkpoint", metavar="RUN", help="what `fit` wrote")
    generate.add_argument("-o", "--output", required=True, metavar="FOLDER")
    generate.add_argument(
        "--per-video", type=float, help="pseudo videos per video [the recipe's]"
    )
    generate.add_argument("--normal", metavar="LIST", help="other normal sources")
    generate.add_argument("--abnormal", metavar="LIST", help="other abnormal sources")
    generate.add_argument("--layout", default="TND", choices=("TD", "TND", "NTD"))
    generate.add_argument("--dtype", default="float32", choices=("float32", "float16"))
    generate.add_argument(
        "--format",
        default="npy",
        choices=("npy", "safetensors"),
        help="one .npy a video, or files of several videos [npy]",
    )
    generate.add_argument("--rank", type=int, help="number of this process [$RANK, 0]")
    generate.add_argument(
        "--world-size", type=int, help="number of processes [$WORLD_SIZE, 1]"
    )
    generate.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    generate.add_argument("--seed", type=int, default=0)
    add_modes(generate)
    generate.set_defaults(run=_generate)

    demo = commands.add_parser(
        "demo",
        help="does it help? a small experiment on real features, some minutes",
        description="Train two hosts on draws of UCSD Ped2 with and without pseudo "
        "videos; print a table, and write pictures and demo.json.",
    )
    demo.add_argument("-o", "--output", default="demo", metavar="FOLDER")
    demo.add_argument("--draws", type=int, default=5, help="paired runs, >= 2 [5]")
    demo.set_defaults(run=_demo)

    add_inspect(commands)
    add_check(commands)
    add_compare(commands)
    add_completion(commands, run=_completion)
    return parser


def _fit(options: argparse.Namespace) -> None:
    from .cli_fit import run_fit

    run_fit(options)


def _generate(options: argparse.Namespace) -> None:
    from .cli_generate import run_generate

    run_generate(options)


def _demo(options: argparse.Namespace) -> None:
    from .demo import format_table, run_demo

    if options.draws < 2:
        raise ValueError(f"--draws: expected at least 2, got {options.draws}")
    rows = run_demo(
        options.output,
        num_draws=options.draws,
        say=lambda line: print(line, flush=True),
    )
    print(
        f"\nUCSD Ped2, {options.draws} draws, 18 test videos each, frame level, "
        f"percent, mean +- spread over the draws:\n\n{format_table(rows)}\n\n"
        "An interval that holds 0 shows no effect: this set is tiny. Pictures and "
        f"demo.json: {options.output}"
    )


def _completion(options: argparse.Namespace) -> None:
    write_completion(_parser(), options.shell)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 a failed gate, 2 bad input."""
    options: Any = _parser().parse_args(arguments)
    try:
        code: int | None = options.run(options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        head = painter(sys.stderr)("error:", "bad")
        print(f"{head} {error}", file=sys.stderr)
        return 2
    return code or 0
