"""Refreshing: a new selection by a host's scores, trained on, and taken if it helps."""

import numpy as np
import pytest
import torch

from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.feed import Feed
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.refreshing import Quality, is_worse

QUICK = {
    "recipe": "paper",
    "hidden_dims": (32,),
    "latent_dim": 4,
    "epochs": 15,
    "lr": 0.01,
    "batching": "mixed",
    "batch_size": 64,
    "steps_per_epoch": 5,
    "alpha": 0.1,
    "baseline_epochs": 20,
    "baseline_hidden_dims": (8,),
    "baseline_lr": 0.01,
    "top_share": 0.5,
    "normal_quantile": 0.9,
    "progress": False,
}


def early(video):
    """Wrong: the first half of an abnormal video is normal."""
    return np.linspace(1, 0, video.shape[1])


def right(video):
    return video.mean(axis=(0, 2))


def noise(video):
    return np.random.default_rng(video.shape[1]).random(video.shape[1])


def fit(many_videos, scores, **choices):
    return PseudoVideoSampler.fit(*many_videos, scores=scores, **{**QUICK, **choices})


def draw(sampler, label=1):
    return sampler.draw(label=label, generator=make_generator(5)).features


def state(sampler):
    return sampler.fingerprint(), len(sampler.history), dict(sampler.selection)


def test_a_better_selection_is_taken_and_trained_on(many_videos):
    sampler = fit(many_videos, early)
    old = state(sampler)
    found = sampler.refresh(right, epochs=20)
    assert found.accepted
    assert set(found.before) == set(found.after) == {0, 1}
    assert found.after[1].distance < found.before[1].distance / 2
    assert found.after[1].contrast > found.before[1].contrast
    assert found.selection == sampler.selection != old[2]
    # The highest half of each abnormal video, which is its second one.
    assert found.selection["selected_per_video"] == [
        v.shape[1] - v.shape[1] // 2 for v in many_videos[1]
    ]
    assert len(sampler.history) == 35
    assert sampler.fingerprint() != old[0]
    assert sampler.recipe.selection == "threshold"  # what fit would do again
    assert sampler.recipe.epochs == 15


def test_what_gets_worse_is_not_taken(many_videos):
    sampler = fit(many_videos, right, selection="ranked", epochs=20)
    old, features = state(sampler), draw(sampler)
    found = sampler.refresh(noise, epochs=20)
    assert not found.accepted
    assert found.after[1].contrast < found.before[1].contrast
    assert state(sampler) == old
    assert torch.equal(draw(sampler), features)
    assert sampler.refresh(noise, epochs=1, guard=False).accepted
    assert sampler.fingerprint() != old[0]


def test_a_round_that_diverges_leaves_the_sampler(many_videos, monkeypatch):
    sampler = fit(many_videos, right, epochs=2)
    old = state(sampler)

    def fail(*arguments, **options):
        raise FloatingPointError("diverged")

    monkeypatch.setattr("vad_pseudoaug.refreshing.train_vae", fail)
    with pytest.raises(FloatingPointError):
        sampler.refresh(right)
    assert state(sampler) == old


def test_all_that_was_learned_is_learned_anew(many_videos, tmp_path):
    sampler = fit(
        many_videos,
        early,
        epochs=3,
        variance="fitted",
        standardise=True,
        translation="graft",
        norms="matched",
        candidates=2,
    )
    old = sampler.worker_copy()
    assert sampler.refresh(right, epochs=2, guard=False).accepted
    assert not torch.equal(sampler.vae.log_sigma, old.vae.log_sigma)
    assert torch.equal(sampler.vae.feature_mean, old.vae.feature_mean)
    assert sampler.banks[1].runs.mean() > old.banks[1].runs.mean() + 0.3
    assert sampler.profile.real_norms[1] != old.profile.real_norms[1]
    assert sampler.profile.generated_norms != old.profile.generated_norms
    assert sampler.scorer is not None
    assert not sampler.vae.training
    sampler.save_pretrained(tmp_path)
    again = PseudoVideoSampler.from_pretrained(
        tmp_path, normal=many_videos[0], abnormal=many_videos[1]
    )
    assert torch.equal(draw(again), draw(sampler))
    # What was handed out before is as it was.
    assert old.fingerprint() != sampler.fingerprint()


