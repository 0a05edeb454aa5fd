"""Pseudo videos of every recipe: one contract, and what each choice makes of them."""

import itertools

import numpy as np
import pytest
import torch

from vad_pseudoaug import PseudoVideoSampler, generation
from vad_pseudoaug.bank import Bank
from vad_pseudoaug.generation import translate_rows
from vad_pseudoaug.profile import FeatureProfile
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.recipe import Recipe

QUICK = {
    "recipe": "paper",
    "hidden_dims": (16,),
    "latent_dim": 4,
    "epochs": 2,
    "steps_per_epoch": 3,
    "batch_size": 16,
    "baseline_epochs": 30,
    "baseline_hidden_dims": (8,),
    "baseline_lr": 0.01,
    "folds": 2,
    "normal_quantile": 0.8,
}
SINK = {
    "baseline_pooling": "top",
    "selection": "ranked",
    "min_run": 2,
    "weighting": "score",
    "shared_trunk": True,
    "standardise": True,
    "variance": "fitted",
    "free_bits": 0.1,
    "kl_warmup": 0.5,
    "schedule": "cosine",
    "validation_share": 0.3,
    "share": 0.4,
    "share_spread": 0.2,
    "placement": "run",
    "taper": 1,
    "translation": "residual",
    "temperature": 0.8,
    "noise": "correlated",
    "norms": "matched",
    "scope": "suspicious",
    "candidates": 3,
}
RECIPES = {
    "paper": {"recipe": "paper"},
    "robust": {"recipe": "robust"},
    "mean-shift": {"recipe": "mean-shift"},
    "one-class": {"recipe": "one-class"},
    "kitchen sink": SINK,
    "grafts": {"translation": "graft", "norms": "matched", "taper": 2},
    "one-class, matched": {"recipe": "one-class", "norms": "matched", "share": 0.7},
}


def fit(videos, **choices):
    normal, abnormal = videos
    alone = choices.get("recipe") == "one-class"
    choices = {**QUICK, "progress": False, **choices}
    return PseudoVideoSampler.fit(normal, None if alone else abnormal, **choices)


@pytest.fixture(scope="module", params=RECIPES.values(), ids=RECIPES.keys())
def fitted(request, many_videos):
    return fit(many_videos, **request.param)


def padded_batch():
    batch = torch.rand(5, 2, 9, 12, generator=make_generator(0)) + 1
    lengths = torch.tensor([9, 3, 5, 9, 1])
    for video, length in zip(batch, lengths.tolist(), strict=True):
        video[:, length:] = 0
    return batch, lengths


@pytest.mark.parametrize("label", [0, 1])
def test_one_seed_one_result_on_any_batch_split(fitted, label):
    batch, lengths = padded_batch()
    whole = fitted.sample(
        batch, label=label, generator=make_generator(9), lengths=lengths
    )
    for splits in (((0, 2), (2, 3), (3, 5)), tuple((i, i + 1) for i in range(5))):
        generator = make_generator(9)
        for start, end in splits:
            part = fitted.sample(
                batch[start:end],
                label=label,
                generator=generator,
                lengths=lengths[start:end],
            )
            assert torch.equal(part.pseudo_mask, whole.pseudo_mask[start:end])
            torch.testing.assert_close(part.features, whole.features[start:end])
    other = fitted.sample(
        batch, label=label, generator=make_generator(8), lengths=lengths
    )
    if (fitted.recipe.translation, label) != ("shift", 0):  # nothing is drawn there
        assert not torch.equal(other.features, whole.features)


@pytest.mark.parametrize("label", [0, 1])
def test_only_what_the_mask_says_is_changed(fitted, label):
    batch, lengths = padded_batch()
    pseudo = fitted.sample(batch, label=label, lengths=lengths)
    changed = (pseudo.features != batch).any(dim=-1).any(dim=1)
    assert not (changed & ~pseudo.pseudo_mask).any()
    assert changed.any(dim=1).all()  # a pseudo video is never its source
    assert pseudo.features.isfinite().all()
    assert pseudo.features.min() >= 0
    assert not pseudo.features[1, :, 3:].any()
    if fitted.recipe.translation != "disturb":
        assert torch.equal(changed, pseudo.pseudo_mask)


@pytest.mark.parametrize("label", [0, 1])
def test_a_sampler_survives_saving(fitted, label, tmp_path, many_videos):
    fitted.save_pretrained(tmp_path)
    again = PseudoVideoSampler.from_pretrained(
        tmp_path, normal=many_videos[0], abnormal=many_videos[1]
    )
    assert again.recipe == fitted.recipe
    assert again.profile == fitted.profile
    assert again.fingerprint() == fitted.fingerprint()
    batch, lengths = padded_batch()
    made = [
        one.sample(batch, label=label, generator=make_generator(1), lengths=lengths)
        for one in (fitted, again, again.worker_copy())
    ]
    assert torch.equal(made[0].features, made[1].features)
    assert torch.equal(made[0].features, made[2].features)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("crops", [1, 2, 3])
