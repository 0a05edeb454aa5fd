"""Figures of merit against brute force and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sk

from vad_pseudoaug.baseline import to_frames
from vad_pseudoaug.intervals import paired_bootstrap
from vad_pseudoaug.metrics import (
    Ranking,
    average_precision,
    frame_figures,
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
        ([], [], "frames, got none"),
        ([0, 2], [0.1, 0.2], r"0 or 1, got values \[0, 2\]"),
        ([0, -1], [0.1, 0.2], "0 or 1"),
        ([0, np.nan, 1], [0.1, 0.2, 0.3], "0 or 1"),
        ([1, 1], [0.1, 0.2], "both"),
    ],
)
def test_input_that_has_no_figure_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        roc_auc(labels, scores)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float16])
def test_scores_may_be_of_any_type(dtype):
    scores = np.array([0, 1, 2, 3], dtype)
    assert roc_auc([0, 0, 1, 1], scores) == 1
    assert average_precision([0, 0, 1, 1], scores) == (1, 1)
    assert roc_auc(np.array([False, True]), np.array([False, True])) == 1


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


def weighted():
    """Videos of many tied scores, and weights by which both classes have frames."""
    for seed in range(50):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, 12, size=int(rng.integers(3, 9)))
        labels = [rng.integers(0, 2, length) for length in lengths]
        labels[0][:], labels[1][:] = 0, 1
        scores = [rng.integers(0, rng.integers(2, 15), n) / 7 for n in lengths]
        weights = rng.integers(0, 4, (5, len(lengths)))
        weights[:, :2] += 1
        yield labels, scores, weights


def test_weighted_figures_equal_scikit_learn():
    for labels, scores, weights in weighted():
        ranking = Ranking(labels, scores)
        truth, flat = np.concatenate(labels), np.concatenate(scores)
        lengths = [len(own) for own in labels]
        for weight in weights:
            each = np.repeat(weight, lengths)
            assert ranking.auc(weight) == pytest.approx(
                sk.roc_auc_score(truth, flat, sample_weight=each), abs=1e-12
            )
            assert ranking.average_precision(weight) == pytest.approx(
                sk.average_precision_score(truth, flat, sample_weight=each), abs=1e-12
            )
            precision, recall, _ = sk.precision_recall_curve(
                np.repeat(truth, each), np.repeat(flat, each)
            )
            assert ranking.average_precision(weight, rule="trapezoid") == (
                pytest.approx(sk.auc(recall, precision), abs=1e-12)
            )


def test_many_weights_at_once_are_each_by_itself():
    for labels, scores, weights in weighted():
        ranking = Ranking(labels, scores)
        for figure in (
            ranking.auc,
            ranking.average_precision,
            lambda w, r=ranking: r.average_precision(w, rule="trapezoid"),
        ):
            assert figure(weights).shape == (5,)
            np.testing.assert_allclose(figure(weights), [figure(w) for w in weights])
        ones = np.ones(len(labels))
        assert ranking.auc(ones) == pytest.approx(ranking.auc())
        assert ranking.average_precision(ones) == pytest.approx(
            ranking.average_precision()
        )


def test_weights_without_a_class_have_no_figure():
    ranking = Ranking([[0, 0], [1, 1], [0, 1]], [[0.1, 0.3], [0.3, 0.2], [0.5, 0.4]])
    weights = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 0], [1, 1, 0], [0, 0, 1]])
    assert np.isnan(ranking.auc(weights)).tolist() == [True] * 3 + [False] * 2
    assert np.isnan(ranking.average_precision(weights))[[0, 2]].all()
    assert ranking.auc(weights)[3:].tolist() == [0.625, 0.0]


def test_an_unknown_rule_is_refused():
    ranking = Ranking([[0, 1]], [[0.1, 0.2]])
    with pytest.raises(ValueError, match="'step' or 'trapezoid', got 'simpson'"):
        ranking.average_precision(rule="simpson")


def test_figures_of_frames_equal_scikit_learn_and_brute_force():
    for labels, scores, _ in weighted():
        labels = [*labels, np.array([0, 1, 0])]
        scores = [*scores, np.array([0.5, 1.0, 1.5])]
        found = frame_figures(labels, scores)
        truth, flat = np.concatenate(labels), np.concatenate(scores)
        assert found.auc == pytest.approx(sk.roc_auc_score(truth, flat))
        assert found.ap == pytest.approx(sk.average_precision_score(truth, flat))
        precision, recall, _ = sk.precision_recall_curve(truth, flat)
        assert found.ap_trapezoid == pytest.approx(sk.auc(recall, precision))
        anomalous = [i for i, own in enumerate(labels) if own.any()]
        assert found.abnormal_auc == pytest.approx(
            sk.roc_auc_score(
                np.concatenate([labels[i] for i in anomalous]),
                np.concatenate([scores[i] for i in anomalous]),
            )
        )
        within = [
            sk.roc_auc_score(labels[i], scores[i])
            for i in anomalous
            if not labels[i].all()
        ]
        assert found.per_video_auc == pytest.approx(np.mean(within))
        normal = [
            s for t, own in zip(labels, scores, strict=True) if not t.any() for s in own
        ]
        assert found.false_alarms == np.mean([score > 0.5 for score in normal])


def test_a_figure_that_the_videos_do_not_define_is_nan():
    apart = frame_figures([[0, 0, 0], [1, 1]], [[0.1, 0.5, 0.6], [0.7, 0.2]])
    assert np.isnan([apart.abnormal_auc, apart.per_video_auc]).all()
    assert apart.false_alarms == pytest.approx(1 / 3)
    mixed = frame_figures([[0, 1], [1, 0]], [[0.1, 0.2], [0.9, 0.8]])
    assert np.isnan(mixed.false_alarms)
    assert (mixed.abnormal_auc, mixed.per_video_auc) == (0.75, 1.0)
    assert not np.isnan(mixed[:5]).any()


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([[0, 1], [0]], [[0.1, 0.2], [0.1, 0.2]], r"shapes \(1,\) and \(2,\)"),
        ([[0, 1], [0]], [[0.1, 0.2]], "same videos, got 2 and 1 videos"),
        ([[0, 1]], [[0.1, 0.2], [0.3]], "same videos, got 1 and 2 videos"),
        ([[0, 1]], [[0.1, np.inf]], "finite"),
        ([[0, 0], [0]], [[0.1, 0.2], [0.3]], "both normal and anomalous"),
    ],
)
def test_frames_that_have_no_figures_are_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        frame_figures(labels, scores)
