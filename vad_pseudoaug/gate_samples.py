"""What the quality gates compare: snippets of videos, drawn video by video.

Snippets of one video resemble each other, so whole videos are drawn and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .extras import require

Rows = NDArray[np.float32]
COMPONENTS = 32
MAX_ROWS = 2000  # of each side of a comparison
MIN_VIDEOS = 4  # of each kind: halves of two videos


class Clip(NamedTuple):
    """A video `(T, D)` and which of its snippets are meant, bool `(T,)`."""

    features: Rows
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Material:
    """What pseudo videos of one class are judged by.

    Attributes:
        pseudo: Pseudo videos, of held-out sources; meant are generated snippets.
        real: Held-out real videos of the class that they claim; meant are its snippets
            (of abnormal videos the selected ones).
        other: Held-out real videos of the other class, likewise.
        training: Real videos of the claimed class that the model was fitted on.
        training_other: Those of the other class.
        seed: Seed of the draws.
    """

    pseudo: Sequence[Clip]
    real: Sequence[Clip]
    other: Sequence[Clip]
    training: Sequence[Clip]
    training_other: Sequence[Clip]
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("pseudo", "real", "other"), MIN_VIDEOS)
        for name, few in {**least, "training": 1, "training_other": 1}.items():
            count = sum(bool(clip.mask.any()) for clip in getattr(self, name))
            if count < few:
                raise ValueError(
                    f"{name} videos: expected at least {few} with snippets of their "
                    f"class, got {count}; hold out more videos, or select more snippets"
                )


def meant_rows(clips: Sequence[Clip]) -> Rows:
    """Return the meant snippets of all clips, `(M, D)`."""
    return rows_of(clips).rows


class Sample(NamedTuple):
    """Rows `(M, D)` and the number of the video of each `(M,)`."""

    rows: Rows
    video: NDArray[np.int64]

    def take(self, chosen: NDArray[Any]) -> Sample:
        """Return some of the rows."""
        return Sample(self.rows[chosen], self.video[chosen])


def rows_of(clips: Sequence[Clip]) -> Sample:
    """Return the meant snippets of all clips, and the number of the clip of each."""
    counts = [int(clip.mask.sum()) for clip in clips]
    rows = np.concatenate([clip.features[clip.mask] for clip in clips])
    return Sample(rows.astype(np.float32), np.repeat(np.arange(len(clips)), counts))


class Draw:
    """Four samples that can be compared: pseudo, real, real again, and other.

    All are of as many videos and rows, the two real ones of different videos, so that
    the bias of a figure in small samples is the same in all.
    """

    def __init__(self, material: Material, repeat: int):
        self.rng = np.random.default_rng([material.seed, repeat])
        real = self._shuffled(material.real)
        pseudo, other = (self._shuffled(c) for c in (material.pseudo, material.other))
        count = min(len(real) // 2, len(pseudo), len(other))
        samples = [
            rows_of(clips)
            for clips in (
                pseudo[:count],
                real[:count],
                real[count : 2 * count],
                other[:count],
            )
        ]
        size = min(MAX_ROWS, *(len(sample.rows) for sample in samples))
        self.pseudo, self.real, self.again, self.other = (
            sample.take(self.rng.permutation(len(sample.rows))[:size])
            for sample in samples
        )

    def _shuffled(self, clips: Sequence[Clip]) -> list[Clip]:
        meant = [clip for clip in clips if clip.mask.any()]
        return [meant[i] for i in self.rng.permutation(len(meant))]


def projection(material: Material) -> Callable[[Rows], NDArray[np.float64]]:
    """Return the map to the main axes of the real snippets of both classes."""
    pca = require("sklearn.decomposition", extra="eval").PCA
    rng = np.random.default_rng(material.seed)
    rows = np.concatenate([meant_rows(c) for c in (material.real, material.other)])
    rows = rows[rng.permutation(len(rows))[: 2 * MAX_ROWS]]
    size = min(COMPONENTS, len(rows) - 1, rows.shape[1])
    fitted = pca(size, svd_solver="randomized", random_state=0).fit(rows)

    def project(values: Rows) -> NDArray[np.float64]:
        projected: NDArray[np.float64] = fitted.transform(values).astype(np.float64)
        return projected

    return project


def by_video(values: NDArray[Any], video: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean of the values of each video."""
    numbers = np.unique(video, return_inverse=True)[1]
    means: NDArray[np.float64] = np.bincount(numbers, values) / np.bincount(numbers)
    return means


def one_a_video(sample: Sample, rng: np.random.Generator) -> Sample:
    """Return one random row of each video."""
    order = rng.permutation(len(sample.rows))
    first = np.unique(sample.video[order], return_index=True)[1]
    return sample.take(order[first])


def norms_of(rows: Rows) -> NDArray[np.float64]:
    """Return the L2 norm of each row."""
    norms: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1)
    return norms
