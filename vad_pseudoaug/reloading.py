"""Loaders that a framework asks for again and again: what is attached goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from torch.utils.data import DataLoader

from .filling import SharedFolder
from .ledger import Ledger
from .loading import Attachment, give_back
from .mixer import Mixer
from .mixing import Mixing
from .sampler import PseudoVideoSampler

if TYPE_CHECKING:
    from .auto import Choice


class Reloading:
    """Attaches to the training loaders, whether they are made anew or given again.

    Switch, counters, epochs and steps are one ledger of each place, which a loader
    takes over from the one before it. Loaders are held weakly: those that the framework
    drops go, and their workers with them; those that it keeps stay attached.

    Attributes:
        choice: Why `p="auto"` became what it is, once loaders were made.
        folder: Of the pool that loaders of the same videos share.

    Args:
        attach: Of the adapter that fits the items.
        options: Its keywords; `p` in them is set once it was chosen.
    """

    def __init__(self, attach: Callable[..., Attachment], options: dict[str, Any]):
        mixing, _ = Mixing.split(options)
        self.choice: Choice | None = None
        self.folder = SharedFolder()
        self._attach = attach
        self._options = options
        self._loaders: WeakSet[DataLoader[Any]] = WeakSet()
        # Of the normal and the abnormal loader; of one of both classes, the first.
        self._ledgers = [Ledger(enabled=mixing.enabled) for _ in range(2)]

    @property
    def amount(self) -> str:
        """How many videos are replaced, as texts tell it."""
        return Mixing.split(self._options)[0].amount

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; may be switched at any time."""
        return all(ledger.enabled for ledger in self._ledgers)

    @enabled.setter
    def enabled(self, value: bool) -> None:
        for ledger in self._ledgers:
            ledger.enabled = value

    @property
    def epochs_done(self) -> int:
        """Number of iterations that were begun; may be set."""
        return max(ledger.epoch for ledger in self._ledgers)

    @epochs_done.setter
    def epochs_done(self, value: int) -> None:
        for ledger in self._ledgers:
            ledger.epoch = value

    @property
    def steps_done(self) -> int:
        """Number of batches that were taken; may be set."""
        return max(ledger.taken for ledger in self._ledgers)

    @steps_done.setter
    def steps_done(self, value: int) -> None:
        for ledger in self._ledgers:
            ledger.taken = value

    def go_on(self, epochs: int, steps: int) -> None:
        """Go on after so many epochs and steps, where fewer were counted here."""
        for ledger in self._ledgers:
            ledger.epoch = max(ledger.epoch, epochs)
        if steps > self.steps_done:
            self.steps_done = steps

    def stats(self) -> dict[str, int]:
        """Return how many videos were "seen" and how many "replaced" so far."""
        counts = [ledger.counts() for ledger in self._ledgers]
        seen, replaced = (sum(column) for column in zip(*counts, strict=True))
        return {"seen": seen, "replaced": replaced}

    def mix(
        self, loaders: Sequence[DataLoader[Any]], sampler: PseudoVideoSampler
    ) -> None:
        """Attach to the loaders, unless they are those that are attached to already."""
        known = [loader for loader in loaders if self._knows(loader)]
        if len(known) == len(loaders):
            return
        if known:  # beside a new one: all are attached to anew
            self._give_back(known)
        part = self._attach(*loaders, sampler, **self._options)
        if part.choice is not None:  # made once, and kept
            self.choice, self._options["p"] = part.choice, part.choice.p
        part.go_on(self._ledgers, self.folder)
        self._loaders.update(loaders)

    def detach(self, copies: Sequence[DataLoader[Any]] = ()) -> None:
        """Give the loaders back as they were, and what a framework copied of them."""
        self._give_back([loader for loader in copies if self._knows(loader)])
        self.folder.remove()

    def _knows(self, loader: Any) -> bool:
        mixer = getattr(loader, "collate_fn", None)
        return isinstance(mixer, Mixer) and mixer.ledger in self._ledgers

    def _give_back(self, copies: Iterable[DataLoader[Any]]) -> None:
        old, self._ledgers = self._ledgers, [Ledger.of(o.rows()) for o in self._ledgers]
        for ledger in old:
            ledger.retire()
        for loader in {*self._loaders, *copies}:
            give_back(loader)
        self._loaders.clear()
