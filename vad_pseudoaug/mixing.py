"""What is inserted into a host's batches: written once for all adapters.

In both ways in, `wrap` and `attach`, a pseudo video takes the place of the features in
a real item of the class that it claims, so that everything else in the item is the
host's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from .contracts import Sources
from .items import ItemFormat
from .sampler import PseudoVideoSampler

PoolPlace: TypeAlias = "str | os.PathLike[str] | None"
POOL_BYTES = 2 * 2**30


class MixOptions(TypedDict, total=False):
    """The keywords of every `attach`; their meaning and defaults: `Mixing`."""

    p: float | Literal["auto"] | None
    ratio: float | None
    seed: int
    enabled: bool
    start_after: int
    start_unit: Literal["steps", "epochs"]
    give_mask: bool
    allow_single: bool
    pool: PoolPlace
    pool_bytes: int
    pool_dtype: Literal["float32", "float16"]
    refresh_every: int


@dataclass(frozen=True)
class Mixing:
    """How videos are replaced in a host's batches.

    Attributes:
        p: Probability with which each video of a class is replaced, times the recipe's
            rate of the class (`normal_rate`, `abnormal_rate`). The recipe `robust`
            makes no pseudo normal videos: p=0.5 replaces half of the abnormal videos
            and no normal one, which is a quarter of all where a batch has as many of
            each. The recipe `paper` replaces half of both. "auto", and what is meant
            where neither `p` nor `ratio` is given, tries it on the host's training
            videos alone and takes 0 where pseudo videos bring no clear gain or trying
            fails, see `auto.choose_p`; the attachment's `choice` tells why.
        ratio: Share of the videos of each batch that is replaced, rounded, in place
            of `p`, and likewise times the rate of the class; which ones is random.
        seed: Seed of which videos are replaced, of their sources, and of the pseudo
            videos. The number of workers has no influence. A video that comes several
            times in an epoch (sampling with replacement, an endless sampler) is drawn
            anew each time.
        enabled: Whether to start at once; `Attachment.enabled` switches later.
        start_after: Warm-up: nothing is replaced in the first batches or epochs.
        start_unit: What `start_after` counts: "steps" are batches that were taken of
            the loader, "epochs" iterations over it.
        give_mask: Add `pseudo_mask` to the items, bool `(T,)`: True where a segment
            was generated. Tuples and lists get one member more at the end,
            dictionaries and NamedTuples one named "pseudo_mask"; the host must expect
            it.
        allow_single: Allow a loader with batches of one video, which is refused
            otherwise because test loaders look so.
        pool: Where pseudo videos are kept that are made once, at the first iteration,
            and then read: "auto" is a temporary folder, which goes with the process; a
            path is a folder that stays, for the next run or for the other processes
            of this one. None makes new ones for each item. Items of any length get no
            pool.
        pool_bytes: What the pool may take on the disk. Two pseudo videos are made of
            each source if they fit, else one; those that do not fit are made whenever
            they are drawn, always the same.
        pool_dtype: "float32" keeps every bit; "float16" halves the pool and rounds.
        refresh_every: After so many epochs each pseudo video of the pool is replaced
            by a new one of its source, a part of them in each epoch; 0 never.
    """

    p: float | Literal["auto"] | None = None
    ratio: float | None = None
    seed: int = 0
    enabled: bool = True
    start_after: int = 0
    start_unit: Literal["steps", "epochs"] = "epochs"
    give_mask: bool = False
    allow_single: bool = False
    pool: PoolPlace = "auto"
    pool_bytes: int = POOL_BYTES
    pool_dtype: Literal["float32", "float16"] = "float32"
    refresh_every: int = 0

    def __post_init__(self) -> None:
        for name, value in (("p", self.p), ("ratio", self.ratio)):
            if value is None or (name == "p" and value == "auto"):
                continue
            if not isinstance(value, Real) or not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a value in [0, 1], got {value!r}")
            object.__setattr__(self, name, float(value))  # of numpy's, say
        if self.p is not None and self.ratio is not None:
            raise ValueError(
                f"p and ratio: expected one of them, got {self.p} and {self.ratio}"
            )
        if self.start_unit not in ("steps", "epochs"):
            raise ValueError(
                f"start_unit: expected 'steps' or 'epochs', got {self.start_unit!r}"
            )
        if self.start_after < 0 or self.seed < 0:
            raise ValueError(
                f"start_after and seed: expected values >= 0, got {self.start_after} "
                f"and {self.seed}"
            )
        if self.pool is not None and not isinstance(self.pool, str | os.PathLike):
            raise TypeError(
                f"pool: expected 'auto', a folder or None, got {self.pool!r}"
            )
        if self.pool_dtype not in ("float32", "float16"):
            raise ValueError(
                f"pool_dtype: expected 'float32' or 'float16', got {self.pool_dtype!r}"
            )
        if self.pool_bytes < 0 or self.refresh_every < 0:
            raise ValueError(
                "pool_bytes and refresh_every: expected values >= 0, got "
                f"{self.pool_bytes} and {self.refresh_every}"
            )

    @classmethod
    def split(cls, options: Mapping[str, Any]) -> tuple[Mixing, dict[str, Any]]:
        """Take the options that are meant here, and return the others beside."""
        known = {one.name for one in fields(cls)}
        own = {name: value for name, value in options.items() if name in known}
        return cls(**own), {k: v for k, v in options.items() if k not in known}

    @property
    def is_open(self) -> bool:
        """Whether p is yet to be chosen, see `auto.settle`."""
        return self.p == "auto" or (self.p is None and self.ratio is None)

    @property
    def amount(self) -> str:
        """How many are replaced, as texts tell it: "p=auto" is yet to be chosen."""
        if self.is_open:
            return "p=auto"
        return f"p={self.p:g}" if self.ratio is None else f"ratio={self.ratio:g}"

    @property
    def inert(self) -> bool:
        """Whether no video can ever be replaced."""
        return self.p == 0 or self.ratio == 0

    @property
    def fills(self) -> bool:
        """Whether a pool is of use."""
        return self.pool is not None and not self.inert

    def limit(self, draws: Sequence[float]) -> float:
        """Return below which draw, of one uniform draw a video, it is replaced."""
        if self.ratio is None:
            if not isinstance(self.p, int | float):
                raise ValueError("p is yet to be chosen: give a number")
            return self.p
        count = int(self.ratio * len(draws) + 0.5)
        return sorted(draws)[count] if count < len(draws) else 1.0


class Made(NamedTuple):
    """A pseudo video in the host's feature space: `(N, T, D)`, and its mask `(T,)`."""

    features: Tensor
    mask: Tensor