def test_equal_crops_stay_equal(fitted, label, crops):
    if fitted.banks and crops > 1:
        # Real crops of a run differ: make them equal too.
        banks = {
            own: Bank(bank.runs[:, :1].expand_as(bank.runs), bank.lengths)
            for own, bank in fitted.banks.items()
        }
        fitted = PseudoVideoSampler(
            fitted.vae,
            recipe=fitted.recipe,
            profile=fitted.profile,
            scorer=fitted.scorer,
            banks=banks,
        )
    one = torch.rand(1, 8, 12, generator=make_generator(0)) + 1
    for seed in range(6):
        made = fitted.sample(
            one.expand(crops, -1, -1), label=label, generator=make_generator(seed)
        )
        for crop in made.features:
            torch.testing.assert_close(crop, made.features[0])


def by(sampler, profile=None, **choices):
    return PseudoVideoSampler(
        sampler.vae,
        recipe=Recipe.named(sampler.recipe, **choices),
        profile=profile or FeatureProfile(),
        scorer=sampler.scorer,
        banks=sampler.banks,
    )


def test_a_residual_is_the_source_and_the_difference_of_the_decoders(sampler):
    own = by(sampler, translation="residual", min_strength=0.7, max_strength=0.7)
    source = torch.rand(1, 6, 12)
    made = own.sample(source, label=0, generator=make_generator(2))
    noise = torch.randn(1, 6, 4, generator=make_generator(2))[0]
    mean, log_var = own.vae.encode(source[0])
    z = mean + (log_var / 2).exp() * noise
    expected = source[0] + 0.7 * (own.vae.decode(z, 0) - own.vae.decode(z, 1))
    torch.testing.assert_close(made.features[0], expected)


def test_a_graft_is_a_real_run_and_what_the_noise_does_to_its_own_decoder(sampler):
    run, noise, strength = torch.rand(6, 12), torch.randn(6, 4), torch.rand(6)
    bank = Bank(run[None, None], torch.tensor([6]))
    own = PseudoVideoSampler(
        sampler.vae,
        recipe=Recipe.named("robust", translation="graft"),
        banks={0: bank, 1: bank},
    )
    mean, log_var = own.vae.encode(run)
    z = mean + (log_var / 2).exp() * noise
    for label in (0, 1):
        change = own.vae.decode(z, label) - own.vae.decode(mean, label)
        found = own._translate(run, noise, strength, label)
        torch.testing.assert_close(found, run + strength[:, None] * change)


def test_the_noise_of_a_maker_has_the_correlation_of_its_profile(sampler):
    own = by(sampler, FeatureProfile(correlation=0.9), noise="correlated", share=1.0)
    noise = own._plan(4000, (), 1, make_generator(0)).noise[0]
    lag = (noise[1:] * noise[:-1]).mean() / noise.square().mean()
    assert lag.item() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("strength", [None, 0.7])
@pytest.mark.parametrize("most", [7, 10, 19])
def test_many_rows_go_through_the_network_in_parts(vae, monkeypatch, strength, most):
    rows, noise = torch.rand(20, 12), torch.randn(20, 4)  # moved to the model's dtype
    vae = vae.double()
    options = {"strength": strength and torch.linspace(0, strength, 20)}
    with torch.no_grad():
        whole = translate_rows(vae, rows, noise, 1, **options)
        monkeypatch.setattr(generation, "CHUNK_ROWS", most)
        parts = translate_rows(vae, rows, noise, 1, **options)
    torch.testing.assert_close(parts, whole)


def test_faded_snippets_lie_between_source_and_what_is_made(sampler):
    source = torch.rand(2, 10, 12)
    options = {"placement": "run", "share": 0.6}
    sharp, soft = (
        by(sampler, **options, taper=taper).sample(
            source, label=1, generator=make_generator(3)
        )
        for taper in (0, 2)
    )
    assert torch.equal(sharp.pseudo_mask, soft.pseudo_mask)
    where = sharp.pseudo_mask
    weight = torch.tensor([1, 2, 3, 3, 2, 1])[:, None] / 3
    expected = source[:, where] + weight * (sharp.features - source)[:, where]
    torch.testing.assert_close(soft.features[:, where], expected)


def test_matched_norms_spread_as_real_ones(many_videos):
    free = fit(many_videos, seed=3)
    matched = fit(many_videos, seed=3, norms="matched")
    for label, (videos, masks) in enumerate(
        ((many_videos[0], None), (many_videos[1], 1))
    ):
        assert (matched.profile.real_norms[label] != ()) is True
        real = np.array(matched.profile.real_norms[label])
        if masks is None:
            norms = np.concatenate([np.linalg.norm(v, axis=-1).ravel() for v in videos])
            np.testing.assert_allclose(
                real, np.quantile(norms, np.linspace(0, 1, 101)), rtol=1e-5
            )

        def quantiles(sampler, label=label):
            found = []
            for seed in range(4):
                made = sampler.draw(label=label, generator=make_generator(seed))
                found += [
                    one.features[:, one.pseudo_mask].norm(dim=-1).flatten()
                    for one in made.unbind()
                ]
            return np.quantile(torch.cat(found), np.linspace(0, 1, 101))

        off = np.abs(quantiles(free) - real).mean()
        assert np.abs(quantiles(matched) - real).mean() < off / 4
    rows = torch.rand(20, 12) + 1
    scaled = matched.profile.match_norms(rows, 1)
    cosines = torch.nn.functional.cosine_similarity(rows, scaled)
    torch.testing.assert_close(cosines, torch.ones(20))


