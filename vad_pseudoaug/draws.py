"""When an item is drawn: told in the host's own process, which alone knows it.

Worker processes make batches ahead, in parallel, and of iterations that the host may
break off. So each index goes to them together with the epoch, the step, and how often
it was drawn before, and what is made of it depends on nothing else.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from .ledger import Ledger


class Draw(NamedTuple):
    """An index of the host's sampler, and when it came.

    Attributes:
        index: Of an item of the dataset.
        epoch: Number of the iteration over the loader; the first is 1.
        step: How many batches came before: those that the host had taken when the
            iteration began, and those of the iteration itself.
        occurrence: How often the index came before in the iteration: 0 wherever each
            item is drawn once an epoch.
    """

    index: Any
    epoch: int
    step: int
    occurrence: int


class DrawnBatches:
    """Stands for a host's batch sampler: it gives a `Draw` in place of each index."""

    def __init__(self, batches: Iterable[Any], ledger: Ledger):
        self._host = batches
        self._ledger = ledger

    def __iter__(self) -> Iterator[list[Draw]]:
        return _Draws(iter(self._host), self._ledger.epoch, self._ledger.taken)

    def __len__(self) -> int:
        return len(self._host)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return _host_attribute(self, name)


class _Draws:
    """An iteration over a host's batch sampler."""

    def __init__(self, batches: Iterator[Any], epoch: int, step: int):
        self._host = batches
        self._epoch = epoch
        self._step = step
        self._times: Counter[int | str] = Counter()

    def __iter__(self) -> Iterator[list[Draw]]:
        return self

    def __next__(self) -> list[Draw]:
        draws = [self._draw(index) for index in next(self._host)]
        self._step += 1
        return draws

    def _draw(self, index: Any) -> Draw:
        name = _name(index)
        self._times[name] += 1
        return Draw(index, self._epoch, self._step, self._times[name] - 1)

    def __getattr__(self, name: str) -> Any:
        return _host_attribute(self, name)


def _name(index: Any) -> int | str:
    """Name an index by its value: samplers give numbers, tensors, keys, tuples."""
    try:
        return operator.index(index)
    except TypeError:
        return repr(index)


def _host_attribute(stand_in: Any, name: str) -> Any:
    """Look an attribute up in what something stands for."""
    if name.startswith("__") or "_host" not in vars(stand_in):
        raise AttributeError(name)
    return getattr(vars(stand_in)["_host"], name)
