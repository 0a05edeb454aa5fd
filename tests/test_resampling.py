"""`fit_resample`: what a user of imbalanced-learn expects of it."""

import copy

import numpy as np
import pytest

from hosts import FEATURE_DIM
from vad_pseudoaug import PseudoVideoSampler, Recipe
from vad_pseudoaug.resampling import PseudoVideoOverSampler

SMALL = Recipe.named(
    "robust",
    hidden_dims=(16,),
    latent_dim=4,
    epochs=2,
    baseline_epochs=2,
    baseline_hidden_dims=(8,),
    normal_quantile=0.5,
)


@pytest.fixture
def data():
    """Nine normal and four abnormal videos, (T, D), of several lengths."""
    rng = np.random.default_rng(0)
    y = np.array([0] * 9 + [1] * 4, dtype=np.int32)
    videos = [
        rng.random((6 + i % 3, FEATURE_DIM), dtype=np.float32) + float(label)
        for i, label in enumerate(y)
    ]
    return videos, y


def make(vae, **params):
    return PseudoVideoOverSampler(sampler=PseudoVideoSampler(vae), **params)


@pytest.mark.parametrize(
    ("strategy", "counts"),
    [("auto", (9, 9)), (0.5, (9, 5)), (0.4, (9, 4)), ({1: 6}, (9, 6))],
)
def test_the_rarer_class_grows(vae, data, strategy, counts):
    videos, y = data
    before = [video.copy() for video in videos]
    add = make(vae, sampling_strategy=strategy)
    more, y_more = add.fit_resample(videos, y)
    assert tuple(np.bincount(y_more)) == counts
    assert y_more.dtype == y.dtype
    assert all(new is old for new, old in zip(more[:13], videos, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(videos, before, strict=True))
    assert len(add.sample_indices_) == len(more)
    for video, source, mask in zip(
        more[13:], add.sample_indices_[13:], add.pseudo_masks_, strict=True
    ):
        assert y[source] == 0  # pseudo abnormal videos are made of normal ones
        assert video.shape == videos[source].shape
        assert video.dtype == np.float32
        assert np.array_equal(video[~mask], videos[source][~mask])
        assert (video[mask] != videos[source][mask]).any(axis=1).all()


def test_normal_videos_can_be_the_rarer_ones(vae, data):
    videos, y = data
    _, y_more = make(vae).fit_resample(videos, list(1 - y))
    assert np.bincount(y_more).tolist() == [9, 9]
    assert y_more[13:].tolist() == [0] * 5
    both = make(vae, sampling_strategy={0: 10, 1: 10}).fit_resample(videos, y)[1]
    assert both[13:].tolist() == [0] + [1] * 6


@pytest.mark.parametrize("layout", [None, "TND", "NTD"])
def test_layout_and_dtype_stay(vae, data, layout):
    videos, y = data
    turned = [np.stack([v, v + 0.5]).astype(np.float64) for v in videos]  # (N, T, D)
    if layout != "NTD":
        turned = [v.transpose(1, 0, 2) for v in turned]
    add = make(vae, layout=layout)
    more, _ = add.fit_resample(turned, y)
    mask, source = add.pseudo_masks_[0], turned[add.sample_indices_[13]]
    crop = (0,) if layout == "NTD" else (slice(None), 0)
    assert more[13].shape == source.shape
    assert more[13].dtype == np.float64
    assert np.allclose(more[13][crop][~mask], source[crop][~mask])


def test_it_fits_on_x_where_no_sampler_is_given(data):
    videos, y = data
    made = [
        PseudoVideoOverSampler(recipe=SMALL, random_state=seed).fit_resample(videos, y)[
            0
        ]
        for seed in (0, 0, 1)
    ]
    assert len(made[0]) == 18
    same = [
        all(np.array_equal(a, b) for a, b in zip(made[0], other, strict=True))
        for other in made[1:]
    ]
    assert same == [True, False]


def test_parameters_are_those_of_scikit_learn(vae):
    sampler = PseudoVideoSampler(vae)
    add = PseudoVideoOverSampler(sampling_strategy=0.5, sampler=sampler)
    assert add.set_params(random_state=3) is add
    params = add.get_params()
    assert (params["random_state"], params["sampler"]) == (3, sampler)
    assert PseudoVideoOverSampler(**params).get_params() == params
    assert "sampling_strategy=0.5" in repr(add)
    with pytest.raises(ValueError, match="ratio: expected one of sampling_strategy"):
        add.set_params(ratio=1)
    base = pytest.importorskip("sklearn.base")
    cloned = base.clone(add)
    assert cloned is not add
    assert cloned.sampler.fingerprint() == sampler.fingerprint()
    assert cloned.random_state == 3
    assert copy.deepcopy(add).random_state == 3


def test_it_works_in_a_pipeline_of_imbalanced_learn(vae, data):
    pipeline = pytest.importorskip("imblearn.pipeline")
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import FunctionTransformer

    videos, y = data
    steps = pipeline.make_pipeline(
        make(vae),
        FunctionTransformer(lambda kept: np.stack([v.max(axis=0) for v in kept])),
        LogisticRegression(),
    )
    assert steps.fit(videos, y).score(videos, y) > 0.6
    assert np.array_equal(steps.predict(videos[:1]), [0])  # prediction adds no video


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sampling_strategy": 1.5}, ValueError, "sampling_strategy: expected 'auto'"),
        ({"sampling_strategy": "all"}, ValueError, "sampling_strategy: expected"),
        ({"sampling_strategy": {1: 3}}, ValueError, "at least the 9 and 4 videos"),
        ({"y": [0] * 12 + [2]}, ValueError, "13 labels 0 or 1"),
        ({"y": [0] * 3}, ValueError, "13 labels 0 or 1, got shape"),
        (
            {"y": [1] * 13, "sampling_strategy": {1: 20}},
            ValueError,
            "of class 0, got none",
        ),
        ({"first": [[1.0]]}, TypeError, r"X\[0\]: expected an array"),
        ({"first": np.full((4, 12), np.nan)}, ValueError, r"X\[0\]: expected finite"),
        ({"first": np.ones((4, 40, 12))}, ValueError, "pass layout='NTD'"),
        ({"first": np.ones((4, 5))}, ValueError, "1 crops of size 5 as X"),
    ],
)
def test_bad_input_is_refused(vae, data, change, error, message):
    videos, y = data
    y = change.pop("y", y)
    videos[0] = change.pop("first", videos[0])
    with pytest.raises(error, match=message):
        make(vae, **change).fit_resample(videos, y)


def test_no_normal_or_no_abnormal_video(data):
    videos, _ = data
    with pytest.raises(ValueError, match="at least one video of class 0"):
        PseudoVideoOverSampler(recipe=SMALL).fit_resample(videos, [1] * 13)
    with pytest.raises(ValueError, match="one-class"):
        PseudoVideoOverSampler(recipe=SMALL).fit_resample(videos, [0] * 13)
