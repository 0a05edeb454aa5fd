"""How the commands read their arguments: whole names, and mistakes in one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from .options import guess


class _Help(argparse.HelpFormatter):
    """Wraps descriptions, and leaves a text that begins with an empty line as it is."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return (
            text if text.startswith("\n") else super()._fill_text(text, width, indent)
        )


class Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations, and answers a mistake with what is meant.

    An abbreviation that works today is ambiguous once an option is added.
    """

    def __init__(self, *arguments: Any, **options: Any):
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", _Help)
        super().__init__(*arguments, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse, and refuse what no option takes where the options are known."""
        args = sys.argv[1:] if args is None else list(args)
        if self._subparsers is None:
            # Before what is lacking: a misspelt option is both, and no value begins so.
            names = (arg.partition("=")[0] for arg in args if arg.startswith("--"))
            for name in names:
                if name not in self._option_string_actions:
                    self._refuse(name)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown[0])
        return found, unknown

    def _refuse(self, name: str) -> NoReturn:
        meant = guess(name, self._option_string_actions)
        hint = f"; did you mean {meant}?" if meant else ""
        kind = "option" if name.startswith("-") else "argument"
        self.error(f"unknown {kind} {name}{hint}")

    def error(self, message: str) -> NoReturn:
        """End with one sentence and exit code 2."""
        self.exit(2, f"error: {message} ({self.prog} --help lists all)\n")


def seed(text: str) -> int:
    """Read a seed.

    Raises:
        argparse.ArgumentTypeError: If it is no such number.
    """
    if not text.isdecimal() or len(text) > 18:
        raise argparse.ArgumentTypeError(
            f"expected a whole number from 0, of at most 18 digits, got {text:.40}"
        )
    return int(text)
