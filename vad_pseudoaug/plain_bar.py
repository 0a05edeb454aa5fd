"""Progress as a line of plain text, where tqdm is not installed."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import ClassVar

SECONDS_BETWEEN_DRAWS = 0.2


class PlainBar:
    """A line on standard error that is written over; of tqdm, what is used here.

    Bars within bars share the line, the outer one first.

    Args:
        total: Number of steps.
        desc: What is being done.
        delay: Seconds before anything is shown.
        initial: Steps that were done before.
        leave: Taken for tqdm's sake: the line is always cleared in the end.
    """

    _open: ClassVar[list[PlainBar]] = []
    _width: ClassVar[int] = 0  # of what is on the terminal
    _next_draw: ClassVar[float] = 0.0

    def __init__(
        self,
        total: int,
        desc: str,
        *,
        delay: float,
        initial: int = 0,
        leave: bool = False,
    ):
        self._total, self._title, self._delay = total, desc, delay
        self._start, self._before, self._done = time.monotonic(), initial, initial
        self._values: Mapping[str, str] = {}

    def __enter__(self) -> PlainBar:
        if not self._open:
            PlainBar._next_draw = 0.0
        self._open.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.remove(self)
        if PlainBar._width:
            self._draw()

    def set_postfix(self, values: Mapping[str, str], *, refresh: bool) -> None:
        """Set what stands beside the title; it is seen with the next step."""
        self._values = values

    def update(self) -> None:
        """Count a step."""
        self._done += 1
        now = time.monotonic()
        if now >= max(self._start + self._delay, PlainBar._next_draw):
            PlainBar._next_draw = now + SECONDS_BETWEEN_DRAWS
            self._draw()

    def __str__(self) -> str:
        parts = [f"{self._title}: {self._done} of {self._total}"]
        if self._done > self._before:
            spent = time.monotonic() - self._start
            each = spent / (self._done - self._before)
            left = round(each * (self._total - self._done))
            parts.append(f"{left // 60}:{left % 60:02} left")
        return ", ".join(parts + [f"{k} {v}" for k, v in self._values.items()])

    def _draw(self) -> None:
        room = shutil.get_terminal_size().columns - 1
        line = " | ".join(map(str, self._open))[:room]
        sys.stderr.write(f"\r{line:<{PlainBar._width}}" + ("" if line else "\r"))
        sys.stderr.flush()
        PlainBar._width = len(line)
