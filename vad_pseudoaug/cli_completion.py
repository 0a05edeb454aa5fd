"""The command `completion`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

from .extras import require

SHELLS = ("bash", "zsh", "fish")
EPILOG = """
for this shell, now:
  bash   eval "$(vad-pseudoaug completion bash)"
  zsh    eval "$(vad-pseudoaug completion zsh)"     after compinit
  fish   vad-pseudoaug completion fish | source

for every shell, once:
  bash   vad-pseudoaug completion bash \\
             > ~/.local/share/bash-completion/completions/vad-pseudoaug
  zsh    vad-pseudoaug completion zsh > FOLDER/_vad-pseudoaug    one of $fpath
  fish   vad-pseudoaug completion fish > ~/.config/fish/completions/vad-pseudoaug.fish
"""
# By what the help calls an argument, which paths complete it.
PATHS = {"LIST": "FILE", "FILE": "FILE", "PATH": "FILE"}
FOLDERS = {"RUN": "DIRECTORY", "FOLDER": "DIRECTORY"}


def add_completion(commands: Any, *, run: Callable[[argparse.Namespace], None]) -> None:
    """Add the command `completion`."""
    completion = commands.add_parser(
        "completion",
        help="the Tab key: print what a shell needs to complete this command",
        description="Print a completion script. It needs shtab, of the extra cli.",
        epilog=EPILOG,
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=run)


def write_completion(parser: argparse.ArgumentParser, shell: str) -> None:
    """Print the completion script of a parser.

    Raises:
        ImportError: If shtab is not installed; the message names the extra.
    """
    shtab = require("shtab", extra="cli")
    for action in _actions(parser):
        name = action.metavar if isinstance(action.metavar, str) else ""
        kind = {**PATHS, **FOLDERS}.get(name)
        if kind is not None:
            action.complete = getattr(shtab, kind)  # type: ignore[attr-defined]
    print(shtab.complete(parser, shell=shell))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
