"""The second way in: videos replaced in a batch, before the host collates it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from .contracts import Contract, Sources, View
from .items import to_numpy, with_members
from .mixing import Mixing, PseudoVideoMaker
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
        retarget: Chooses the class that is made in place of an item; None keeps it.
    """

    def __init__(
        self,
        collate: Callable[[list[Any]], Any],
        contract: Contract,
        maker: PseudoVideoMaker,
        mixing: Mixing,
        *,
        retarget: TargetShare | None = None,
    ):
        self.collate = collate
        self.mixing = mixing
        self._contract = contract
        self._maker = maker
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
        plans = [self._plans(item, epoch) for item in items]
        if active and passed >= self.mixing.start_after:
            limit = self.mixing.limit([plan.draw for row in plans for plan in row])
        else:
            limit = -1.0
        mixed = []
        for item, row in zip(items, plans, strict=True):
            counter[0] += len(row)
            chosen = [plan for plan in row if plan.draw < limit]
            counter[1] += len(chosen)
            mixed.append(self._replace(item, chosen))
        return mixed

    def _plans(self, item: Any, epoch: int) -> list[_Plan]:
        plans = []
        for label, item_format in self._contract.views(item):
            # The stream is a function of video and epoch, not of the place in a batch
            # or of the worker: the number of workers changes nothing.
            key = fingerprint(item_format.get(item))
            generator = make_generator(self.mixing.seed, label, epoch, key)
            draw = torch.rand((), generator=generator, device="cpu").item()
            plans.append(_Plan(draw, label, generator))
        return plans

    def _replace(self, item: Any, chosen: list[_Plan]) -> Any:
        masks = {}
        for _, label, generator in chosen:
            if self._retarget is not None:
                label, item = self._retarget.choose(item, label, generator)
            item_format = dict(self._contract.views(item))[label]
            number = _draw_number(len(self._maker.sources[label]), generator)
            made = self._maker.make(
                label,
                number,
                generator,
                length=item_format.segments(item) if item_format.any_length else None,
            )
            item = item_format.replace(item, made.features)
            masks[label] = made.mask
        if self.mixing.give_mask:
            item = _add_masks(item, self._contract.views(item), masks)
        return item


class TargetShare(NamedTuple):
    """Draws the class of each pseudo video, for hosts whose loader mixes the classes.

    Attributes:
        share: Share of abnormal videos among the pseudo videos.
        templates: For each class, real items that can be the template.
    """

    share: float
    templates: Mapping[int, Sources]

    def choose(
        self, item: Any, label: int, generator: torch.Generator
    ) -> tuple[int, Any]:
        """Return the class to make, and an item of that class as the template."""
        draw = torch.rand((), generator=generator, device="cpu").item()
        target = ABNORMAL if draw < self.share else NORMAL
        if target == label:
            return label, item
        number = _draw_number(len(self.templates[target]), generator)
        return target, self.templates[target].item(number)


class _Plan(NamedTuple):
    """A video that may be replaced: if its draw is low enough, from this stream."""

    draw: float
    label: int
    generator: torch.Generator


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


def fingerprint(features: Any) -> int:
    """Tell videos apart by a few rows of their features."""
    array = to_numpy(features)
    rows = array.reshape(-1, array.shape[-1])
    few = rows[[0, len(rows) // 3, len(rows) // 2, len(rows) - 1]]
    return zlib.crc32(np.ascontiguousarray(few).tobytes())
