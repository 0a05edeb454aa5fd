"""Frame-level figures of merit, and paired intervals (section 2.3 of the paper)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata


def roc_auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: the chance that an anomalous frame scores higher.

    Ties count one half. Computed from mid-ranks (Mann-Whitney), exactly.

    Args:
        labels: `(F,)`, 1 anomalous, 0 normal.
        scores: `(F,)`, any finite values.

    Returns:
        A value in [0, 1].

    Raises:
        ValueError: If shapes differ, a value is not finite or a class is missing.

    Example:
        >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    truth, values = _check(labels, scores)
    num_positive = int(truth.sum())
    ranks = rankdata(values)
    above = ranks[truth].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * (len(truth) - num_positive)))


def roc_curve(
    labels: ArrayLike, scores: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of the ROC curve: false and true positive rates, from (0, 0) to (1, 1)."""
    true_positives, positives, total = _cumulate(*_check(labels, scores))
    false_positives = total - true_positives
    num_positive, num_negative = positives, total[-1] - positives
    return (
        np.concatenate(([0.0], false_positives / num_negative)),
        np.concatenate(([0.0], true_positives / num_positive)),
    )


class AveragePrecision(NamedTuple):
    """The area under the precision-recall curve, in the field's two ways.

    Attributes:
        step: Step-wise sum, as scikit-learn's `average_precision_score`.
        trapezoid: Trapezoid rule, as RTFM and UR-DMU report it; optimistic where the
            curve is steep.
    """

    step: float
    trapezoid: float


def average_precision(labels: ArrayLike, scores: ArrayLike) -> AveragePrecision:
    """Area under the precision-recall curve; arguments and errors as in `roc_auc`."""
    true_positives, positives, total = _cumulate(*_check(labels, scores))
    precision = np.concatenate(([1.0], true_positives / total))
    recall = np.concatenate(([0.0], true_positives / positives))
    width = np.diff(recall)
    return AveragePrecision(
        float((width * precision[1:]).sum()),
        float((width * (precision[1:] + precision[:-1]) / 2).sum()),
    )


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
    low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
    return Interval(float(values.mean()), float(low), float(high))


def _check(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Any]:
    truth, values = np.asarray(labels).astype(bool), np.asarray(scores)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(
            f"labels and scores: expected one of each for a frame, got shapes "
            f"{truth.shape} and {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError("scores: expected finite values, got NaN or infinity")
    if truth.all() or not truth.any():
        raise ValueError("labels: expected both normal and anomalous frames")
    return truth, values


def _cumulate(
    truth: NDArray[np.bool_], values: Any
) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
    """Count from the highest score down, at the last frame of each run of ties.

    Returns:
        True positives so far, all positives, frames so far.
    """
    order = np.argsort(-values, kind="stable")
    last = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)
    return np.cumsum(truth[order])[last], int(truth.sum()), last + 1
