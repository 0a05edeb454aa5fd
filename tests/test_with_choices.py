"""Other choices of the same model: what a fit with them would give, untrained."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from vad_pseudoaug import PseudoVideoSampler, Recipe
from vad_pseudoaug.randomness import make_generator

MATCHED = {"selection": "ranked", "folds": 2, "normal_quantile": 0.8}
MATCHED |= {"norms": "matched", "scope": "suspicious"}
CHANGES = [
    {"share": 0.3},
    {"share_spread": 0.2},
    {"placement": "run", "noise": "correlated"},
    {"taper": 2},
    {"translation": "residual", "min_strength": 0.2, "max_strength": 2.0},
    {"translation": "graft"},
    {"temperature": 2.0},
    {"norms": "matched"},
    {"scope": "suspicious", "suspicious_quantile": 0.5},
    {"candidates": 2},
    {"per_video": 3.0, "normal_rate": 0.5, "abnormal_rate": 0.5},
]
OF_NORMAL_ALONE = {"disturbance": "course", "max_strength": 3.0}


@pytest.fixture(scope="module", params=[{}, MATCHED], ids=["paper", "matched"])
def fit(request, many_videos):
    def make(**changes):
        choices = {"recipe": "paper", "epochs": 2, "hidden_dims": (8,), "latent_dim": 2}
        choices |= {"baseline_epochs": 40, "baseline_hidden_dims": (8,)}
        choices |= {"baseline_lr": 0.01, **request.param, **changes}
        return PseudoVideoSampler.fit(*many_videos, seed=3, progress=False, **choices)

    return make


@pytest.fixture(scope="module")
def fitted(fit):
    return fit()


@pytest.mark.parametrize("changes", CHANGES, ids=lambda one: "-".join(one))
def test_it_is_what_a_fit_gives(fit, fitted, changes):
    before = fitted.fingerprint()
    made, anew = fitted.with_choices(**changes), fit(**changes)
    assert made.recipe == anew.recipe
    assert made.fingerprint() == anew.fingerprint()  # model, profile and all beside it
    assert (made.history, made.selection) == (anew.history, anew.selection)
    for label in (0, 1):
        videos = [
            one.draw(3, label=label, generator=make_generator(7)).features
            for one in (made, anew)
        ]
        assert torch.equal(*videos)
    assert fitted.fingerprint() == before
    back = made.with_choices(**{name: getattr(fitted.recipe, name) for name in changes})
    assert back.fingerprint() == before


def test_of_normal_videos_alone_it_is_what_a_fit_gives(many_videos, small):
    small = {**small, "recipe": "one-class"}
    made = PseudoVideoSampler.fit(many_videos[0], **small).with_choices(
        **OF_NORMAL_ALONE
    )
    anew = PseudoVideoSampler.fit(many_videos[0], **small, **OF_NORMAL_ALONE)
    assert made.fingerprint() == anew.fingerprint()
    videos = [
        one.draw(5, label=1, generator=make_generator(7)).features
        for one in (made, anew)
    ]
    assert torch.equal(*videos)


def test_what_a_fit_was_given_to_select_by_is_kept(fit, many_videos):
    normal, abnormal = many_videos
    scores = tuple(
        [np.linspace(0, 9, video.shape[1]) for video in videos]
        for videos in (normal, abnormal)
    )
    changes = {"scope": "suspicious", "translation": "graft"}
    made = fit(scores=scores, threshold=4.0).with_choices(**changes)
    anew = fit(scores=scores, threshold=4.0, **changes)
    assert made.fingerprint() == anew.fingerprint()


def test_every_choice_either_learns_or_makes():
    recipe = Recipe()
    tried = {name for changes in (*CHANGES, OF_NORMAL_ALONE) for name in changes}
    assert tried == set(recipe.making)
    named = {one.name for one in fields(Recipe)}
    assert set(recipe.learning) - {"abnormal", "model"} == named - tried - {"name"}


LEARNED = [name for name in Recipe().learning if name not in ("abnormal", "model")]


@pytest.mark.parametrize("name", LEARNED)
def test_what_is_learned_is_refused(fitted, name):
    now = getattr(fitted.recipe, name)
    others = {"baseline_pooling": "top", "baseline_crops": "mean", "weighting": "score"}
    others |= {"reduction": "mean", "variance": "fitted", "batching": "mixed"}
    others |= {"schedule": "cosine", "hidden_dims": (9,), "baseline_hidden_dims": (9,)}
    others["selection"] = {"ranked": "threshold", "threshold": "ranked"}[
        fitted.recipe.selection
    ]
    if name not in others:
        changed = not now if isinstance(now, bool) else now + 1
        others[name] = 0.25 if isinstance(now, float) else changed
    with pytest.raises(ValueError, match=f"depend on {name}: fit anew"):
        fitted.with_choices(share=0.3, **{name: others[name]})


@pytest.mark.parametrize("translation", ["disturb", "shift"])
def test_translations_that_learn_otherwise_are_refused(fitted, translation):
    with pytest.raises(ValueError, match="depend on translation: fit anew"):
        fitted.with_choices(translation=translation)


def test_unknown_choices_and_values_are_refused(fitted):
    with pytest.raises(TypeError, match="did you mean 'temperature'"):
        fitted.with_choices(temprature=2.0)
    with pytest.raises(ValueError, match="share: expected a value in"):
        fitted.with_choices(share=2.0)


def test_a_sampler_that_was_read_does_not_know_what_was_selected(fitted, tmp_path):
    fitted.save_pretrained(tmp_path)
    read = PseudoVideoSampler.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="not known of a sampler that was read"):
        read.with_choices(share=0.3)
    with pytest.raises(ValueError, match="not known"):  # what workers get is small
        fitted.worker_copy().with_choices(share=0.3)


def test_of_normal_videos_alone(many_videos):
    small = {"epochs": 2, "hidden_dims": (8,), "latent_dim": 2, "steps_per_epoch": 2}
    made = PseudoVideoSampler.fit(many_videos[0], **small).with_choices(share=0.2)
    anew = PseudoVideoSampler.fit(many_videos[0], share=0.2, **small)
    assert made.fingerprint() == anew.fingerprint()
