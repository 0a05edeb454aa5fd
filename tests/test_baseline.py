"""The baseline, its split, equation 1, and the selection by its scores."""

import math

import numpy as np
import pytest
import torch

from vad_pseudoaug import Baseline, Recipe, VideoSet
from vad_pseudoaug.baseline import cross_scores, deal, stratified_split, video_loss
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.selection import select_above


def test_equation_1_by_hand():
    scores, labels = [0.2, 0.9, 0.6], [0, 1, 0]
    by_hand = -sum(
        y * math.log(s) + (1 - y) * math.log(1 - s)
        for s, y in zip(scores, labels, strict=True)
    )
    ours = video_loss(torch.tensor(scores), torch.tensor(labels, dtype=torch.float32))
    assert ours.item() == pytest.approx(by_hand / 3, rel=1e-6)


def test_the_video_score_is_the_mean_of_the_snippets():
    model = Baseline(12, seed=0)
    features = torch.rand(2, 3, 5, 12)
    loop = [
        sum(torch.sigmoid(model.mlp(row)).item() for row in video.reshape(-1, 12)) / 15
        for video in features
    ]
    np.testing.assert_allclose(
        model.video_score(features).detach().numpy(), loop, rtol=1e-5
    )


def test_the_split_is_drawn_in_each_class():
    split = stratified_split(175, 63, seed=1)
    assert [len(part) for part in split] == [140, 50, 35, 13]
    assert sorted(split.train_normal + split.validation_normal) == list(range(175))
    assert sorted(split.train_abnormal + split.validation_abnormal) == list(range(63))
    assert split != stratified_split(175, 63, seed=2)
    assert split == stratified_split(175, 63, seed=1)
    with pytest.raises(ValueError, match="no training video"):
        stratified_split(1, 5, share=1.0)


def test_it_learns_and_reports_a_validation_loss(videos):
    normal, abnormal = videos
    recipe = Recipe.named(
        baseline_epochs=60, baseline_hidden_dims=(16,), baseline_lr=1e-2
    )
    model = Baseline.fit(normal, abnormal, recipe=recipe, seed=0)
    assert len(model.history) == 60
    assert model.history[-1]["loss"] < 0.5 * model.history[0]["loss"]
    assert model.history[-1]["validation_loss"] < 0.5
    scores = model.score(abnormal)
    assert [len(s) for s in scores] == [v.shape[1] for v in abnormal]
    means = [np.mean([s.mean() for s in model.score(v)]) for v in videos]
    assert means[1] > means[0] + 0.4
    again = Baseline.fit(normal, abnormal, recipe=recipe, seed=0)
    assert again.history == model.history
    without = Baseline.fit(normal, abnormal, recipe=recipe, validation_share=0)
    assert "validation_loss" not in without.history[0]


def test_crops_or_sizes_that_differ_are_refused(videos):
    normal, _ = videos
    with pytest.raises(ValueError, match="same extractor"):
        Baseline.fit(normal, [np.zeros((2, 4, 11), np.float32)])
    with pytest.raises(ValueError, match=r"normal\[1\]: expected 2 crops of size 12"):
        Baseline.fit([normal[0], normal[1][:1], normal[2]], normal, validation_share=0)


def test_selection_takes_scores_above_the_threshold():
    scores = [np.array([0.5, 0.51, 0.1]), np.array([0.9, 0.2])]
    selection = select_above(scores)
    assert [mask.tolist() for mask in selection.masks] == [
        [False, True, False],
        [True, False],
    ]
    assert (selection.num_selected, selection.num_snippets) == (2, 5)
    assert selection.empty == ()


def test_a_video_without_selection_is_reported():
    with pytest.warns(UserWarning, match="1 of 2 abnormal videos .*fight.npy"):
        selection = select_above(
            [np.array([0.1]), np.array([0.9])], titles=["fight.npy", "fire.npy"]
        )
    assert selection.empty == (0,)
    with pytest.raises(ValueError, match=r"highest is 0\.100"):
        select_above([np.array([0.1])])


def test_the_mean_of_the_crops_is_what_one_crop_of_it_would_be(many_videos):
    """Trained and scored on means, as if the videos had that one crop."""
    alone = [[v.mean(axis=0, keepdims=True) for v in own] for own in many_videos]
    scores = []
    for videos, crops in ((many_videos, "mean"), (alone, "all"), (alone, "mean")):
        recipe = Recipe.named(
            "robust",
            baseline_crops=crops,
            baseline_epochs=3,
            baseline_hidden_dims=(8,),
        )
        model = Baseline.fit(*videos, recipe=recipe, validation_share=0, progress=False)
        scores.append(np.concatenate(model.score(videos[1])))
    np.testing.assert_array_equal(scores[1], scores[2])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)


def test_cross_scores_are_of_models_that_never_saw_the_video(many_videos, monkeypatch):
    recipe = Recipe.named(
        "robust", baseline_epochs=2, baseline_hidden_dims=(8,), folds=3
    )
    options = {"recipe": recipe, "seed": 5, "progress": False}
    pooled = []
    original = VideoSet.segments
    monkeypatch.setattr(
        VideoSet,
        "segments",
        lambda self, i, *a, **k: pooled.append(i) or original(self, i, *a, **k),
    )
    found = cross_scores(*many_videos, **options)
    assert len(pooled) == sum(map(len, many_videos))  # each is pooled once
    parts = [
        deal(len(own), 3, generator=make_generator(5, 2, label))
        for label, own in enumerate(many_videos)
    ]
    for fold in range(3):
        rest = [
            [video for video, at in zip(own, part, strict=True) if at != fold]
            for own, part in zip(many_videos, parts, strict=True)
        ]
        model = Baseline.fit(*rest, validation_share=0, **options)
        for own, part, scores in zip(many_videos, parts, found, strict=True):
            left_out = [i for i, at in enumerate(part) if at == fold]
            expected = model.score([own[i] for i in left_out])
            assert len(expected) in (len(own) // 3, len(own) // 3 + 1)
            for i, score in zip(left_out, expected, strict=True):
                np.testing.assert_array_equal(scores[i], score)
