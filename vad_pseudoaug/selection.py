"""Which snippets of abnormal videos count as abnormal (section 3.2.4)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray


class NothingToLearnError(ValueError):
    """Videos in order, of which a recipe can learn nothing: too few, or too much alike.

    `auto.choose_p` bears it on a part of the videos; any other error is the caller's.
    """


@dataclass(frozen=True)
class Selection:
    """The snippets that train the abnormal decoder.

    Attributes:
        masks: For each abnormal video a bool array `(T,)`, True where selected.
        empty: Numbers of the videos of which no snippet was selected.
        weights: For each abnormal video `(T,)` >= 0, how often a snippet is drawn to
            train, relative to the others of its video; None draws all alike.
    """

    masks: tuple[NDArray[np.bool_], ...]
    empty: tuple[int, ...]
    weights: tuple[NDArray[np.float32], ...] | None = None

    @property
    def num_selected(self) -> int:
        """Number of selected snippets in all."""
        return int(sum(mask.sum() for mask in self.masks))

    @property
    def num_snippets(self) -> int:
        """Number of snippets in all."""
        return sum(len(mask) for mask in self.masks)

    def to_dict(self) -> dict[str, Any]:
        """Return what was selected as JSON values; a digest tells which snippets."""
        return {
            "num_selected": self.num_selected,
            "num_snippets": self.num_snippets,
            "selected_per_video": [int(mask.sum()) for mask in self.masks],
            "videos_without_selection": list(self.empty),
            "digest": self._digest(),
        }

    def _digest(self) -> str:
        """Tell selections apart that have as many snippets of each video."""
        digest = sha256(repr([len(mask) for mask in self.masks]).encode())
        for part in (*self.masks, *(self.weights or ())):
            digest.update(part.tobytes())
        return digest.hexdigest()[:16]


def select_ranked(
    scores: Sequence[NDArray[np.floating[Any]]],
    normal_scores: Sequence[NDArray[np.floating[Any]]],
    *,
    top_share: float = 0.2,
    normal_quantile: float = 0.95,
    min_run: int = 1,
    weighted: bool = False,
) -> Selection:
    """Select the highest snippets of each abnormal video.

    A share of each video, rounded up, that also scores above a quantile of the normal
    videos' snippets: a threshold of one's own for each video does not depend on how far
    the video's mean was pushed up. Anomalies last: what is selected for less than
    `min_run` snippets in a row is dropped, unless nothing of the video would be left.

    Args:
        scores: For each abnormal video `(T,)`, best by a scorer that never saw it.
        normal_scores: The same for normal videos.
        top_share: Share of a video's snippets.
        normal_quantile: Share of all normal snippets that a score must exceed.
        min_run: Fewest snippets in a row.
        weighted: Whether snippets weigh by how far their score exceeds the quantile.

    Raises:
        NothingToLearnError: If no snippet of any video is selected.
    """
    guard = float(np.quantile(np.concatenate(normal_scores), normal_quantile))
    masks = []
    for score in scores:
        count = math.ceil(top_share * len(score) - 1e-9)  # 0.55 * 100 is 55.00...1
        mask = np.zeros(len(score), dtype=bool)
        mask[np.argsort(-score, kind="stable")[:count]] = True
        masks.append(_keep_runs(mask & (score > guard), min_run))
    empty = tuple(i for i, mask in enumerate(masks) if not mask.any())
    if len(empty) == len(masks):
        raise NothingToLearnError(
            f"no snippet of the {len(masks)} abnormal videos scores above {guard:.3f}, "
            f"the {normal_quantile} quantile of the normal ones: lower normal_quantile "
            "in fit, or give scores that are high where it is abnormal"
        )
    weights = None
    if weighted:
        above = (np.maximum(score - guard, 0) for score in scores)
        weights = tuple(
            (own * mask).astype(np.float32)
            for own, mask in zip(above, masks, strict=True)
        )
    return Selection(tuple(masks), empty, weights)


def runs_of(mask: NDArray[Any]) -> list[tuple[int, int]]:
    """Return start and end of each run of true values in a mask `(T,)`.

    Example:
        >>> runs_of(np.array([0, 1, 1, 0, 1]))
        [(1, 3), (4, 5)]
    """
    edges = np.flatnonzero(np.diff(np.pad(mask.astype(np.int8), 1))).reshape(-1, 2)
    return [(start, end) for start, end in edges.tolist()]


def _keep_runs(mask: NDArray[np.bool_], min_run: int) -> NDArray[np.bool_]:
    """Drop runs of fewer than `min_run`, unless all of them are."""
    kept = np.zeros_like(mask)
    for start, end in runs_of(mask):
        kept[start:end] = end - start >= min_run
    return kept if kept.any() else mask


def select_above(
    scores: Sequence[NDArray[np.floating[Any]]],
    *,
    threshold: float = 0.5,
    titles: Sequence[str] | None = None,
) -> Selection:
    """Select the snippets of abnormal videos that score above a threshold.

    Args:
        scores: For each abnormal video `(T,)`, in [0, 1].
        threshold: The paper takes 0.5; a score must be higher.
        titles: Names of the videos for the warning.

    Returns:
        The selection. Videos without a selected snippet are listed in it and named in
        a warning: they train no decoder, but pseudo normal videos are made of them.

    Raises:
        NothingToLearnError: If no snippet of any video is selected.
    """
    masks = tuple(np.asarray(score) > threshold for score in scores)
    empty = tuple(i for i, mask in enumerate(masks) if not mask.any())
    if len(empty) == len(masks):
        highest = max(float(np.max(score)) for score in scores)
        raise NothingToLearnError(
            f"no snippet of the {len(masks)} abnormal videos scores above "
            f"{threshold}, the highest is {highest:.3f}: lower the threshold or train "
            "the baseline for longer"
        )
    if empty:
        names = [titles[i] if titles else f"abnormal[{i}]" for i in empty]
        warnings.warn(
            f"{len(empty)} of {len(masks)} abnormal videos have no snippet that "
            f"scores above {threshold} and do not train the abnormal decoder: "
            f"{', '.join(names)}",
            stacklevel=6,  # who called fit
        )
    return Selection(masks, empty)
