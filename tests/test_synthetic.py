"""The synthetic set: a function of its seed, sparse, and with a truth that fits."""

import numpy as np
import pytest

from vad_pseudoaug.protocol import Data
from vad_pseudoaug.selection import Selection
from vad_pseudoaug.synthetic import synthetic_set


@pytest.fixture(scope="module")
def made():
    return synthetic_set(0)


def test_the_seed_alone_decides(made):
    again, other = synthetic_set(0), synthetic_set(1)
    for one, two in zip(made.split.normal, again.split.normal, strict=True):
        np.testing.assert_array_equal(one, two)
    assert made.split.normal[0].shape != other.split.normal[0].shape
    assert Data("synthetic", {}).split(0).counts == made.split.counts


def test_anomalies_are_sparse_runs_of_abnormal_videos_alone(made):
    labels = made.split.labels
    assert [bool(own.any()) for own in labels] == [False] * 30 + [True] * 30
    for own in made.truth:
        runs = np.count_nonzero(np.diff(np.pad(own.astype(int), 1)) == 1)
        assert 1 <= runs <= 2
    for video in (*made.split.normal, *made.split.abnormal):
        assert video.dtype == np.float32
        assert video.min() >= 0
        assert 20 <= video.shape[1] <= 160


def test_anomalous_snippets_differ_from_their_videos_others(made):
    for video, own in zip(made.split.abnormal, made.truth, strict=True):
        if 2 < own.sum() < len(own) - 2:
            inside, outside = video[0, own].mean(axis=0), video[0, ~own].mean(axis=0)
            halves = np.array_split(video[0, ~own], 2)
            assert np.linalg.norm(inside - outside) > 0.5 * np.linalg.norm(
                halves[0].mean(axis=0) - halves[1].mean(axis=0)
            )


def test_purity_is_the_share_of_hits(made):
    everything = Selection(tuple(np.ones_like(own) for own in made.truth), ())
    share = np.concatenate(made.truth).mean()
    assert made.purity(everything) == pytest.approx(share)
    assert made.purity(Selection(tuple(made.truth), ())) == 1
