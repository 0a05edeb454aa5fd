"""Logs: what the VAE learned, and what was mixed in, as CSV and for TensorBoard."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from .extras import require
from .training import History
from .writing import atomic_path


class Counted(Protocol):
    """What an `attach` returns."""

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced."""

    def stats(self) -> dict[str, int]:
        """Return how many videos were "seen" and how many "replaced" so far."""


class Log:
    """Writes the terms of a fit and the counters of attached loaders.

    Args:
        folder: Where `vae.csv` and `mix.csv` go; None writes no CSV.
        tensorboard: A `SummaryWriter` that you close yourself, or the folder of one
            that is made here; None writes no events.

    Raises:
        ImportError: If a folder for TensorBoard is given and it is not installed; the
            message names the extra.
        ValueError: If there is nothing to write to.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with Log(folder) as log:
        ...     log.history([{"lr": 0.1, "total": 2.0}, {"lr": 0.1, "total": 1.5}])
        >>> (Path(folder) / "vae.csv").read_text().split()
        ['epoch,lr,total', '1,0.1,2.0', '2,0.1,1.5']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        tensorboard: Any = None,
    ):
        if folder is None and tensorboard is None:
            raise ValueError("expected a folder for CSV, tensorboard or both, got none")
        self._folder = None if folder is None else Path(folder)
        self._writer, self._own = tensorboard, False
        if isinstance(tensorboard, str | os.PathLike):
            require("tensorboard", extra="tensorboard")  # torch's own error is longer
            module = require("torch.utils.tensorboard", extra="tensorboard")
            self._writer = module.SummaryWriter(os.fspath(tensorboard))
            self._own = True
        self._last: dict[str, int] = {"seen": 0, "replaced": 0}

    def history(self, history: History) -> None:
        """Write the terms of the VAE, one row an epoch: `sampler.history`.

        `vae.csv` is written anew, TensorBoard gets `vae/TERM` by the epoch. Terms that
        only some epochs have, as those of a refresh, are empty in the others.
        """
        names = list(dict.fromkeys(name for entry in history for name in entry))
        if self._folder is not None:
            with (
                atomic_path(self._folder / "vae.csv") as temporary,
                temporary.open("w", newline="", encoding="utf-8") as file,
            ):
                rows = csv.DictWriter(file, ["epoch", *names], lineterminator="\n")
                rows.writeheader()
                rows.writerows(
                    {"epoch": epoch, **entry} for epoch, entry in enumerate(history, 1)
                )
        for epoch, entry in enumerate(history, 1):
            self._scalars("vae", entry, epoch)

    def mix(self, handle: Counted, step: int) -> None:
        """Write the counters of attached loaders, one row a call: once an epoch, say.

        A row has the videos seen and replaced so far, and `rate`, the share that was
        replaced since the last call. `mix.csv` is appended to, TensorBoard gets
        `mix/NAME`.

        Args:
            handle: What `attach` returned.
            step: Epoch or step of the host.
        """
        stats = handle.stats()
        seen, replaced = (
            stats[name] - self._last[name] for name in ("seen", "replaced")
        )
        if seen < 0:  # another handle, or one that was attached anew
            seen, replaced = stats["seen"], stats["replaced"]
        self._last = stats
        row = {
            "seen": stats["seen"],
            "replaced": stats["replaced"],
            "rate": round(replaced / seen, 6) if seen else 0.0,
            "enabled": int(handle.enabled),
        }
        if self._folder is not None:
            self._append(self._folder / "mix.csv", {"step": step, **row})
        self._scalars("mix", row, step)

    def _scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    @staticmethod
    def _append(path: Path, row: Mapping[str, float]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, list(row), lineterminator="\n")
            if not file.tell():
                rows.writeheader()
            rows.writerow(row)

    def close(self) -> None:
        """Close the writer that was made here; one that was given stays open."""
        if self._own:
            self._writer.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
