"""Colours on a terminal, for those who want them."""

from __future__ import annotations

import os
from typing import Protocol, TextIO

CODES = {"good": "32", "bad": "1;31"}  # green; bold red


class Paint(Protocol):
    """Colours a text: "good" or "bad"."""

    def __call__(self, text: str, kind: str, /) -> str:
        """Return the text in the colour of its kind."""


def plain(text: str, kind: str, /) -> str:
    """Return the text as it is."""
    return text


def painter(stream: TextIO) -> Paint:
    """Return what colours a text for a stream, where colours are shown and wanted.

    They are not where the stream is no terminal or a dumb one, or `NO_COLOR` is set
    (no-color.org).
    """
    if (
        os.environ.get("NO_COLOR")
        or os.environ.get("TERM") == "dumb"
        or not stream.isatty()
    ):
        return plain
    return lambda text, kind, /: f"\x1b[{CODES[kind]}m{text}\x1b[0m"
