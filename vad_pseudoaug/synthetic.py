"""A synthetic set with known truth: sparse anomalies in long videos, as UCF-Crime's.

A fifth of the snippets of an abnormal video are anomalous, in one run or, now and then,
two; what an anomaly looks like depends on its kind, and each video has a scene of its
own, by which a classifier can tell training videos apart without knowing anomalies.
The features are non-negative. Every number is a function of the seed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .baseline import SNIPPET_FRAMES
from .protocol import LabelledVideo, Split
from .selection import Selection

FEATURE_DIM = 128
NUM_TRAIN, NUM_TEST = 60, 30  # of each class
MIN_LENGTH, MAX_LENGTH = 20, 160  # snippets of a video
DENSITY = 0.2  # mean share of an abnormal video's snippets
TWO_RUNS = 0.12  # share of abnormal videos with a second run
NUM_KINDS = 6  # of anomalies
SCENE_DIM = 32  # of the space in which scenes differ and videos move
CORRELATION = 0.8  # of a snippet and the next one
STRENGTH = 4.4  # of an anomaly; chosen so that a good host does not reach the ceiling


class SyntheticSet(NamedTuple):
    """A split, and the truth of its abnormal training videos.

    Attributes:
        split: Training videos, and test videos with frame labels.
        truth: For each abnormal training video `(T,)` bool, which snippets are
            anomalous: what no real training set tells.
    """

    split: Split
    truth: list[NDArray[np.bool_]]

    def purity(self, selection: Selection) -> float:
        """Return which share of the selected snippets is anomalous."""
        hits = sum(
            int((mask & own).sum())
            for mask, own in zip(selection.masks, self.truth, strict=True)
        )
        return hits / selection.num_selected


def synthetic_set(seed: int = 0) -> SyntheticSet:
    """Make the set of a seed: other videos of the same world.

    Example:
        >>> made = synthetic_set(0)
        >>> made.split.counts
        (60, 60, 30, 30)
        >>> bool(0.15 < np.mean([own.mean() for own in made.truth]) < 0.3)
        True
    """
    world = _World()
    rng = np.random.default_rng([seed, 1])
    normal = [world.video(rng, abnormal=False)[0] for _ in range(NUM_TRAIN)]
    abnormal = [world.video(rng, abnormal=True) for _ in range(NUM_TRAIN)]
    test = []
    for number in range(2 * NUM_TEST):
        is_abnormal = number >= NUM_TEST
        features, truth = world.video(rng, abnormal=is_abnormal)
        name = f"{'abnormal' if is_abnormal else 'normal'}_{number % NUM_TEST:02d}"
        frames = np.repeat(truth, SNIPPET_FRAMES).astype(np.uint8)
        test.append(LabelledVideo(name, features, frames))
    split = Split(normal, [features for features, _ in abnormal], test)
    return SyntheticSet(split, [truth for _, truth in abnormal])


class _World:
    """What all seeds share: the directions of scenes and of anomalies."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.basis = rng.normal(size=(SCENE_DIM, FEATURE_DIM)) / SCENE_DIM**0.5
        kinds = _unit(rng.normal(size=(NUM_KINDS, FEATURE_DIM)))
        common = _unit(rng.normal(size=(1, FEATURE_DIM)))
        self.kinds = 0.6 * common + 0.8 * kinds
        self.mean = 0.5 * np.abs(rng.normal(size=FEATURE_DIM))

    def video(
        self, rng: np.random.Generator, *, abnormal: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Make a video `(1, T, D)` and its truth `(T,)`."""
        low, high = np.log(MIN_LENGTH), np.log(MAX_LENGTH)
        length = int(np.exp(rng.uniform(low, high)))
        scene = rng.normal(size=SCENE_DIM) @ self.basis
        motion = _autoregressive(rng, length) @ self.basis
        features = scene + 0.6 * motion + 0.15 * rng.normal(size=(length, FEATURE_DIM))
        truth = np.zeros(length, dtype=bool)
        if abnormal:
            truth = _runs(rng, length)
            kind = self.kinds[rng.integers(NUM_KINDS)]
            strength = STRENGTH * (1 + 0.3 * rng.normal())
            features = features + truth[:, None] * strength * kind
        # A soft rectifier: non-negative, as the features of I3D are.
        soft = np.log1p(np.exp(2 * (features + self.mean))) / 2
        return np.maximum(soft - 0.2, 0)[None].astype(np.float32), truth


def _runs(rng: np.random.Generator, length: int) -> NDArray[np.bool_]:
    """Draw where a video is anomalous: a beta-distributed share, in one or two runs."""
    share = float(np.clip(rng.beta(1.2, 1.2 * (1 / DENSITY - 1)), 1 / length, 0.9))
    count = max(1, round(share * length))
    num_runs = 2 if rng.uniform() < TWO_RUNS and count > 1 else 1
    truth = np.zeros(length, dtype=bool)
    for part in np.array_split(np.arange(count), num_runs):
        start = int(rng.integers(length - len(part) + 1))
        truth[start : start + len(part)] = True
    return truth


def _autoregressive(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    steps = rng.normal(size=(length, SCENE_DIM))
    for time in range(1, length):
        fresh = (1 - CORRELATION**2) ** 0.5 * steps[time]
        steps[time] = CORRELATION * steps[time - 1] + fresh
    return steps


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    scaled: NDArray[Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled
