"""Frame-level figures of merit (section 2.3 of the paper).

All of them are computed from a `Ranking`: the frames of all test videos in the order of
their scores. A video may have a weight, so that a bootstrap over videos costs one sort
and many cumulative sums, not many sorts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class AveragePrecision(NamedTuple):
    """The area under the precision-recall curve, in the field's two ways.

    Attributes:
        step: Step-wise sum, as scikit-learn's `average_precision_score`.
        trapezoid: Trapezoid rule, as RTFM and UR-DMU report it; optimistic where the
            curve is steep.
    """

    step: float
    trapezoid: float


class Ranking:
    """The frames of some videos, in falling order of their scores.

    Args:
        labels: For each video `(F,)`, 1 anomalous, 0 normal.
        scores: For each video `(F,)`, any finite values. Ties count one half.

    Raises:
        ValueError: If numbers of videos or shapes differ, there is no frame, a score is
            not finite or a label neither 0 nor 1.
    """

    def __init__(self, labels: Sequence[ArrayLike], scores: Sequence[ArrayLike]):
        values, positives, totals, videos = [], [], [], []
        for number, (truth, score) in enumerate(_pairs(labels, scores)):
            # Frames of one snippet share a score: they are counted together.
            distinct, inverse = np.unique(score, return_inverse=True)
            values.append(distinct)
            positives.append(np.bincount(inverse.ravel(), truth, len(distinct)))
            totals.append(np.bincount(inverse.ravel(), minlength=len(distinct)))
            videos.append(np.full(len(distinct), number))
        if not any(map(len, values)):
            raise ValueError("expected frames, got none")
        flat = np.concatenate(values)
        order = np.argsort(-flat, kind="stable")
        self.num_videos = len(values)
        self._video = np.concatenate(videos)[order]
        self._positive = np.concatenate(positives)[order]
        self._negative = np.concatenate(totals)[order] - self._positive
        self._last = np.append(np.flatnonzero(np.diff(flat[order])), len(flat) - 1)

    def _curve(self, weights: Floats | None) -> tuple[Floats, Floats]:
        """Return true and false positives `(..., P)` at each distinct score."""
        if weights is None:
            weights = np.ones(self.num_videos)
        weight = np.asarray(weights, dtype=np.float64)[..., self._video]
        hits = np.cumsum(weight * self._positive, axis=-1)[..., self._last]
        alarms = np.cumsum(weight * self._negative, axis=-1)[..., self._last]
        return hits, alarms

    def roc_curve(self) -> tuple[Floats, Floats]:
        """Return false and true positive rates, from (0, 0) to (1, 1)."""
        hits, alarms = self._curve(None)
        self._require_both(hits[-1], alarms[-1])
        return _from_zero(alarms / alarms[-1]), _from_zero(hits / hits[-1])

    def auc(self, weights: Floats | None = None) -> Any:
        """Area under the ROC curve, with each video counted `weights` times.

        Args:
            weights: `(V,)`, or `(R, V)` for R resamples; None counts each once.

        Returns:
            A float, or `(R,)`; NaN for a resample in which a class is missing.
        """
        hits, alarms = self._curve(weights)
        area = _trapezoid(_from_zero(alarms), _from_zero(hits))
        with np.errstate(invalid="ignore", divide="ignore"):
            found = area / (hits[..., -1] * alarms[..., -1])
        return found if weights is not None else self._single(found)

    def average_precision(
        self, weights: Floats | None = None, *, rule: str = "step"
    ) -> Any:
        """Area under the precision-recall curve; arguments and NaN as in `auc`.

        Args:
            weights: As in `auc`.
            rule: "step" or "trapezoid", see `AveragePrecision`.
        """
        hits, alarms = self._curve(weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = hits / (hits + alarms)
            recall = _from_zero(hits / hits[..., -1:])
        # The first points of a resample have no frame at all where weights are 0.
        precision = np.where(np.isnan(precision), 1.0, precision)
        if rule == "trapezoid":
            found = _trapezoid(recall, _from_zero(precision, first=1.0))
        elif rule == "step":
            found = (np.diff(recall, axis=-1) * precision).sum(axis=-1)
        else:
            raise ValueError(f"rule: expected 'step' or 'trapezoid', got {rule!r}")
        # Without normal frames every ranking is perfect: that is no figure, either.
        found = np.where(alarms[..., -1] > 0, found, np.nan)
        return found if weights is not None else self._single(found)

    def _single(self, value: Any) -> float:
        self._require_both(self._positive.sum(), self._negative.sum())
        return float(value)

    @staticmethod
    def _require_both(num_positive: float, num_negative: float) -> None:
        if not (num_positive and num_negative):
            raise ValueError("labels: expected both normal and anomalous frames")


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that an anomalous frame scores higher.

    Args:
        labels: `(F,)`, 1 anomalous, 0 normal.
        scores: `(F,)`, any finite values. Ties count one half.

    Returns:
        A value in [0, 1].

    Raises:
        ValueError: If shapes differ, a value is not finite or a class is missing.

    Example:
        >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    area: float = Ranking([labels], [scores]).auc()
    return area


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Points of the ROC curve: false and true positive rates, from (0, 0) to (1, 1)."""
    return Ranking([labels], [scores]).roc_curve()


