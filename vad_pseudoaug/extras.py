"""What may not be there: optional dependencies and devices, asked for by name."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .plain_bar import PlainBar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
# After so many seconds, progress is shown: a bar that flashes by tells nothing.
PATIENCE = 2.0


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional module.

    Raises:
        ImportError: If it is not installed; the message names the extra that has it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is needed for this, the extra vad-pseudoaug[{extra}]: "
            f"pip install '.[{extra}]' in a clone of the repository"
        ) from error


def as_device(device: torch.device | str) -> torch.device:
    """Take a device by its name, and make sure that it is there.

    Raises:
        ValueError: If it is unknown, or not available here.
    """
    import torch  # here: the command line answers before torch is imported

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {device!r} is not available: {reason}") from error
    return found


class Progress(Protocol):
    """What a loop reports to."""

    def __call__(self, **values: float) -> None:
        """Count one step; `values` are shown beside the bar."""


@contextmanager
def progress_bar(
    total: int,
    title: str,
    *,
    show: bool | None,
    delay: float | None = None,
    done: int = 0,
) -> Iterator[Progress]:
    """Show the progress of `total` steps, with the time left, on standard error.

    Args:
        total: Number of steps.
        title: What is being done.
        show: None shows a bar on a terminal; without tqdm it is a plain line. True
            insists on one, at once.
        delay: Seconds before a bar that nobody insists on is shown; None is two.
        done: Steps that were done before, in a time that does not count.
    """
    if show:
        delay = 0.0
    elif delay is None:
        delay = PATIENCE
    if show is None:
        show = sys.stderr.isatty()
    if not show:
        yield lambda **values: None
        return
    kind: Any = PlainBar
    if importlib.util.find_spec("tqdm") is not None:
        kind = importlib.import_module("tqdm").tqdm
    with kind(total=total, initial=done, desc=title, leave=False, delay=delay) as bar:

        def step(**values: float) -> None:
            if values:
                bar.set_postfix(
                    {k: f"{v:.4g}" for k, v in values.items()}, refresh=False
                )
            bar.update()

        yield step


def track(items: Sequence[T], title: str, *, show: bool | None) -> Iterator[T]:
    """Go through `items` and show the progress; arguments as of `progress_bar`."""
    with progress_bar(len(items), title, show=show) as step:
        for item in items:
            yield item
            step()
