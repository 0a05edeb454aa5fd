"""What an attached loader has in common with its worker processes."""

from __future__ import annotations

import torch

MAX_WORKERS = 64
_OFF, _ON, _RETIRED = 0, 1, 2


class Ledger:
    """Epoch, switch and counters in shared memory: they hold for worker processes.

    Args:
        enabled: Whether the switch is on.
    """

    def __init__(self, *, enabled: bool):
        # Row 0: epoch, switch, batches that the host took. Row 1 + w: videos seen and
        # replaced, and batches made, by worker w.
        self._rows = torch.zeros(
            (1 + MAX_WORKERS, 3), dtype=torch.int64, device="cpu"
        ).share_memory_()
        self._taken_before = -1  # the current iteration
        self.enabled = enabled

    @classmethod
    def of(cls, rows: list[list[int]]) -> Ledger:
        """Make one of the same content as another, in memory of its own."""
        made = cls(enabled=False)
        made._rows.copy_(torch.tensor(rows, device="cpu"))
        return made

    def rows(self) -> list[list[int]]:
        """Return the content, for `of`."""
        rows: list[list[int]] = self._rows.tolist()
        return rows

    @property
    def epoch(self) -> int:
        """How many iterations were begun; may be set."""
        return int(self._rows[0, 0])

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._rows[0, 0] = value

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; once retired, never again."""
        return int(self._rows[0, 1]) == _ON

    @enabled.setter
    def enabled(self, value: bool) -> None:
        if not self.retired:
            self._rows[0, 1] = _ON if value else _OFF

    @property
    def retired(self) -> bool:
        """Whether the loader was detached, so that workers leave batches alone."""
        return int(self._rows[0, 1]) == _RETIRED

    @property
    def taken(self) -> int:
        """How many batches the host took of iterations of the loader; may be set."""
        return int(self._rows[0, 2])

    @taken.setter
    def taken(self, value: int) -> None:
        self._rows[0, 2] = value

    @property
    def made(self) -> int:
        """How many batches were made, by all processes together."""
        return int(self._rows[1:, 2].sum())

    def retire(self) -> None:
        """Note that the loader was detached."""
        self._rows[0, 1] = _RETIRED

    def begin_epoch(self) -> None:
        """Count an iteration; one of which nothing was taken is begun again.

        Lightning makes the first iterator of loaders that it reloads twice.
        """
        if self.taken != self._taken_before:
            self._taken_before = self.taken
            self.epoch += 1

    def take(self) -> None:
        """Count a batch that the host takes."""
        self._rows[0, 2] += 1

    def count(self, worker: int, seen: int, replaced: int) -> None:
        """Count a batch that a worker made, and the videos in it."""
        row = self._rows[1 + worker % MAX_WORKERS]
        row[0] += seen
        row[1] += replaced
        row[2] += 1

    def counts(self) -> tuple[int, int]:
        """Return how many videos were seen, and how many of them replaced."""
        seen, replaced, _ = self._rows[1:].sum(dim=0).tolist()
        return seen, replaced