class PseudoVideoMaker:
    """Makes pseudo videos of a host's real ones.

    Args:
        sampler: Moved to the CPU in a copy where it is elsewhere: datasets and
            collate functions run in worker processes, which share no GPU.
        sources: For each class made, the real videos of the other class.
    """

    def __init__(self, sampler: PseudoVideoSampler, sources: Mapping[int, Sources]):
        self.sampler = sampler.worker_copy()
        self.sources = sources

    def make(
        self, label: int, number: int, generator: torch.Generator, *, length: int | None
    ) -> Made:
        """Make a pseudo video of class `label` of source `number`.

        Args:
            label: 0 normal or 1 abnormal.
            number: Number of the source.
            generator: Where mask and noise come from.
            length: Number of segments that the source is interpolated to first; None
                keeps its own.
        """
        features, item_format = self.read(label, number, length=length)
        return self.translate(features, item_format, label, generator)

    def read(
        self, label: int, number: int, *, length: int | None = None
    ) -> tuple[Tensor, ItemFormat]:
        """Read a source, `(N, T, D)` with all its channels; see `make`."""
        features, item_format = self.sources[label].read(number)
        if length is not None and features.shape[1] != length:
            features = functional.interpolate(
                features.transpose(1, 2), size=length, mode="linear", align_corners=True
            ).transpose(1, 2)
        return features, item_format

    def translate(
        self,
        features: Tensor,
        item_format: ItemFormat,
        label: int,
        generator: torch.Generator,
    ) -> Made:
        """Make a pseudo video of a source that was read; see `translate_video`."""
        return translate_video(self.sampler, features, item_format, label, generator)


def translate_video(
    sampler: PseudoVideoSampler,
    features: Tensor,
    item_format: ItemFormat,
    label: int,
    generator: torch.Generator,
) -> Made:
    """Make a pseudo video of a host's features, `(N, T, D)` with all its channels."""
    source = features[..., item_format.generated]
    pseudo = sampler.sample(source, label=label, generator=generator)
    # Hosts take an all-zero segment for padding: where one comes out, the source stays.
    alive = pseudo.features.any(dim=-1).any(dim=0)  # (T,)
    kept = torch.where(alive[None, :, None], pseudo.features, source)
    mask = pseudo.pseudo_mask & alive
    return Made(item_format.write(features, kept), mask)
