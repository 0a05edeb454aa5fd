"""What several commands share: options, and how an answer is printed."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from typing import Any

LAYOUTS = ("TD", "TND", "NTD")  # those of `features`, which is not imported for help
HELD_OUT, REPORT = "held-out", "report"  # folders of `check` in a run


def add_modes(parser: argparse.ArgumentParser, *, dry_run: bool = True) -> None:
    """Add `--json` and, unless it makes no sense, `--dry-run`."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object in place of text"
    )
    if dry_run:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="say what would be read, done and written, and write nothing",
        )


def add_output(parser: argparse.ArgumentParser, metavar: str) -> None:
    """Add `--output`, which must be given."""
    parser.add_argument(
        "-o", "--output", required=True, metavar=metavar, help="where to"
    )


def add_layout(parser: Any, text: str, *, default: str | None = None) -> None:
    """Add `--layout`, to a parser or a group of its arguments."""
    parser.add_argument("--layout", default=default, choices=LAYOUTS, help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`; `own_device` takes it."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... [cpu]")


def own_device(device: str) -> str:
    """Return the device of this process: torchrun's each have a GPU of their own."""
    if device == "cuda":
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    return device


def answer(options: argparse.Namespace, values: Mapping[str, Any], text: str) -> None:
    """Print the result of a command, as it was asked for."""
    print(json.dumps(values) if options.json else text)
