"""What is inserted into a host's batches: written once for all adapters.

In both ways in, `wrap` and `attach`, a pseudo video takes the place of the features in
a real item of the class that it claims, so that everything else in the item is the
host's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from .contracts import Sources
from .items import ItemFormat
from .sampler import PseudoVideoSampler


class MixOptions(TypedDict, total=False):
    """The keywords of every `attach`; their meaning and defaults: `Mixing`."""

    p: float | None
    ratio: float | None
    seed: int
    enabled: bool
    start_after: int
    start_unit: Literal["steps", "epochs"]
    give_mask: bool
    allow_single: bool


@dataclass(frozen=True)
class Mixing:
    """How videos are replaced in a host's batches.

    Attributes:
        p: Probability with which each video is replaced; 0.5 if neither `p` nor
            `ratio` is given.
        ratio: Share of the videos of each batch that is replaced, rounded, in place
            of `p`; which ones is random.
        seed: Seed of which videos are replaced, of their sources, and of the pseudo
            videos. The number of workers has no influence.
        enabled: Whether to start at once; `Attachment.enabled` switches later.
        start_after: Warm-up: nothing is replaced in the first batches or epochs.
        start_unit: What `start_after` counts: "steps" are batches of the loader,
            "epochs" calls of `iter(loader)`.
        give_mask: Add `pseudo_mask` to the items, bool `(T,)`: True where a segment
            was generated. Tuples get one member more at the end, dictionaries the key
            "pseudo_mask"; the host must expect it.
        allow_single: Allow a loader with batches of one video, which is refused
            otherwise because test loaders look so.
    """

    p: float | None = None
    ratio: float | None = None
    seed: int = 0
    enabled: bool = True
    start_after: int = 0
    start_unit: Literal["steps", "epochs"] = "epochs"
    give_mask: bool = False
    allow_single: bool = False

    def __post_init__(self) -> None:
        for name, value in (("p", self.p), ("ratio", self.ratio)):
            is_number = isinstance(value, int | float)
            if value is not None and not (is_number and 0 <= value <= 1):
                raise ValueError(f"{name}: expected a value in [0, 1], got {value!r}")
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

    @classmethod
    def split(cls, options: Mapping[str, Any]) -> tuple[Mixing, dict[str, Any]]:
        """Take the options that are meant here, and return the others beside."""
        known = {one.name for one in fields(cls)}
        own = {name: value for name, value in options.items() if name in known}
        return cls(**own), {k: v for k, v in options.items() if k not in known}

    @property
    def inert(self) -> bool:
        """Whether no video can ever be replaced."""
        return self.p == 0 or self.ratio == 0

    def limit(self, draws: Sequence[float]) -> float:
        """Return below which draw, of one uniform draw a video, it is replaced."""
        if self.ratio is None:
            return 0.5 if self.p is None else self.p
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
        features, item_format = self.sources[label].read(number)
        if length is not None and features.shape[1] != length:
            features = functional.interpolate(
                features.transpose(1, 2), size=length, mode="linear", align_corners=True
            ).transpose(1, 2)
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
