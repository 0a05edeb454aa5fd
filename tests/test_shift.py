"""The recipe "mean-shift": a constant in place of the network, for users to choose."""

import numpy as np
import pytest
import torch

from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.check import check_sampler, refit_on_part
from vad_pseudoaug.checkpoint import CheckpointError
from vad_pseudoaug.recipe import Recipe
from vad_pseudoaug.selection import Selection
from vad_pseudoaug.shift import class_means
from vad_pseudoaug.vae import ABNORMAL, NORMAL, MultiTaskVAE, VAEConfig
from vad_pseudoaug.videos import VideoSet

QUICK = {
    "recipe": "mean-shift",
    "baseline_epochs": 40,
    "baseline_lr": 0.01,
    "baseline_hidden_dims": (16,),
}


@pytest.fixture
def sampler(many_videos):
    return PseudoVideoSampler.fit(*many_videos, **QUICK)


def halves(videos):
    """Scores that select the second half of a video."""
    return [np.arange(v.shape[1]) >= v.shape[1] // 2 for v in videos]


def test_means_are_those_of_all_normal_and_of_the_selected_snippets(many_videos):
    normal, abnormal = many_videos
    masks = halves(abnormal)
    found = class_means(
        VideoSet(normal), VideoSet(abnormal), Selection(tuple(masks), ())
    )
    rows = [
        np.concatenate([v.mean(axis=0) for v in normal]),
        np.concatenate(
            [v[:, m].mean(axis=0) for v, m in zip(abnormal, masks, strict=True)]
        ),
    ]
    for own, wanted in zip(found, rows, strict=True):
        np.testing.assert_allclose(own, wanted.mean(axis=0), rtol=1e-5)
    nothing = Selection(tuple(np.zeros_like(mask) for mask in masks), ())
    with pytest.raises(ValueError, match="no snippet is selected"):
        class_means(VideoSet(normal), VideoSet(abnormal), nothing)


@pytest.mark.parametrize("label", [NORMAL, ABNORMAL])
def test_generated_snippets_are_their_sources_and_the_difference(sampler, label):
    source = torch.from_numpy(sampler.sources(label)[3].copy())
    made = sampler.sample(source, label=label)
    gap = sampler.means[label] - sampler.means[1 - label]
    wanted = (source[:, made.pseudo_mask] + gap).clamp(min=0)
    torch.testing.assert_close(made.features[:, made.pseudo_mask], wanted)
    assert torch.equal(
        made.features[:, ~made.pseudo_mask], source[:, ~made.pseudo_mask]
    )
    assert made.pseudo_mask.sum() == (
        source.shape[1] if label == NORMAL else source.shape[1] // 2
    )


def test_strength_scales_the_difference(many_videos):
    choices = {**QUICK, "min_strength": 2.0, "max_strength": 2.0}
    sampler = PseudoVideoSampler.fit(*many_videos, **choices)
    source = torch.from_numpy(sampler.sources(ABNORMAL)[0].copy())
    made = sampler.sample(source, label=ABNORMAL)
    moved = (made.features - source)[:, made.pseudo_mask]
    gap = sampler.means[ABNORMAL] - sampler.means[NORMAL]
    torch.testing.assert_close(moved, (2 * gap).expand_as(moved), atol=1e-5, rtol=1e-4)


def test_no_network_is_trained_and_the_means_are_saved(sampler, tmp_path):
    assert sampler.history == []
    sampler.save_pretrained(tmp_path / "run")
    again = PseudoVideoSampler.from_pretrained(tmp_path / "run")
    assert torch.equal(again.means, sampler.means)
    source = sampler.sources(ABNORMAL)[0]
    one, two = (
        own.sample(source, label=1, generator=torch.Generator().manual_seed(0))
        for own in (sampler, again)
    )
    assert torch.equal(one.features, two.features)
    assert torch.equal(sampler.worker_copy().means, sampler.means)


def test_means_that_are_lacking_are_missed(sampler, tmp_path):
    vae = MultiTaskVAE(VAEConfig(feature_dim=5, hidden_dims=(4,), latent_dim=2))
    recipe = Recipe.named("mean-shift")
    for means in (None, torch.zeros(2, 4)):
        with pytest.raises(ValueError, match=r"class means: expected \(2, 5\)"):
            PseudoVideoSampler(vae, recipe=recipe, means=means)
    sampler.means = None
    sampler.save_pretrained(tmp_path / "run")
    with pytest.raises(CheckpointError, match="class means"):
        PseudoVideoSampler.from_pretrained(tmp_path / "run")


def test_a_check_has_no_gates_of_a_model_that_is_not_there(sampler, few_draws):
    found = check_sampler(*refit_on_part(sampler))
    assert list(found.gates) == ["pseudo abnormal videos", "pseudo normal videos"]


def test_it_is_refreshed_by_scores(sampler):
    before = sampler.means.clone()
    sampler.refresh(lambda video: video.mean(axis=(0, 2)), guard=False)
    assert not torch.equal(sampler.means, before)
    assert sampler.history == []