def average_precision(labels: ArrayLike, scores: ArrayLike) -> AveragePrecision:
    """Area under the precision-recall curve; arguments and errors as in `roc_auc`."""
    ranking = Ranking([labels], [scores])
    return AveragePrecision(
        ranking.average_precision(), ranking.average_precision(rule="trapezoid")
    )


class FrameFigures(NamedTuple):
    """Frame-level figures over some test videos, all in [0, 1].

    Attributes:
        auc: Area under the ROC curve, the frames of all videos concatenated.
        ap: Step-wise average precision.
        ap_trapezoid: The same by the trapezoid rule, as RTFM reports it.
        abnormal_auc: AUC over the frames of videos with an anomalous frame alone: how
            well anomalies are found in time.
        per_video_auc: Mean of the AUC within each video that has both kinds of frame.
        false_alarms: Share of the frames of normal videos that score above 0.5.
    """

    auc: float
    ap: float
    ap_trapezoid: float
    abnormal_auc: float
    per_video_auc: float
    false_alarms: float


FALSE_ALARM_THRESHOLD = 0.5


def frame_figures(
    labels: Sequence[ArrayLike], scores: Sequence[ArrayLike]
) -> FrameFigures:
    """Compute all figures of a scorer on test videos.

    Args:
        labels: For each video `(F,)`, 1 anomalous, 0 normal.
        scores: For each video `(F,)`.

    Returns:
        The figures; NaN where the videos do not define one (`abnormal_auc` where
        abnormal videos are anomalous throughout, `false_alarms` without normal videos).

    Raises:
        ValueError: If numbers of videos or shapes differ, a value is not finite or a
            class is missing.
    """
    pairs = _pairs(labels, scores)
    ranking = Ranking(labels, scores)
    abnormal = [(truth, score) for truth, score in pairs if truth.any()]
    partial = [pair for pair in abnormal if not pair[0].all()]
    normal = [score for truth, score in pairs if not truth.any()]
    nan = float("nan")
    return FrameFigures(
        auc=ranking.auc(),
        ap=ranking.average_precision(),
        ap_trapezoid=ranking.average_precision(rule="trapezoid"),
        abnormal_auc=Ranking(*zip(*abnormal, strict=True)).auc() if partial else nan,
        per_video_auc=(
            float(np.mean([roc_auc(*pair) for pair in partial])) if partial else nan
        ),
        false_alarms=(
            float((np.concatenate(normal) > FALSE_ALARM_THRESHOLD).mean())
            if normal
            else nan
        ),
    )


def _pairs(
    labels: Sequence[ArrayLike], scores: Sequence[ArrayLike]
) -> list[tuple[NDArray[np.bool_], Any]]:
    if len(labels) != len(scores):
        raise ValueError(
            f"labels and scores: expected those of the same videos, got {len(labels)} "
            f"and {len(scores)} videos"
        )
    return [_check(*pair) for pair in zip(labels, scores, strict=True)]


def _check(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Any]:
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(
            f"labels and scores: expected one of each for a frame, got shapes "
            f"{truth.shape} and {values.shape}"
        )
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(
            f"labels: expected 0 or 1, got values {np.unique(truth)[:4].tolist()}"
        )
    if not np.isfinite(values).all():
        raise ValueError("scores: expected finite values, got NaN or infinity")
    return truth.astype(bool), values


def _from_zero(values: Floats, *, first: float = 0.0) -> Floats:
    start = np.full((*values.shape[:-1], 1), first)
    return np.concatenate((start, values), axis=-1)


def _trapezoid(x: Floats, y: Floats) -> Any:
    return (np.diff(x, axis=-1) * (y[..., 1:] + y[..., :-1]) / 2).sum(axis=-1)
