"""What real features look like: measured, saved, held to by generated ones."""

import json

import numpy as np
import pytest
import torch

from vad_pseudoaug import (
    CheckpointError,
    MultiTaskVAE,
    PseudoVideoSampler,
    VAEConfig,
    VideoSet,
)
from vad_pseudoaug.profile import (
    FeatureProfile,
    _thin,
    feature_moments,
    measure_profile,
)
from vad_pseudoaug.selection import Selection

PLACES = np.linspace(0, 1, 101)


@pytest.fixture
def measured(vae, videos):
    masks = tuple(np.arange(v.shape[1]) < 2 for v in videos[1])
    sets = [VideoSet(own) for own in videos]
    return measure_profile(vae, *sets, Selection(masks, ()))


def test_norms_are_those_of_normal_and_of_selected_snippets(measured, videos):
    for table, own in zip(
        measured.real_norms, (videos[0], [v[:, :2] for v in videos[1]]), strict=True
    ):
        norms = np.concatenate([np.linalg.norm(v, axis=-1).ravel() for v in own])
        np.testing.assert_allclose(table, np.quantile(norms, PLACES), rtol=1e-6)
    assert measured.non_negative
    assert not measured.unit_norm
    assert measured.generated_norms == ()


def test_of_no_abnormal_videos_their_norms_are_unknown(vae, videos):
    found = measure_profile(vae, VideoSet(videos[0]), None, Selection((), ()))
    assert len(found.real_norms[0]) == 101
    assert found.real_norms[1] == ()


def test_signs_and_unit_norms_are_found(vae, videos):
    unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in videos[0]]
    assert measure_profile(vae, VideoSet(unit), None, Selection((), ())).unit_norm
    unit[-1][0, 0, 0] *= -1
    found = measure_profile(vae, VideoSet(unit), None, Selection((), ()))
    assert found.unit_norm
    assert not found.non_negative


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_the_correlation_is_that_of_latent_means(rho):
    # One latent unit that is the first feature.
    vae = MultiTaskVAE(VAEConfig(2, (), 1))
    with torch.no_grad():
        vae.mean_head.weight.copy_(torch.tensor([[1.0, 0.0]]))
    rng = np.random.default_rng(0)
    walk = [0.0]
    for step in rng.standard_normal(4000):
        walk.append(rho * walk[-1] + (1 - rho**2) ** 0.5 * step)
    video = np.stack([walk, rng.standard_normal(4001)], axis=1)[None]
    found = measure_profile(
        vae, VideoSet([video.astype(np.float32)]), None, Selection((), ())
    )
    assert found.correlation == pytest.approx(rho, abs=0.05)


def test_short_and_still_videos_have_no_correlation(vae):
    short = [np.random.default_rng(0).random((1, 3, 12), dtype=np.float32)]
    still = [np.ones((1, 9, 12), np.float32)]
    for own in (short, still):
        found = measure_profile(vae, VideoSet(own), None, Selection((), ()))
        assert found.correlation == 0


def test_matching_maps_quantiles_to_quantiles():
    generated, real = np.linspace(1, 2, 101), np.linspace(10, 30, 101)
    profile = FeatureProfile(
        real_norms=(tuple(real), ()), generated_norms=(tuple(generated), ())
    )
    rows = torch.eye(4) * torch.tensor([1.0, 1.25, 2.0, 5.0])[:, None]
    norms = profile.match_norms(rows, 0).norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([10.0, 15.0, 30.0, 30.0]))
    assert torch.equal(profile.match_norms(rows, 1), rows)  # unknown
    assert not profile.match_norms(torch.zeros(1, 4), 0).any()


def test_moments_are_of_all_snippets(videos):
    mean, scale = feature_moments(VideoSet(videos[0]))
    rows = np.concatenate([v.reshape(-1, 12) for v in videos[0]]).astype(np.float64)
    np.testing.assert_allclose(mean, rows.mean(axis=0))
    assert scale == pytest.approx(rows.var(axis=0).mean() ** 0.5)


def test_a_profile_survives_json_and_refuses_what_is_none(measured):
    saved = json.loads(json.dumps(measured.to_dict()))
    assert FeatureProfile.from_dict(saved) == measured
    table = list(range(101))
    for changes in (
        {"real_norms": [[1.0, 2.0]]},
        {"real_norms": [table]},
        {"real_norms": [], "generated_norms": [table, table]},
        {"generated_norms": 3},
        {"real_norms": [["a"] * 101, table]},
        {"colour": 1},
    ):
        with pytest.raises(CheckpointError, match="the checkpoint's 'profile'"):
            FeatureProfile.from_dict({**saved, **changes})
    del saved["real_norms"]
    with pytest.raises(CheckpointError, match="the checkpoint's 'profile'"):
        FeatureProfile.from_dict(saved)


def test_a_long_video_counts_for_no_more_and_no_less_than_its_bound():
    for length in (1, 999, 1000, 1001, 1999, 5000):
        thin = _thin(np.arange(length))
        assert len(thin) == min(length, 1000)
        assert thin[0] == 0
        assert thin[-1] == length - 1
    assert len(_thin(np.zeros(0))) == 0


def test_a_norm_as_the_last_feature_is_found_and_kept(many_videos, small):
    """As MGFN's items have it, `fit` being given the host's datasets."""

    def with_norm(videos):
        norms = [np.linalg.norm(v, axis=-1, keepdims=True) for v in videos]
        return [np.concatenate(own, axis=-1) for own in zip(videos, norms, strict=True)]

    for recipe in ("paper", "robust", "mean-shift"):
        choices = {**small, "recipe": recipe, "normal_quantile": 0.5}
        sampler = PseudoVideoSampler.fit(*map(with_norm, many_videos), **choices)
        assert sampler.profile.norm_channel
        made = sampler.draw(3, label=1).unbind()
        for one in made:
            found = one.features[..., -1]
            torch.testing.assert_close(found, one.features[..., :-1].norm(dim=-1))
    plain = PseudoVideoSampler.fit(*many_videos, **small)
    assert not plain.profile.norm_channel
