"""The second way in: videos replaced in a batch, before the host collates it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from .contracts import Contract, Sources, View
from .deferred import Pending, Survey, fingerprint
from .items import with_members
from .mixing import Made, Mixing, PseudoVideoMaker
from .pool import Pool
from .randomness import make_generator
from .vae import ABNORMAL, NORMAL

MAX_WORKERS = 64


class Mixer:
    """A collate function that replaces videos before the host's own collates them.

    Epoch, switch and counters live in shared memory: they hold for worker processes.

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
        # Row 0: epoch, switch, batches before this epoch. Row 1 + w: videos seen and
        # replaced, and batches made, by worker w.
        self._shared = torch.zeros(
            (1 + MAX_WORKERS, 3), dtype=torch.int64, device="cpu"
        ).share_memory_()
        self._shared[0, 1] = int(mixing.enabled)
        self._batches = (0, 0)  # epoch, and batches that this process made in it

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; may be switched at any time."""
        return bool(self._shared[0, 1])

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._shared[0, 1] = int(value)

    def counts(self) -> tuple[int, int]:
        """Return how many videos were seen, and how many of them replaced."""
        seen, replaced, _ = self._shared[1:].sum(dim=0).tolist()
        return seen, replaced

    def next_epoch(self) -> None:
        """Count an iteration over the loader: it draws other pseudo videos."""
        self._shared[0, 2] = self._shared[1:, 2].sum()
        self._shared[0, 0] += 1
        waits = self.mixing.start_unit == "epochs" and self.mixing.start_after
        if self._pool is not None and self.enabled and self._shared[0, 0] > waits:
            self._pool.fill(int(self._shared[0, 0]))

    @property
    def defers(self) -> bool:
        """Whether items had better be loaded only once it is known which are kept."""
        return self._survey is not None and self._survey.useful and self.enabled

    def __call__(self, items: list[Any]) -> Any:
        """Replace videos, then collate as the host does."""
        if self.mixing.inert and not self.mixing.give_mask:
            return self.collate(items)
        return self.collate(self.mix(items))

    def mix(self, items: list[Any]) -> list[Any]:
        """Replace videos in the items of a batch."""
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, enabled, before = self._shared[0].tolist()
        own = self._batches[1] if self._batches[0] == epoch else 0
        self._batches = (epoch, own + 1)
        counter = self._shared[1 + number % MAX_WORKERS]
        counter[2] += 1
        # The first epoch is number 1. Worker w makes the batches w, w + W, w + 2 W ...
        step = before + own * workers + number
        epochs = max(epoch - 1, 0)  # 0 too where a framework rebuilt the loader
        passed = epochs if self.mixing.start_unit == "epochs" else step
        active = enabled and not self.mixing.inert
        rows = [self._row(item, epoch) for item in items]
        if active and passed >= self.mixing.start_after:
            limit = self.mixing.limit([plan.draw for row in rows for plan in row.plans])
        else:
            limit = -1.0
        mixed = []
        for row in rows:
            counter[0] += len(row.plans)
            chosen = [p for p in row.plans if p.draw < limit * self._rate(p.label)]
            counter[1] += len(chosen)
            item = row.item
            if row.pending is not None and len(chosen) < len(row.plans):
                item = row.pending.load()
            mixed.append(self._replace(item, chosen, epoch))
        return mixed

    def _rate(self, label: int) -> float:
        """Return what part of the videos of a class the recipe wants to be pseudo."""
        # Where the class is drawn, the share of each class is given.
        if self._retarget is not None:
            return 1.0
        return self._maker.sampler.recipe.rate(label)

    def _row(self, item: Any, epoch: int) -> _Row:
        """Plan what may happen to an item, which is loaded only if that needs it."""
        pending = None
        keys: Sequence[int] | None = None
        if isinstance(item, Pending):
            shell = None if self._survey is None else self._survey.get(item.index)
            if shell is None:
                item = item.load()
            else:
                pending, item, keys = item, shell.template(), shell.keys
        views = self._contract.views(item)
        if keys is None:
            keys = [fingerprint(item_format.get(item)) for _, item_format in views]
        plans = []
        for (label, _), key in zip(views, keys, strict=True):
            # The stream is a function of video and epoch, not of the place in a batch
            # or of the worker: the number of workers changes nothing.
            generator = make_generator(self.mixing.seed, label, epoch, key)
            draw = torch.rand((), generator=generator, device="cpu").item()
            plans.append(_Plan(draw, label, generator))
        return _Row(item, pending, plans)

    def _replace(self, item: Any, chosen: list[_Plan], epoch: int) -> Any:
        masks = {}
        for _, label, generator in chosen:
            if self._retarget is not None:
                label, item = self._retarget.choose(
                    item, label, generator, self._survey
                )
            item_format = dict(self._contract.views(item))[label]
            length = item_format.segments(item) if item_format.any_length else None
            made = self._make(label, length, generator, epoch)
            item = item_format.replace(item, made.features)
            masks[label] = made.mask
        if self.mixing.give_mask:
            item = _add_masks(item, self._contract.views(item), masks)
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


def _draw_number(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator, device="cpu").item())


def _add_masks(item: Any, views: Sequence[View], masks: dict[int, Tensor]) -> Any:
    """Add the masks to an item: `(T,)`, of a pair `(2, T)`, the normal video first."""
    values = []
    for label, item_format in sorted(views, key=lambda view: view.label):
        full = torch.zeros(item_format.segments(item), dtype=torch.bool, device="cpu")
        if label in masks:
            full[: len(masks[label])] = masks[label]
        values.append(full)
    mask = values[0] if len(values) == 1 else torch.stack(values)
    if isinstance(item, tuple | list):
        return (*item, mask)
    if hasattr(item, "keys"):
        return with_members(item, {"pseudo_mask": mask})
    return (item, mask)
