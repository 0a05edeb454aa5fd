"""Evaluation protocols: which videos train, which test, and how a score is judged."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .baseline import SNIPPET_FRAMES, Score, to_frames
from .data import ped2
from .features import Layout, read_features, read_list
from .ground_truth import FrameLabels, read_archive, read_ground_truth
from .items import to_numpy
from .metrics import FrameFigures, frame_figures
from .randomness import make_generator
from .videos import (
    IDENTITY_SNIPPETS,
    VideoSet,
    as_pair,
    digest_snippets,
    spread_out,
)

# Normal and abnormal videos to train, normal and abnormal videos to test: the paper's
# tables 1 and 2.
PUBLISHED_COUNTS = {
    "shanghaitech": (175, 63, 155, 44),
    "ucf-crime": (800, 810, 150, 140),
}


class LabelledVideo(NamedTuple):
    """A test video: name, features `(N, T, D)`, and a 0 or 1 for each frame `(F,)`."""

    name: str
    features: NDArray[np.float32]
    frame_labels: FrameLabels


@dataclass(frozen=True)
class Split:
    """Training videos by class, and test videos with frame labels."""

    normal: Sequence[Any]
    abnormal: Sequence[Any]
    test: Sequence[LabelledVideo]

    @property
    def labels(self) -> list[FrameLabels]:
        """The frame labels of each test video."""
        return [video.frame_labels for video in self.test]

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Normal and abnormal training videos, normal and abnormal test videos."""
        abnormal = sum(bool(labels.any()) for labels in self.labels)
        normal = len(self.test) - abnormal
        return len(self.normal), len(self.abnormal), normal, abnormal

    def digest(self) -> str:
        """Tell splits apart by their labels and by some snippets of each video."""
        digest = sha256()
        for videos in as_pair(self.normal, self.abnormal):
            digest.update(f"{len(videos)} {videos.name}".encode())
            for own in videos.digests():
                digest.update(own)
        for _, features, labels in self.test:
            length = features.shape[1]
            some = features[:, spread_out(length, IDENTITY_SNIPPETS)]
            digest.update(digest_snippets(some, length))
            digest.update(np.asarray(labels, dtype=np.uint8).tobytes())
        return digest.hexdigest()[:16]

    def check_counts(self, name: str) -> None:
        """Make sure that the split is a published one, by its counts.

        Raises:
            ValueError: If a count differs, or no split of this name is published.
        """
        expected = PUBLISHED_COUNTS.get(name)
        if expected is None:
            known = ", ".join(PUBLISHED_COUNTS)
            raise ValueError(f"unknown split {name!r}; there is {known}")
        if self.counts != expected:
            raise ValueError(
                f"{name}: expected {expected} normal and abnormal videos to train and "
                f"to test, got {self.counts}"
            )

    def snippet_scores(self, score: Score) -> list[NDArray[np.float32]]:
        """Score the snippets of each test video.

        Args:
            score: Gives each snippet of a video `(N, T, D)` a score, `(T,)`.

        Raises:
            ValueError: If it gives another number of scores, or one is not finite.
        """
        found = []
        for video in self.test:
            scores = np.asarray(to_numpy(score(video.features)), dtype=np.float32)
            if scores.shape != video.features.shape[1:2]:
                raise ValueError(
                    f"{video.name}: expected one score a snippet, "
                    f"{video.features.shape[1]}, got shape {scores.shape}"
                )
            if not np.isfinite(scores).all():
                raise ValueError(f"{video.name}: a score is NaN or infinite")
            found.append(scores)
        return found

    def frame_scores(self, score: Score) -> list[NDArray[np.float32]]:
        """Score the frames of each test video, each by its snippet's score."""
        return self.to_frames(self.snippet_scores(score))

    def to_frames(
        self, scores: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Give each frame of each test video the score of its snippet."""
        return [
            to_frames(own, len(video.frame_labels))
            for own, video in zip(scores, self.test, strict=True)
        ]

    def evaluate(self, score: Score) -> FrameFigures:
        """Compute the frame-level figures of a score function."""
        return frame_figures(self.labels, self.frame_scores(score))

    def standardised(self) -> Split:
        """Return the split with each feature at mean 0 and spread 1 in training.

        For features of unlike units, as statistics of tracks. Mean and spread are
        those of all training snippets; all videos are held in memory.
        """
        normal, abnormal = as_pair(self.normal, self.abnormal)
        rows = np.concatenate(
            [v.reshape(-1, v.shape[-1]) for v in (*normal, *abnormal)], dtype=np.float64
        )
        mean, spread = rows.mean(axis=0), rows.std(axis=0)
        spread[spread == 0] = 1

        def scale(features: NDArray[np.float32]) -> NDArray[np.float32]:
            scaled: NDArray[np.float32] = ((features - mean) / spread).astype(
                np.float32
            )
            return scaled

        return Split(
            [scale(video) for video in normal],
            [scale(video) for video in abnormal],
            [video._replace(features=scale(video.features)) for video in self.test],
        )


def ped2_split(draw: int = 0) -> Split:
    """Draw 6 abnormal and 4 normal videos of UCSD Ped2 to train; the other 18 test.

    Args:
        draw: Number of the draw; the literature reports ten.

    Example:
        >>> ped2_split(0).counts
        (4, 6, 12, 6)
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
    return Split(train[0], train[1], label_videos(test, folder / "frame_labels"))


@dataclass(frozen=True)
class Data:
    """Where the videos of an experiment are: what a configuration file can say.

    Attributes:
        kind: "ped2", the features that are shipped, a new draw for each seed;
            "synthetic", see `synthetic_set`, a new set for each seed; "folder", see
            `read_folder`; "lists", see `read_split`.
        paths: Names and paths that the kind needs.
        layout: Order of the axes of features in files.
        standardise: See `Split.standardised`.
        expect: Name of a published split whose counts the data must have.
    """

    kind: str
    paths: Mapping[str, str]
    layout: Layout | None = None
    standardise: bool = False
    expect: str | None = None

    @classmethod
    def named(
        cls, name: str, *, standardise: bool = False, expect: str | None = None
    ) -> Data:
        """Return the videos of one name: "ped2", "synthetic" or a folder's path."""
        kind = name if name in ("ped2", "synthetic") else "folder"
        paths = {"folder": name} if kind == "folder" else {}
        return cls(kind, paths, standardise=standardise, expect=expect)

    def split(self, seed: int) -> Split:
        """Return the split of a run."""
        if self.kind == "ped2":
            split = ped2_split(seed)
        elif self.kind == "synthetic":
            from .synthetic import synthetic_set  # made of the classes of this module

            split = synthetic_set(seed).split
        elif self.kind == "folder":
            split = read_folder(self.paths["folder"])
        else:
            split = read_split(**self.paths, layout=self.layout)
        if self.expect is not None:
            split.check_counts(self.expect)
        return split.standardised() if self.standardise else split


def read_split(
    normal: str | os.PathLike[str],
    abnormal: str | os.PathLike[str],
    test: str | os.PathLike[str],
    truth: str | os.PathLike[str],
    *,
    layout: Layout | None = None,
) -> Split:
    """Read a split from three list files and a ground truth.

    Args:
        normal: List file of the normal training videos.
        abnormal: List file of the abnormal training videos.
        test: List file of the test videos, in the order of the ground truth.
        truth: See `read_ground_truth`.
        layout: Order of the axes of the features.

    Raises:
        ValueError: If a video both trains and tests.
    """
    first = VideoSet(normal, layout=layout, name="normal")
    second = VideoSet(abnormal, layout=layout, name="abnormal")
    tested = read_list(test)
    both = {path.resolve() for path in tested} & (first.files | second.files)
    if both:
        raise ValueError(
            f"{test}: {len(both)} videos are in a training list too, such as "
            f"{min(both)}"
        )
    return Split(first, second, label_videos(tested, truth, layout))


def read_folder(folder: str | os.PathLike[str]) -> Split:
    """Read a split from a folder of two tables and two archives.

    The folder holds `train.csv` and `test.csv`, with the columns `video` and `label`
    (1 abnormal), `features.npz` with `(T, D)` or `(N, T, D)` for each video, and
    `frame_labels_test.npz` with `(F,)` for each test video.

    Raises:
        FileNotFoundError: If one of them is missing, or a video in one of them.
        ValueError: If a table or an archive is broken, or a video both trains and
            tests.
    """
    folder = Path(folder)
    rows = {name: _read_table(folder / f"{name}.csv") for name in ("train", "test")}
    both = sorted(rows["train"].keys() & rows["test"].keys())
    if both:
        raise ValueError(
            f"{folder}: {len(both)} videos are in train.csv and in test.csv, such as "
            f"{both[0]}"
        )
    path = folder / "features.npz"
    features = read_archive(path)
    missing = sorted({*rows["train"], *rows["test"]} - features.keys())
    if missing:
        raise FileNotFoundError(
            f"{path}: lacks {len(missing)} videos, such as {missing[0]}"
        )
    by_label = {
        label: VideoSet(
            [features[name] for name, one in rows["train"].items() if one == label],
            name=word,
        )
        for label, word in enumerate(("normal", "abnormal"))
    }
    names = list(rows["test"])
    videos = VideoSet([features[name] for name in names], name="test")
    lengths = [SNIPPET_FRAMES * video.shape[1] for video in videos]
    labels = read_ground_truth(folder / "frame_labels_test.npz", names, lengths)
    return Split(
        by_label[0],
        by_label[1],
        [LabelledVideo(*video) for video in zip(names, videos, labels, strict=True)],
    )


def _read_table(path: Path) -> dict[str, int]:
    with path.open(newline="", encoding="utf-8") as file:
        try:
            rows = {row["video"]: int(row["label"]) for row in csv.DictReader(file)}
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(
                f"{path}: expected the columns video and label, 0 or 1"
            ) from error
    if not rows or not set(rows.values()) <= {0, 1}:
        raise ValueError(f"{path}: expected videos with a label of 0 or 1")
    return rows


def label_videos(
    paths: Sequence[Path],
    truth: str | os.PathLike[str],
    layout: Layout | None = None,
) -> list[LabelledVideo]:
    """Read test videos and their frame labels; see `read_ground_truth`."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):  # their folders tell them apart
        names = [str(path.with_suffix("")) for path in paths]
    features = [read_features(path, layout=layout) for path in paths]
    lengths = [SNIPPET_FRAMES * video.shape[1] for video in features]
    labels = read_ground_truth(truth, names, lengths)
    return [
        LabelledVideo(*video) for video in zip(names, features, labels, strict=True)
    ]