def test_pseudo_normal_videos_replace_what_is_suspicious(many_videos):
    sampler = fit(many_videos, scope="suspicious")
    for video in many_videos[1]:
        source = torch.from_numpy(video)
        scores = sampler.scorer(source).mean(dim=0)
        made = sampler.sample(source, label=0)
        above = scores > sampler.profile.suspicious
        assert made.pseudo_mask.any()
        assert torch.equal(made.pseudo_mask, above | (scores == scores.max()))
    scores = np.concatenate(sampler.scorer.score(many_videos[0]))
    share = (scores <= sampler.profile.suspicious).mean()
    assert share == pytest.approx(0.75, abs=0.02)
    calm = PseudoVideoSampler(
        sampler.vae,
        recipe=sampler.recipe,
        scorer=sampler.scorer,
        profile=FeatureProfile(suspicious=2.0),
    )
    assert calm.sample(source, label=0).pseudo_mask.sum() == 1


@pytest.fixture(scope="module")
def of_means(many_videos, tmp_path_factory):
    """A sampler that scores means of crops, as fitted, read again, and as in a worker.

    Beside them abnormal videos, whose crops differ.
    """
    rng = np.random.default_rng(0)
    noisy = [
        [np.repeat(v, 3, axis=0) + rng.normal(0, 2, (6, *v.shape[1:])) for v in own]
        for own in many_videos
    ]
    sampler = fit(
        noisy, baseline_crops="mean", scope="suspicious", norms="free", candidates=4
    )
    folder = tmp_path_factory.mktemp("run")
    sampler.save_pretrained(folder)
    again = PseudoVideoSampler.from_pretrained(folder)
    return [sampler, again, again.worker_copy()], noisy[1]


def test_what_is_suspicious_is_told_by_the_mean_of_crops(of_means):
    """As the limit was: by the scores of `Baseline.score`."""
    samplers, videos = of_means
    by_crops = 0
    for video, scores in zip(videos, samplers[0].scorer.score(videos), strict=True):
        expected = (scores > samplers[0].profile.suspicious) | (scores == scores.max())
        source = torch.from_numpy(video).float()
        for sampler in samplers:
            made = sampler.sample(source, label=0, generator=make_generator(0))
            assert made.pseudo_mask.tolist() == expected.tolist()
        scores = sampler.scorer(source).mean(dim=0)
        found = (scores > sampler.profile.suspicious) | (scores == scores.max())
        by_crops += found.tolist() != expected.tolist()
    assert by_crops  # it would be another mask


@pytest.mark.parametrize("label", [0, 1])
def test_the_likeliest_candidate_is_told_by_the_mean_of_crops(of_means, label):
    samplers, videos = of_means
    for sampler, video in itertools.product(samplers, videos):
        own = by(sampler, sampler.profile, temperature=3.0, scope="all")
        alone = by(own, own.profile, candidates=1)
        source = torch.from_numpy(video).float()
        made = own.sample(source, label=label, generator=make_generator(1))
        # The candidates, one after the other, by the same draws.
        plan = own._plan(source.shape[1], [source], label, make_generator(1))
        rows = source.transpose(0, 1)[plan.where]  # (M, N, D)
        plans = [plan._replace(noise=noise[None]) for noise in plan.noise]
        with torch.no_grad():
            scores = torch.stack(
                [
                    own.scorer(alone._generate(rows, rows, [one], label).mean(dim=1))
                    for one in plans
                ]
            )
            found = own.scorer(made.features[:, plan.where].mean(dim=0))
        best = scores.amax(dim=0) if label == 1 else scores.amin(dim=0)
        torch.testing.assert_close(found, best)


@pytest.mark.parametrize("label", [0, 1])
def test_the_likeliest_of_several_candidates_is_taken(many_videos, label):
    sampler = fit(many_videos, candidates=8)
    source = torch.rand(20, 2, 8, 12) + 1
    means, calm = [], FeatureProfile(suspicious=2.0)
    for count in (1, 2, 8):
        own = by(sampler, calm, candidates=count, temperature=3.0)
        made = own.sample(source, label=label, generator=make_generator(0))
        assert label == 1 or made.pseudo_mask.all()  # scope "all": scored, yet all
        rows = made.features.transpose(1, 2)[made.pseudo_mask]
        means.append(own.scorer(rows).mean().item())
    assert means == sorted(means, reverse=label == 0)
    assert abs(means[2] - means[0]) > 0.001