def test_rounds_repeat_and_differ(many_videos):
    first, second = (fit(many_videos, right, epochs=2) for _ in range(2))
    prints = []
    for sampler in (first, second):
        rounds = []
        for _ in range(2):
            sampler.refresh(right, epochs=1, guard=False)
            rounds.append(sampler.fingerprint())
        prints.append(rounds)
    assert prints[0] == prints[1]
    assert prints[0][0] != prints[0][1]
    drawn = first.draw(2, label=1)
    first.refresh(right, epochs=1, guard=False)
    assert not torch.equal(first.draw(2, label=1).pseudo_mask, drawn.pseudo_mask)


def test_what_has_trained_is_not_held_out(many_videos, monkeypatch):
    """Nor the other way round, whatever is selected."""
    splits, original = [], Feed.__init__

    def watch(self, *arguments):
        original(self, *arguments)
        splits.append((self._videos, self._held_out))

    monkeypatch.setattr(Feed, "__init__", watch)

    normal, abnormal = ([right(video) for video in own] for own in many_videos)
    for number in (0, 3, 6):
        abnormal[number] = np.zeros_like(abnormal[number])
    sampler = fit(many_videos, right, epochs=2, validation_share=0.3, seed=2)
    sampler.refresh((normal, abnormal), epochs=1, guard=False)
    sampler.refresh(right, epochs=1, guard=False)
    first, second, third = splits
    assert [len(own) for own in (*first[0], *first[1])] == [7, 7, 3, 3]
    assert second[0][0] == first[0][0]
    assert second[1][0] == first[1][0]
    assert len(second[0][1]) + len(second[1][1]) == 7
    for label in (0, 1):
        trained, held_out = (
            [set(split[part][label]) for split in splits] for part in (0, 1)
        )
        assert not set.union(*trained) & set.union(*held_out)
    assert third == first


def test_a_round_draws_what_the_fit_did_not(many_videos, monkeypatch):
    """The very same videos, but neither their order nor their noise."""
    noise, original = [], Feed._plan

    def watch(self, *arguments):
        plan = original(self, *arguments)
        noise.append(plan.noise[0])
        return plan

    monkeypatch.setattr(Feed, "_plan", watch)
    sampler = fit(many_videos, right, epochs=1, validation_share=0.3, seed=2)
    sampler.refresh(right, epochs=1, guard=False)
    half = len(noise) // 2
    for first, second in zip(noise[:half], noise[half:], strict=True):
        assert not torch.equal(first, second)


def test_scores_may_be_pairs_and_must_fit(many_videos):
    sampler = fit(many_videos, right, epochs=1)
    pairs = tuple([right(video) for video in own] for own in many_videos)
    assert sampler.refresh(pairs, epochs=1).selection["num_selected"] > 0
    with pytest.raises(ValueError, match="expected those of 10 normal videos"):
        sampler.refresh(([], []))
    with pytest.raises(ValueError, match="lower normal_quantile"):
        sampler.refresh(lambda video: np.zeros(video.shape[1]))
    alone = PseudoVideoSampler(sampler.vae, normal=many_videos[0])
    with pytest.raises(ValueError, match="no abnormal videos"):
        alone.refresh(right)


def test_worse_is_farther_off_or_with_less_contrast():
    good = {1: Quality(spread=1.0, norm=1.0, distance=0.1, contrast=2.0)}
    assert good[1].off == pytest.approx(0.1)
    for changes, worse in (
        ({}, False),
        ({"spread": 0.95}, False),
        ({"spread": 0.5}, True),
        ({"norm": 2.0}, True),
        ({"distance": 0.3}, True),
        ({"contrast": 1.9}, False),
        ({"contrast": 1.0}, True),
        ({"distance": float("nan")}, True),
        ({"spread": 0.0}, True),
    ):
        assert is_worse(good, {1: good[1]._replace(**changes)}) is worse
