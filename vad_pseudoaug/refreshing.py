"""A round of refinement: select by a host's scores, train on, and look if it helped."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .fitting import GivenScores, measure_fit, select_snippets
from .randomness import make_generator
from .selection import Selection
from .training import train_vae
from .vae import ABNORMAL, NORMAL
from .videos import VideoSet

if TYPE_CHECKING:
    from .sampler import PseudoVideoSampler

MAX_VIDEOS = 64  # of a class, to judge by
SLACK = 0.1  # of `Quality.off`, and the part of the contrast that may be lost


class Quality(NamedTuple):
    """How generated snippets of a class compare with real ones, first crops only.

    Attributes:
        spread: Of the generated ones over that of the real ones (the root of the total
            variance).
        norm: Mean L2 norm of the generated ones over that of the real ones.
        distance: Between their means, in spreads of the real ones.
        contrast: From the mean of real ones of the other class to that of the
            generated ones, on the way to the real ones of their own class, in spreads
            of the other class.
    """

    spread: float
    norm: float
    distance: float
    contrast: float

    @property
    def off(self) -> float:
        """How far they are from real ones in all; 0 is best."""
        ratios = (max(self.spread, 1e-12), max(self.norm, 1e-12))
        return sum(abs(math.log(ratio)) for ratio in ratios) + self.distance


class Refreshed(NamedTuple):
    """What a round brought.

    Attributes:
        accepted: Whether the sampler has the new model.
        before: For each class that is made, the figures of the old model.
        after: The same of the new one. Both are compared with what is selected now.
        selection: What was selected, see `Selection.to_dict`.
    """

    accepted: bool
    before: Mapping[int, Quality]
    after: Mapping[int, Quality]
    selection: Mapping[str, Any]


def refresh(
    sampler: PseudoVideoSampler,
    scores: GivenScores,
    *,
    epochs: int,
    guard: bool,
    progress: bool | None,
) -> Refreshed:
    """Do a round; arguments and errors as in `PseudoVideoSampler.refresh`."""
    normal, abnormal = sampler.sources(ABNORMAL), sampler.sources(NORMAL)
    recipe = sampler.recipe
    options: dict[str, Any] = {
        "seed": sampler.seed,
        "device": sampler.device,
        "progress": progress,
    }
    # A host's scores are on any scale: ranks within a video are not.
    ranked = replace(recipe, selection="ranked")
    selected = select_snippets(normal, abnormal, ranked, scores=scores, **options)
    vae = copy.deepcopy(sampler.vae)
    history = train_vae(
        vae,
        normal,
        abnormal,
        selected.selection,
        replace(recipe, epochs=epochs, kl_warmup=0.0),
        seed=sampler.seed + len(sampler.history),  # no round repeats another's draws
        split_seed=sampler.seed,  # what has trained is not held out
        progress=progress,
    )
    fitted = measure_fit(vae, normal, abnormal, recipe, selected, history, **options)
    renewed = sampler.renewed(fitted, progress=progress)
    before = judge(sampler, selected.selection)
    after = judge(renewed, selected.selection)
    accepted = not (guard and is_worse(before, after))
    if accepted:
        # The sampler's own generator goes on: what it draws next is not a repetition.
        sampler.__dict__.update({**renewed.__dict__, "generator": sampler.generator})
    return Refreshed(accepted, before, after, selected.selection.to_dict())


def is_worse(before: Mapping[int, Quality], after: Mapping[int, Quality]) -> bool:
    """Tell whether pseudo videos got clearly worse.

    They did, if those of all classes together are farther from real ones, or those of
    some class nearer to the other one: a selection at random is easy to resemble.
    """
    old_off, new_off = (
        sum(quality.off for quality in of.values()) for of in (before, after)
    )
    kept = all(
        after[label].contrast >= old.contrast - SLACK * abs(old.contrast)
        for label, old in before.items()
    )
    return not (kept and new_off <= old_off + SLACK)


@torch.no_grad()
def judge(sampler: PseudoVideoSampler, selection: Selection) -> dict[int, Quality]:
    """Compare generated with real snippets, for each class that the recipe makes."""
    normal, abnormal = sampler.sources(ABNORMAL), sampler.sources(NORMAL)
    real = (
        _Moments.of(normal.tensor(i)[0] for i in _numbers(normal)),
        _Moments.of(
            abnormal.tensor(i)[0, torch.from_numpy(selection.masks[i])]
            for i in range(len(abnormal))
        ),
    )
    found = {}
    for label in (NORMAL, ABNORMAL):
        if not sampler.recipe.rate(label):
            continue
        made = _Moments.of(_made(sampler, label))
        own, other = real[label], real[1 - label]
        found[label] = Quality(
            made.spread / own.spread,
            made.norm / max(own.norm, 1e-12),
            _distance(made, own),
            _contrast(made, own, other),
        )
    return found


class _Moments(NamedTuple):
    """Mean `(D,)`, spread and mean norm of snippets."""

    mean: Tensor
    spread: float
    norm: float

    @classmethod
    def of(cls, parts: Iterable[Tensor]) -> _Moments:
        count, squares, norms = 0, 0.0, 0.0
        total = torch.zeros((), dtype=torch.float64, device="cpu")
        for part in parts:  # one at a time: bounds memory on sets of long videos
            rows = part.double()  # (M, D)
            count += len(rows)
            total = total + rows.sum(dim=0)
            squares += rows.square().sum().item()
            norms += rows.norm(dim=1).sum().item()
        mean = total / count
        variance = squares / count - mean.square().sum().item()
        return cls(mean, max(variance, 1e-12) ** 0.5, norms / count)


def _distance(made: _Moments, real: _Moments) -> float:
    gap = (made.mean - real.mean).norm().item()
    return float(gap / real.spread)


def _contrast(made: _Moments, own: _Moments, other: _Moments) -> float:
    way = own.mean - other.mean
    gone = (made.mean - other.mean) @ way / way.norm().clamp(min=1e-12)
    return float(gone.item() / other.spread)


def _made(sampler: PseudoVideoSampler, label: int) -> Iterable[Tensor]:
    sources = sampler.sources(label)
    for number in _numbers(sources):
        pseudo = sampler.sample(
            sources.tensor(number),
            label=label,
            generator=make_generator(sampler.seed, 9, label, number),
        )
        yield pseudo.features[0, pseudo.pseudo_mask]


def _numbers(videos: VideoSet) -> range:
    return range(min(len(videos), MAX_VIDEOS))
