"""What several commands share: `--json` and `--dry-run`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any


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


def answer(options: argparse.Namespace, values: Mapping[str, Any], text: str) -> None:
    """Print the result of a command, as it was asked for."""
    print(json.dumps(values) if options.json else text)
