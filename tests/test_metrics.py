"""Figures of merit against brute force and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from vad_pseudoaug.baseline import to_frames
from vad_pseudoaug.intervals import paired_bootstrap
from vad_pseudoaug.metrics import (
    average_precision,
    roc_auc,
    roc_curve,
)


def cases():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 60))
        labels = rng.integers(0, 2, size)
        labels[:2] = 0, 1
        yield labels, rng.integers(0, rng.integers(2, 30), size) / 7


def test_auc_is_the_chance_to_rank_right():
    for labels, scores in cases():
        pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
        brute = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
        assert roc_auc(labels, scores) == pytest.approx(brute, abs=1e-12)


def test_figures_equal_scikit_learn_with_ties():
    for labels, scores in cases():
        assert roc_auc(labels, scores) == pytest.approx(
            sk.roc_auc_score(labels, scores), abs=1e-12
        )
        ap = average_precision(labels, scores)
        assert ap.step == pytest.approx(
            sk.average_precision_score(labels, scores), abs=1e-12
        )
        precision, recall, _ = sk.precision_recall_curve(labels, scores)
        assert ap.trapezoid == pytest.approx(sk.auc(recall, precision), abs=1e-12)
        expected = sk.roc_curve(labels, scores, drop_intermediate=False)
        np.testing.assert_allclose(roc_curve(labels, scores)[0], expected[0])
        np.testing.assert_allclose(roc_curve(labels, scores)[1], expected[1])


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1], "shapes"),
        ([0, 1], [0.1, np.nan], "finite"),
        ([1, 1], [0.1, 0.2], "both"),
    ],
)
def test_input_that_has_no_figure_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        roc_auc(labels, scores)


def test_bootstrap_interval():
    low = paired_bootstrap([0.5] * 6)
    assert low == (0.5, 0.5, 0.5)
    values = np.random.default_rng(0).normal(1.0, 0.2, size=400)
    interval = paired_bootstrap(values)
    error = values.std() / 20
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.3 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.3 * error)
    assert paired_bootstrap(values) == interval
    with pytest.raises(ValueError, match="two or more"):
        paired_bootstrap([0.5])


def test_scores_of_frames():
    scores = np.array([0.1, 0.7])
    assert to_frames(scores).tolist() == [0.1] * 16 + [0.7] * 16
    assert to_frames(scores, 20).tolist() == [0.1] * 16 + [0.7] * 4
    assert to_frames(scores, 40).tolist() == [0.1] * 16 + [0.7] * 24
