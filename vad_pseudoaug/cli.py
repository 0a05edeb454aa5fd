"""The command `vad-pseudoaug`: the library from a shell."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from . import __version__
from .cli_completion import add_completion, write_completion
from .cli_evidence import add_check, add_compare
from .cli_fit import add_fit
from .cli_generate import add_generate
from .cli_inspect import add_inspect
from .cli_parser import Parser
from .colours import painter

EPILOG = """
a first run, on real features that come with the package:
  vad-pseudoaug demo

on your own features, one .npy a video, (T, D) or (T, N, D), named in two list files:
  vad-pseudoaug inspect normal.list
  vad-pseudoaug fit --normal normal.list --abnormal abnormal.list -o run/
  vad-pseudoaug generate run/ -o pseudo/
and add the rows of pseudo/pseudo_abnormal.list, and of pseudo/pseudo_normal.list where
the recipe makes such videos, to the training lists.

are they any good, and do they help? before and after you train on them:
  vad-pseudoaug check run/
  vad-pseudoaug compare --normal normal.list --abnormal abnormal.list \\
      --test test.list --truth gt.npy -o compare/

Where the training script can be changed, one line of python does more: see the README.

exit codes: 0 done, 1 a gate of check failed, 2 wrong input or choices, 3 a fault of
this program, 130 interrupted
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="vad-pseudoaug",
        description="Pseudo normal and abnormal videos for weakly supervised video "
        "anomaly detection, from the features you already have.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_fit(commands)
    add_generate(commands)
    demo = commands.add_parser(
        "demo",
        help="does it help? a small experiment on real features, some minutes",
        description="Train two hosts on draws of UCSD Ped2 with and without pseudo "
        "videos; print a table, and write pictures and demo.json.",
    )
    demo.add_argument(
        "-o", "--output", default="demo", metavar="FOLDER", help="where to [demo]"
    )
    demo.add_argument(
        "--draws",
        type=int,
        default=5,
        metavar="NUMBER",
        help="paired runs, at least 2 [5]",
    )
    demo.set_defaults(run=_demo)
    add_inspect(commands)
    add_check(commands)
    add_compare(commands)
    add_completion(commands, run=_completion)
    return parser


def _demo(options: argparse.Namespace) -> None:
    from .extras import require

    require("matplotlib", extra="plots")  # before torch, which takes seconds
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
    """Run the command line; return its exit code, see the end of `--help`."""
    options: Any = _parser().parse_args(arguments)
    try:
        code: int | None = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        goes_on = getattr(options, "goes_on", False)
        tail = "; the same command goes on from here" if goes_on else ""
        print(f"interrupted{tail}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        head = painter(sys.stderr)("error:", "bad")
        print(f"{head} {error}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        head = painter(sys.stderr)("error:", "bad")
        print(
            f"{head} this is a fault of vad-pseudoaug {__version__} itself; please "
            "report the lines above",
            file=sys.stderr,
        )
        return 3
    return code or 0
