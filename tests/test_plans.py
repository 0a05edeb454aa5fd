"""What is random in a pseudo video: its share, place, noise, strength and edges."""

import itertools

import numpy as np
import pytest
import torch

from vad_pseudoaug import Recipe
from vad_pseudoaug.generation import correlate, draw_plan
from vad_pseudoaug.randomness import make_generator


def plans(recipe, count, length=200, label=1, **options):
    generator = make_generator(0)
    options = {"latent_dim": 3, "generator": generator, **options}
    return [draw_plan(length, label, recipe, **options) for _ in range(count)]


@pytest.mark.parametrize(("mean", "spread"), [(0.3, 0.1), (0.5, 0.25), (0.8, 0.05)])
def test_the_prior_of_the_share_has_its_mean_and_spread(mean, spread):
    recipe = Recipe.named(share=mean, share_spread=spread, placement="run")
    shares = np.array([len(p.where) for p in plans(recipe, 1500, 1000)]) / 1000
    assert shares.mean() == pytest.approx(mean, abs=0.02)
    assert shares.std() == pytest.approx(spread, abs=0.01)
    assert 0 < shares.min() < shares.max() <= 1


def test_without_a_spread_the_share_is_the_recipes():
    assert {len(p.where) for p in plans(Recipe.named(share=0.3), 20)} == {60}
    extreme = Recipe.named(share=0.5, share_spread=1.0)
    lengths = [len(p.where) for p in plans(extreme, 100)]
    assert set(lengths) <= {1, 200}  # all or nothing, but for one snippet


def test_a_run_is_in_one_piece_and_anywhere():
    found = plans(Recipe.named(share=0.4, placement="run"), 500, 10)
    for plan in found:
        assert plan.where.diff().tolist() == [1, 1, 1]
    starts = np.bincount([int(p.where[0]) for p in found], minlength=7)
    assert len(starts) == 7
    assert starts.min() > 40


def test_edges_fade_at_each_end_of_each_run():
    recipe = Recipe.named(share=0.5, placement="run", taper=3)
    for plan in plans(recipe, 3, 20):
        ends = [0.25, 0.5, 0.75]
        assert plan.fade.tolist() == [*ends, 1, 1, 1, 1, *ends[::-1]]
    [short] = plans(Recipe.named(share=0.15, placement="run", taper=3), 1, 20)
    assert short.fade.tolist() == [0.25, 0.5, 0.25]
    assert set(plans(Recipe(), 1)[0].fade.tolist()) == {1.0}


@pytest.mark.parametrize(("share", "taper"), [(0.2, 1), (0.6, 2)])
def test_edges_of_scattered_snippets_by_brute_force(share, taper):
    for plan in plans(Recipe.named(share=share, taper=taper), 20, 20):
        chosen = set(plan.where.tolist())
        for place, fade in zip(plan.where.tolist(), plan.fade, strict=True):
            depth = min(
                next(k for k in itertools.count(1) if place + k * way not in chosen)
                for way in (-1, 1)
            )
            assert fade == pytest.approx(min(1, depth / (taper + 1)))


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
def test_correlated_noise_goes_on_across_gaps(rho):
    where = torch.tensor([0, 1, 2, 5, 6, 10])
    noise = torch.randn(2, 6, 20000, generator=make_generator(0))
    found = correlate(noise, where, rho)
    assert found.shape == noise.shape
    rows = found.transpose(0, 1).flatten(1).numpy()
    gaps = np.abs(np.subtract.outer(where.numpy(), where.numpy()))
    np.testing.assert_allclose(np.cov(rows), float(rho) ** gaps, atol=0.03)


def test_noise_of_a_recipe_is_correlated_and_tempered():
    recipe = Recipe.named(noise="correlated", temperature=2.0, share=1.0)
    [plan] = plans(recipe, 1, 5000, correlation=0.7)
    noise = plan.noise[0]
    assert noise.std().item() == pytest.approx(2.0, rel=0.05)
    lag = (noise[1:] * noise[:-1]).mean() / noise.square().mean()
    assert lag.item() == pytest.approx(0.7, abs=0.03)
    assert not plans(Recipe.named(temperature=0.0), 1)[0].noise.any()
    # The same draws, whatever is made of them.
    [cold], [hot] = (plans(Recipe.named(temperature=t), 1) for t in (1.0, 3.0))
    torch.testing.assert_close(3 * cold.noise, hot.noise)


@pytest.mark.parametrize("translation", ["residual", "graft", "shift", "disturb"])
def test_strength_is_one_number_a_video(translation):
    recipe = Recipe.named(translation=translation, min_strength=0.5, max_strength=2.0)
    found = plans(recipe, 300)
    values = [set(plan.strength.tolist()) for plan in found]
    assert {len(own) for own in values} == {1}
    drawn = [own.pop() for own in values]
    assert 0.5 <= min(drawn) < 0.6
    assert 1.9 < max(drawn) <= 2.0
    assert set(plans(Recipe(), 1)[0].strength.tolist()) == {1.0}


def test_only_suspicious_snippets_of_an_abnormal_video_are_replaced():
    suspicious = torch.tensor([False, True, True, False, True])
    [plan] = plans(Recipe(), 1, 5, label=0, suspicious=suspicious)
    assert plan.where.tolist() == [1, 2, 4]
    assert plan.noise.shape == (1, 3, 3)
    [whole] = plans(Recipe(), 1, 5, label=0)
    assert whole.where.tolist() == [0, 1, 2, 3, 4]
