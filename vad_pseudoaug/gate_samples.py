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
        paired: Whether pseudo video i is made of real video i.
    """

    pseudo: Sequence[Clip]
    real: Sequence[Clip]
    other: Sequence[Clip]
    training: Sequence[Clip]
    training_other: Sequence[Clip]
    seed: int = 0
    paired: bool = False

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


def count_meant(clips: Sequence[Clip]) -> int:
    """Return the number of meant snippets of all clips."""
    return sum(int(clip.mask.sum()) for clip in clips)


def rows_of(clips: Sequence[Clip], chosen: NDArray[Any] | None = None) -> Sample:
    """Return the meant snippets of all clips, and the number of the clip of each.

    Args:
        clips: The videos.
        chosen: Numbers of the snippets to return, counted over all clips; None returns
            all.
    """
    counts = [int(clip.mask.sum()) for clip in clips]
    video = np.repeat(np.arange(len(clips)), counts)
    place = np.concatenate([np.flatnonzero(clip.mask) for clip in clips])
    if chosen is not None:
        video, place = video[chosen], place[chosen]
    rows = np.empty((len(video), clips[0].features.shape[1]), np.float32)
    for number in np.unique(video):
        own = video == number
        rows[own] = clips[number].features[place[own]]
    return Sample(rows, video)


class Draw:
    """Four samples that can be compared: pseudo, real, real again, and other.

    All are of as many videos and rows, the two real ones of different videos, so that
    the bias of a figure in small samples is the same in all. Rows are copied when they
    are asked for: many draws are held at once. Pseudo videos that are paired with real
    ones are taken with these: none is compared with its source, which is not in again.
    """

    def __init__(self, material: Material, repeat: int):
        self.rng = np.random.default_rng([material.seed, repeat])
        order = self._order(material.real)
        real = [material.real[i] for i in order]
        pseudo_order = order if material.paired else self._order(material.pseudo)
        pseudo = [material.pseudo[i] for i in pseudo_order]
        other = [material.other[i] for i in self._order(material.other)]
        count = min(len(real) // 2, len(pseudo), len(other))
        parts = {
            "pseudo": pseudo[:count],
            "real": real[:count],
            "again": real[count : 2 * count],
            "other": other[:count],
        }
        counts = [count_meant(clips) for clips in parts.values()]
        size = min(MAX_ROWS, *counts)
        self._parts = {
            name: (clips, self.rng.permutation(total)[:size])
            for (name, clips), total in zip(parts.items(), counts, strict=True)
        }

    @property
    def pseudo(self) -> Sample:
        """Snippets of pseudo videos."""
        return rows_of(*self._parts["pseudo"])

    @property
    def real(self) -> Sample:
        """Snippets of real videos of the class that these claim."""
        return rows_of(*self._parts["real"])

    @property
    def again(self) -> Sample:
        """Snippets of other real videos of that class."""
        return rows_of(*self._parts["again"])

    @property
    def other(self) -> Sample:
        """Snippets of real videos of the other class."""
        return rows_of(*self._parts["other"])

    def _order(self, clips: Sequence[Clip]) -> NDArray[np.int64]:
        """Shuffle the numbers of the clips that have meant snippets."""
        meant = np.flatnonzero([clip.mask.any() for clip in clips])
        shuffled: NDArray[np.int64] = self.rng.permutation(meant)
        return shuffled


def projection(material: Material) -> Callable[[Rows], NDArray[np.float64]]:
    """Return the map to the main axes of the real snippets of both classes."""
    pca = require("sklearn.decomposition", extra="eval").PCA
    rng = np.random.default_rng(material.seed)
    clips = [*material.real, *material.other]
    chosen = rng.permutation(count_meant(clips))[: 2 * MAX_ROWS]
    rows = rows_of(clips, chosen).rows
    size = min(COMPONENTS, len(rows) - 1, rows.shape[1])
    fitted = pca(size, svd_solver="randomized", random_state=0).fit(rows)

    def project(values: Rows) -> NDArray[np.float64]:
        projected: NDArray[np.float64] = fitted.transform(values).astype(np.float64)
        return projected

    return project


def one_a_video(sample: Sample, rng: np.random.Generator) -> Sample:
    """Return one random row of each video."""
    order = rng.permutation(len(sample.rows))
    first = np.unique(sample.video[order], return_index=True)[1]
    return sample.take(order[first])


def norms_of(rows: Rows) -> NDArray[np.float64]:
    """Return the L2 norm of each row."""
    norms: NDArray[np.float64] = np.linalg.norm(rows.astype(np.float64), axis=1)
    return norms
