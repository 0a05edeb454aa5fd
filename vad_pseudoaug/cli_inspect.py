"""The command `inspect`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .cli_modes import add_layout


def add_inspect(commands: Any) -> None:
    """Add the command `inspect`."""
    inspect = commands.add_parser(
        "inspect",
        help="what do my feature files hold? and the call to make",
        description="Read feature files once, and say what they hold: layout, crops, "
        "lengths, feature size, norms, values that are not finite.",
    )
    inspect.add_argument(
        "path", metavar="PATH", help="a feature file, a folder of them or a list file"
    )
    add_layout(inspect, "order of the axes in the files")
    inspect.add_argument(
        "--key", metavar="NAME", help="the features in files of several arrays"
    )
    inspect.add_argument("--json", action="store_true", help="one JSON object")
    inspect.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    from .colours import painter
    from .inspection import find_files, format_inspection, inspect_files

    files = find_files(options.path)
    found = inspect_files(files, layout=options.layout, key=options.key)
    if options.json:
        print(json.dumps(found.to_dict()))
    else:
        print(format_inspection(found, paint=painter(sys.stdout)))
