"""Evaluation protocols: which videos train, which test, and how a score is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .baseline import to_frames
from .data import ped2
from .features import read_features, read_list
from .metrics import average_precision, roc_auc
from .randomness import make_generator

Score = Callable[[NDArray[np.float32]], NDArray[Any]]


class LabelledVideo(NamedTuple):
    """A test video: name, features `(N, T, D)`, and a 0 or 1 for each frame `(F,)`."""

    name: str
    features: NDArray[np.float32]
    frame_labels: NDArray[np.uint8]


class FrameResult(NamedTuple):
    """Frame-level figures over all test videos.

    Attributes:
        auc: Area under the ROC curve.
        ap: Step-wise average precision.
    """

    auc: float
    ap: float


@dataclass(frozen=True)
class Split:
    """Training videos by class, and test videos with frame labels."""

    normal: Sequence[Path]
    abnormal: Sequence[Path]
    test: Sequence[LabelledVideo]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The frame labels of all test videos, concatenated."""
        return np.concatenate([video.frame_labels for video in self.test])

    def frame_scores(self, score: Score) -> NDArray[np.float64]:
        """Score all test videos' frames, concatenated.

        Args:
            score: Gives each snippet of a video `(N, T, D)` a score, `(T,)`.
        """
        parts = [
            to_frames(score(video.features), len(video.frame_labels))
            for video in self.test
        ]
        return np.concatenate(parts).astype(np.float64)

    def evaluate(self, score: Score) -> FrameResult:
        """Compute the frame-level figures of a score function."""
        labels, scores = self.labels, self.frame_scores(score)
        return FrameResult(
            roc_auc(labels, scores), average_precision(labels, scores).step
        )


def ped2_split(draw: int = 0) -> Split:
    """Draw 6 abnormal and 4 normal videos of UCSD Ped2 to train; the other 18 test.

    Args:
        draw: Number of the draw; the literature reports ten.

    Example:
        >>> split = ped2_split(0)
        >>> len(split.normal), len(split.abnormal), len(split.test)
        (4, 6, 18)
    """
    folder = ped2()
    generator = make_generator(draw)
    train: list[list[Path]] = []
    test: list[Path] = []
    for name, count in (("normal", 4), ("abnormal", 6)):
        videos = read_list(folder / f"{name}.list")
        order = torch.randperm(len(videos), generator=generator, device="cpu").tolist()
        train.append([videos[i] for i in sorted(order[:count])])
        test += [videos[i] for i in sorted(order[count:])]
    return Split(train[0], train[1], [_read_labelled(folder, path) for path in test])


def _read_labelled(folder: Path, path: Path) -> LabelledVideo:
    name = path.stem.removesuffix("_i3d")
    labels = np.load(folder / "frame_labels" / f"{name}.npy", allow_pickle=False)
    return LabelledVideo(name, read_features(path), labels)
