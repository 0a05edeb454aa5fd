"""Intervals of paired differences: what of a gain is more than chance.

Two things are random in an experiment: the seed (initial weights, order of the data,
draw of the training videos) and the test videos. Frames of one video are not
independent, so whole videos are resampled, never frames.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as student

from .metrics import Ranking

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    differences: ArrayLike, *, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean of paired differences with a 95 % percentile interval over the pairs.

    Args:
        differences: `(R,)`, one for each pair of runs, R >= 2.
        num_resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.

    Raises:
        ValueError: If there are fewer than two differences.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"differences: expected two or more, got shape {values.shape}")
    draws = np.random.default_rng(seed).integers(
        len(values), size=(num_resamples, len(values))
    )
    low, high = np.quantile(values[draws].mean(axis=1), _tails())
    return Interval(float(values.mean()), float(low), float(high))


class Resampled(NamedTuple):
    """A figure of one arm, in every run, and as it would be on other test videos.

    Attributes:
        values: `(R,)`, one a run.
        by_video: `(R, B)`, in B resamples of the test videos, the same ones in every
            arm; NaN where a resample has frames of one class alone.
        num_videos: Number of different test videos in all runs.
    """

    values: NDArray[np.float64]
    by_video: NDArray[np.float64]
    num_videos: int


def resample(
    runs: Sequence[tuple[Sequence[str], Ranking]],
    *,
    figure: str = "auc",
    num_resamples: int = 1000,
    seed: int = 0,
) -> Resampled:
    """Compute a figure of an arm on resamples of the test videos.

    Args:
        runs: For each run the names of its test videos and their ranking.
        figure: "auc" or "average_precision".
        num_resamples: Number of resamples B.
        seed: Seed of the resamples; two arms that are compared need the same one.
    """
    names = sorted({name for videos, _ in runs for name in videos})
    number = {name: i for i, name in enumerate(names)}
    weights = _counts(len(names), num_resamples, seed)  # (B, V)
    values, resampled = [], []
    for videos, ranking in runs:
        own = weights[:, [number[name] for name in videos]]
        compute = getattr(ranking, figure)
        values.append(compute())
        # In parts: a part's arrays stay in the processor's cache.
        resampled.append(np.concatenate([compute(w) for w in np.array_split(own, 20)]))
    return Resampled(np.array(values), np.stack(resampled), len(names))


def hierarchical_bootstrap(
    ours: Resampled, theirs: Resampled, *, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """Mean paired difference, with a 95 % interval over runs and test videos.

    Runs and test videos are crossed: every run is judged on the same videos. Each of
    the two is resampled by itself, videos as a whole and in both arms alike, and the
    two variances are added; resampling both at once would count their interaction
    three times. The interval is Student's, its degrees of freedom by Satterthwaite's
    rule, since ten runs are few.

    Args:
        ours: The arm in question.
        theirs: The arm that it is compared with: the same runs, videos and resamples.
        num_resamples: Number of resamples of the runs.
        seed: Seed of the resamples of the runs.

    Raises:
        ValueError: If there are fewer than two runs or test videos, or the two do not
            belong together.
    """
    if len(ours.values) < 2 or ours.by_video.shape != theirs.by_video.shape:
        raise ValueError(
            "expected two or more runs, the same in both arms, got "
            f"{len(ours.values)} and {len(theirs.values)}"
        )
    if ours.num_videos < 2:
        raise ValueError(f"expected two or more test videos, got {ours.num_videos}")
    differences = ours.values - theirs.values  # (R,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        # A run whose resampled videos miss a class has no figure there: left out.
        by_video = np.nanmean(ours.by_video - theirs.by_video, axis=0)  # (B,)
    by_video = by_video[np.isfinite(by_video)]
    if len(by_video) < 2:
        raise ValueError("no resample of the test videos has frames of both classes")
    num_runs = len(differences)
    by_run = _counts(num_runs, num_resamples, seed) @ differences / num_runs
    parts = [
        (float(values.var(ddof=1)) * count / (count - 1), count - 1)
        for values, count in ((by_run, num_runs), (by_video, ours.num_videos))
    ]
    mean, variance = float(differences.mean()), sum(part for part, _ in parts)
    if not variance:
        return Interval(mean, mean, mean)
    freedom = variance**2 / sum(part**2 / few for part, few in parts)
    half = float(student.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    return Interval(mean, mean - half, mean + half)


def _counts(count: int, num_resamples: int, seed: int) -> NDArray[np.float64]:
    """Draw how often each of `count` things is in each resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), num_resamples).astype(
        np.float64
    )


def _tails() -> tuple[float, float]:
    return (1 - LEVEL) / 2, (1 + LEVEL) / 2
