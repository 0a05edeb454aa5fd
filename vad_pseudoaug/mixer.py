"""The second way in: videos replaced in a batch, before the host collates it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import get_worker_info

from .contracts import Contract, Sources
from .deferred import Pending, Survey, fingerprint, load_pending
from .draws import Draw
from .ledger import Ledger
from .masks import add_masks
from .mixing import Made, Mixing, PseudoVideoMaker
from .pool import Pool
from .randomness import make_generator
from .vae import ABNORMAL, NORMAL


class Mixer:
    """A collate function that replaces videos before the host's own collates them.

    What is drawn for a video is a function of the seed, its class, the epoch, the video
    and, where an item comes several times in an epoch (sampling with replacement, an
    endless sampler), which time it is. The number of workers changes nothing.

    Args:
        collate: The host's.
        contract: What the items look like.
        maker: Makes the pseudo videos.
        mixing: How many are replaced, and when.
        pool: Keeps pseudo videos; None makes new ones for each item.
        survey: What is known of the items of the loader's dataset.
        retarget: Chooses the class that is made in place of an item; None keeps it.
    """

    def __init__(
        self,
        collate: Callable[[list[Any]], Any],
        contract: Contract,
        maker: PseudoVideoMaker,
        mixing: Mixing,
        *,
        pool: Pool | None = None,
        survey: Survey | None = None,
        retarget: TargetShare | None = None,
    ):
        self.collate = collate
        self.mixing = mixing
        self._contract = contract
        self._maker = maker
        self._pool = pool
        self._survey = survey
        self._retarget = retarget
        self.ledger = Ledger(enabled=mixing.enabled)

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; may be switched at any time."""
        return self.ledger.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self.ledger.enabled = value

    def counts(self) -> tuple[int, int]:
        """Return how many videos were seen, and how many of them replaced."""
        return self.ledger.counts()

    def without_ledger(self) -> Mixer:
        """Return one without switch and counters: a copy of the loader has its own."""
        other = copy.copy(self)
        del other.ledger
        return other

    @property
    def surveys(self) -> list[Survey]:
        """What is known of items, of this loader's and of those of the same pool."""
        own = [] if self._survey is None else [self._survey]
        return own if self._pool is None else [*own, *self._pool.surveys]

    def next_epoch(self, *, workers_stay: bool = False) -> None:
        """Count an iteration over the loader: it draws other pseudo videos.

        Args:
            workers_stay: Whether workers that start now must find the pool later.
        """
        self.ledger.begin_epoch()
        if self._pool is not None and workers_stay:
            self._pool.open()
        epoch = self.ledger.epoch
        waits = self.mixing.start_unit == "epochs" and self.mixing.start_after
        if self._pool is not None and self.enabled and epoch > waits:
            self._pool.fill(epoch)

    @property
    def passive(self) -> bool:
        """Whether batches are the host's own, whatever the switch."""
        return self.mixing.inert and not self.mixing.give_mask

    @property
    def defers(self) -> bool:
        """Whether items had better be loaded only once it is known which are kept."""
        return self._survey is not None and self._survey.useful and self.enabled

    def __call__(self, items: list[Any]) -> Any:
        """Replace videos, then collate as the host does."""
        return self.collate(items if self.passive else self.mix(items))

    def mix(self, items: list[Any]) -> list[Any]:
        """Replace videos in the items of a batch."""
        if self.ledger.retired:
            return load_pending(items)
        # Where the host makes its iterators itself, nobody told when items are drawn.
        unknown = Draw(None, self.ledger.epoch, self.ledger.made, 0)
        draws = [item.draw if isinstance(item, Pending) else unknown for item in items]
        if not self.defers:
            items = load_pending(items)
        rows = [self._row(*one) for one in zip(items, draws, strict=True)]
        limit = self._limit(rows, draws[0] if draws else unknown)
        seen = replaced = 0
        mixed = []
        for row in rows:
            chosen = [p for p in row.plans if p.draw < limit * self._rate(p.label)]
            seen, replaced = seen + len(row.plans), replaced + len(chosen)
            item = row.item
            if row.pending is not None and len(chosen) < len(row.plans):
                item = row.pending.load()
            mixed.append(self._replace(item, chosen, row.epoch))
        worker = get_worker_info()
        self.ledger.count(worker.id if worker else 0, seen, replaced)
        return mixed

    def _limit(self, rows: Sequence[_Row], now: Draw) -> float:
        """Return below which draw a video of the batch is replaced; -1 for none."""
        epochs = max(now.epoch - 1, 0)  # 0 too where a framework rebuilt the loader
        passed = epochs if self.mixing.start_unit == "epochs" else now.step
        if not self.enabled or self.mixing.inert or passed < self.mixing.start_after:
            return -1.0
        return self.mixing.limit([plan.draw for row in rows for plan in row.plans])

    def _rate(self, label: int) -> float:
        """Return what part of the videos of a class the recipe wants to be pseudo."""
        # Where the class is drawn, the share of each class is given.
        if self._retarget is not None:
            return 1.0
        return self._maker.sampler.recipe.rate(label)

    def _row(self, item: Any, draw: Draw) -> _Row:
        """Plan what may happen to an item, which is loaded only if that needs it."""
        pending = None
        keys: Sequence[int] | None = None
        if isinstance(item, Pending):
            shell = None if self._survey is None else self._survey.get(draw.index)
            if shell is None:
                item = item.load()
            else:
                pending, item, keys = item, shell.template(), shell.keys
        views = self._contract.views(item)
        if keys is None:
            keys = [fingerprint(item_format.get(item)) for _, item_format in views]
        again = (draw.occurrence,) if draw.occurrence else ()
        plans = []
        for (label, _), key in zip(views, keys, strict=True):
            generator = make_generator(self.mixing.seed, label, draw.epoch, key, *again)
            uniform = torch.rand((), generator=generator, device="cpu").item()
            plans.append(_Plan(uniform, label, generator))
        return _Row(item, pending, plans, draw.epoch)

    def _replace(self, item: Any, chosen: list[_Plan], epoch: int) -> Any:
        masks = {}
        for _, label, generator in chosen:
            if self._retarget is not None:
                label, item = self._retarget.choose(
                    item, label, generator, self._survey
                )
            item_format = dict(self._contract.views(item))[label]
            length = item_format.wanted_length(item)
            made = self._make(label, length, generator, epoch)
            item = item_format.replace(item, made.features)
            masks[label] = made.mask
        if self.mixing.give_mask:
            item = add_masks(item, self._contract.views(item), masks)
        return item

    def _make(
        self, label: int, length: int | None, generator: torch.Generator, epoch: int
    ) -> Made:
        number = _draw_number(len(self._maker.sources[label]), generator)
        if self._pool is None:
            return self._maker.make(label, number, generator, length=length)
        variant = _draw_number(self._pool.plan.variants, generator)
        return self._pool.take(label, number, variant, epoch)


class TargetShare(NamedTuple):
    """Draws the class of each pseudo video, for hosts whose loader mixes the classes.

    Attributes:
        share: Share of abnormal videos among the pseudo videos.
        templates: For each class, real items that can be the template.
    """

    share: float
    templates: Mapping[int, Sources]

    def choose(
        self,
        item: Any,
        label: int,
        generator: torch.Generator,
        survey: Survey | None,
    ) -> tuple[int, Any]:
        """Return the class to make, and an item of that class as the template."""
        draw = torch.rand((), generator=generator, device="cpu").item()
        target = ABNORMAL if draw < self.share else NORMAL
        if target == label:
            return label, item
        real = self.templates[target]
        number = _draw_number(len(real), generator)
        shell = None if survey is None else survey.get(real.indices[number])
        return target, real.item(number) if shell is None else shell.template()


class _Plan(NamedTuple):
    """A video that may be replaced: if its draw is low enough, from this stream."""

    draw: float
    label: int
    generator: torch.Generator


class _Row(NamedTuple):
    """An item, or a template that stands for a pending one, and its videos' plans."""

    item: Any
    pending: Pending | None
    plans: list[_Plan]
    epoch: int


def _draw_number(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator, device="cpu").item())
