"""Choices of loss, training and selection past the paper, each against an oracle."""

import math
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, Recipe, VAEConfig, VideoSet
from vad_pseudoaug.feed import READERS, Feed, _Plan
from vad_pseudoaug.fitting import new_vae
from vad_pseudoaug.losses import kl_by_unit, with_free_bits
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.selection import Selection, select_above, select_ranked
from vad_pseudoaug.training import learning_rate, train_vae, warm_up

NOBODY = Selection((), ())
TINY = MultiTaskVAE(VAEConfig(4, (8,), 2))


def small(**options):
    dtype = options.pop("dtype", torch.float32)
    return MultiTaskVAE(VAEConfig(6, (8,), 3, **options), seed=1, dtype=dtype)


def half_and_half(rows=40, dtype=torch.float32):
    features = torch.randn(rows, 6, generator=make_generator(3), dtype=dtype)
    return features, torch.arange(rows) % 2


def loss_of(model, **options):
    features, labels = half_and_half(dtype=model.mean_head.weight.dtype)
    return model.loss(features, labels, generator=make_generator(4), **options)


def test_the_fitted_variance_goes_to_each_decoders_error():
    model = small(variance="fitted")
    with torch.no_grad():
        for _ in range(800):
            found = loss_of(model)
    errors = torch.stack([found.reconstruction_normal, found.reconstruction_abnormal])
    fitted = (2 * model.log_sigma).exp()
    torch.testing.assert_close(fitted, errors / 6, rtol=2e-3, atol=1e-4)


def test_the_fitted_loss_is_a_gaussian_likelihood():
    model = small(variance="fitted", alpha=1.0).eval()
    model.log_sigma.copy_(torch.tensor([0.3, -0.7]))
    features, labels = half_and_half()
    made, mean, log_var = model(features, labels, generator=make_generator(4))
    expected = 0.0
    for label in (0, 1):
        own = labels == label
        sigma = math.exp(model.log_sigma[label])
        density = stats.norm.logpdf(features[own], made[own].detach(), sigma)
        constant = 3 * math.log(2 * math.pi)  # half of 6 features
        expected -= density.sum(axis=1).mean() + constant
        expected += kl_by_unit(mean, log_var)[own].sum(dim=1).mean().item()
    assert loss_of(model).total.item() == pytest.approx(expected, rel=1e-5)
    model.eval()
    assert model.log_sigma.tolist() == pytest.approx([0.3, -0.7])  # not in evaluation


@pytest.mark.parametrize("trunk", [False, True])
def test_gradients_of_the_fitted_loss_with_free_bits(trunk):
    model = small(
        variance="fitted",
        free_bits=0.05,
        standardise=True,
        shared_trunk=trunk,
        dtype=torch.float64,
    ).eval()
    model.set_standardisation(torch.linspace(-1, 1, 6, dtype=torch.float64), 2.0)
    model.log_sigma.copy_(torch.tensor([0.2, -0.3]))
    loss_of(model).total.backward()
    step = 1e-6
    for parameter in model.parameters():
        flat, slope = parameter.data.view(-1), parameter.grad.view(-1)
        for i in (0, len(flat) // 2):
            with torch.no_grad():
                values = []
                for sign in (1, -1):
                    flat[i] += sign * step
                    values.append(loss_of(model).total.item())
                    flat[i] -= sign * step
            numeric = (values[0] - values[1]) / (2 * step)
            assert slope[i].item() == pytest.approx(numeric, rel=1e-4, abs=1e-7)


def test_free_bits_leave_a_unit_below_the_limit_alone():
    mean = torch.tensor([[0.1, 2.0], [0.2, 1.0]], requires_grad=True)
    by_unit = kl_by_unit(mean, torch.zeros(2, 2))
    total = with_free_bits(by_unit.sum(dim=0), 2, 0.5)
    assert total.item() == pytest.approx(0.5 + by_unit[:, 1].mean().item())
    single = with_free_bits(by_unit[0], 1, 0.5)
    assert single.item() == pytest.approx(0.5 + by_unit[0, 1].item())
    total.backward()
    assert not mean.grad[:, 0].any()
    assert mean.grad[:, 1].all()
    assert with_free_bits(torch.zeros(2), 0, 0.5).item() == 0


@pytest.mark.parametrize("label", [0, 1])
def test_a_class_without_snippets_costs_nothing(label):
    model = small(variance="fitted", free_bits=1.0)
    features, _ = half_and_half()
    labels = torch.full((len(features),), label)
    before = model.log_sigma.clone()
    found = model.loss(features, labels, generator=make_generator(0))
    errors = (found.reconstruction_normal, found.reconstruction_abnormal)
    divergences = (found.kl_normal, found.kl_abnormal)
    assert errors[1 - label] == divergences[1 - label] == 0
    assert errors[label] > 0
    assert model.log_sigma[1 - label] == before[1 - label]
    assert model.log_sigma[label] != before[label]
    alone = small(free_bits=1.0, alpha=1.0)
    own = alone.loss(features, labels, generator=make_generator(0))
    extra = own.total.item() - own[1 + label].item()
    assert extra == pytest.approx(3)  # units, of one class


def test_the_fitted_variance_has_a_floor():
    model = small(variance="fitted")
    model.log_sigma.fill_(-20)
    model._fitted_loss([torch.zeros(()), torch.zeros(())], (1, 1))
    assert model.log_sigma.tolist() == [-6, -6]


def test_the_warm_up_rises_over_its_share_of_the_epochs():
    recipe = Recipe.named(epochs=10, kl_warmup=0.4)
    found = [warm_up(recipe, epoch) for epoch in range(10)]
    assert found == [0.25, 0.5, 0.75] + [1.0] * 7
    assert warm_up(Recipe(), 0) == 1.0
    model = small().eval()
    whole, none = loss_of(model), loss_of(model, kl_weight=0.0)
    half = loss_of(model, kl_weight=0.5)
    torch.testing.assert_close(half.total, (whole.total + none.total) / 2)
    kept = whole.reconstruction_normal + whole.reconstruction_abnormal
    torch.testing.assert_close(none.total, kept)


def test_the_cosine_falls_from_the_rate_to_a_hundredth():
    recipe = Recipe.named(schedule="cosine", epochs=9, lr=0.2)
    rates = [learning_rate(recipe, epoch) for epoch in range(9)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4] == pytest.approx(0.2 * 0.505)
    assert rates[8] == pytest.approx(0.002)
    assert rates == sorted(rates, reverse=True)


def test_the_encoder_sees_centred_features_of_unit_spread(videos, tmp_path):
    normal = [5 + 3 * video for video in videos[0]]
    recipe = Recipe.named(standardise=True, hidden_dims=(16,), latent_dim=4)
    vae = new_vae(VideoSet(normal), recipe, seed=0, device="cpu")
    seen = []
    vae.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rows = torch.from_numpy(np.concatenate([v.reshape(-1, 12) for v in normal]))
    mean, _ = vae.encode(rows)
    torch.testing.assert_close(seen[0].mean(dim=0), torch.zeros(12), atol=1e-5, rtol=0)
    assert seen[0].square().mean().item() == pytest.approx(1, rel=1e-4)
    vae.save_pretrained(tmp_path)
    again = MultiTaskVAE.from_pretrained(tmp_path)
    assert torch.equal(again.encode(rows)[0], mean)
    assert torch.equal(again.decode(mean, 1), vae.decode(mean, 1))
    with pytest.raises(ValueError, match="standardise=True"):
        small().set_standardisation(torch.zeros(6), 1.0)
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="a scale > 0"):
            small(standardise=True).set_standardisation(torch.zeros(6), scale)


def test_a_standardised_model_is_a_plain_one_of_scaled_features():
    plain, scaled = small(), small(standardise=True)
    scaled.load_state_dict(plain.state_dict(), strict=False)
    mean = torch.linspace(-1, 1, 6)
    scaled.set_standardisation(mean, 3.0)
    features = torch.randn(5, 6, generator=make_generator(0))
    for ours, theirs in zip(
        scaled.encode(3 * features + mean), plain.encode(features), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    z = torch.randn(5, 3, generator=make_generator(1))
    for label in (0, 1):
        torch.testing.assert_close(
            scaled.decode(z, label), 3 * plain.decode(z, label) + mean
        )


def test_a_shared_trunk_leaves_the_decoders_their_last_layer():
    config = VAEConfig(2048, (1024, 512), 256)
    shared = VAEConfig(2048, (1024, 512), 256, shared_trunk=True)
    counts = [
        sum(p.numel() for p in MultiTaskVAE(own, device="meta").parameters())
        for own in (config, shared)
    ]
    hidden = (256 * 512 + 512) + (512 * 1024 + 1024)
    assert counts[0] - counts[1] == hidden
    model = small(shared_trunk=True)
    z = torch.randn(4, 3, generator=make_generator(0))
    assert not torch.equal(model.decode(z, 0), model.decode(z, 1))


def train(videos, path=None, **choices):
    normal, abnormal = (VideoSet(own) for own in videos)
    selection = select_above([np.linspace(0, 1, v.shape[1]) for v in abnormal])
    model = MultiTaskVAE(VAEConfig(12, (16,), 4), seed=0)
    # Overfits: the noise of the videos cannot be learned.
    recipe = Recipe.named(**{"lr": 0.02, "lr_decay": 1.0, **choices})
    history = train_vae(
        model, normal, abnormal, selection, recipe, seed=0, state_path=path
    )
    return model, history


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


EARLY = {"epochs": 40, "validation_share": 0.25, "patience": 2}


def test_early_stopping_keeps_the_best_epoch(videos):
    model, history = train(videos, **EARLY)
    losses = [entry["validation"] for entry in history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < 40
    until, _ = train(videos, **{**EARLY, "epochs": best + 1})
    assert torch.equal(weights(model), weights(until))


def test_early_stopping_resumes_to_the_bit(videos, tmp_path, monkeypatch):
    whole, history = train(videos, **EARLY)
    path = tmp_path / "training.safetensors"
    epochs = 0
    original = Feed.epoch

    def interrupt(self, generator):
        nonlocal epochs
        epochs += 1
        if epochs == len(history):  # the best epoch is past
            raise KeyboardInterrupt
        return original(self, generator)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Feed, "epoch", interrupt)
        train(videos, path, **EARLY)
    for _ in range(2):  # resumed, and read when it is finished
        model, found = train(videos, path, **EARLY)
        assert found == history
        assert torch.equal(weights(model), weights(whole))


def test_too_few_videos_to_hold_some_out_are_refused(videos):
    with pytest.raises(ValueError, match="some to validate, in each class"):
        train(videos, epochs=1, validation_share=0.01)


def test_held_out_videos_never_train(videos):
    normal, abnormal = (VideoSet(own, name=str(i)) for i, own in enumerate(videos))
    selection = select_above([np.linspace(0, 1, v.shape[1]) for v in abnormal])
    recipe = Recipe.named(validation_share=0.25)
    feed = Feed(TINY, normal, abnormal, selection, recipe, 0)
    trained = {batch.title for batch in feed.epoch(make_generator(0))}
    held_out = {batch.title for batch in feed.held_out(make_generator(0))}
    assert len(held_out) == 4
    assert not trained & held_out
    assert len(trained | held_out) == 14


def test_a_mixed_batch_has_several_videos_of_each_class():
    # The value of a snippet is the number of its video.
    normal = [np.full((1, 30, 4), i, np.float32) for i in range(20)]
    abnormal = [np.full((1, 30, 4), 100 + i, np.float32) for i in range(3)]
    masks = tuple(np.arange(30) < 25 for _ in abnormal)
    recipe = Recipe.named(batching="mixed", batch_size=96, steps_per_epoch=7)
    sets = (VideoSet(normal), VideoSet(abnormal))
    feed = Feed(TINY, *sets, Selection(masks, ()), recipe, 0)
    batches = list(feed.epoch(make_generator(0)))
    assert len(batches) == len(feed) == 7
    for batch in batches:
        assert batch.labels.bincount().tolist() == [48, 48]
        assert ((batch.features[:, 0] >= 100) == (batch.labels == 1)).all()
        counts = [
            batch.features[batch.labels == label, 0].unique(return_counts=True)[1]
            for label in (0, 1)
        ]
        assert [own.tolist() for own in counts] == [[6] * 8, [16] * 3]
    assert len({tuple(batch.features[:, 0].tolist()) for batch in batches}) == 7


def test_soft_weights_are_frequencies():
    video = np.arange(6, dtype=np.float32)[None, :, None].repeat(2, axis=2)
    masks = (np.array([False, True, True, False, True, False]),)
    weights = (np.array([9, 1, 2, 9, 5, 9], np.float32),)
    sets = (VideoSet([video]), VideoSet([video]))
    feed = Feed(TINY, *sets, Selection(masks, (), weights), Recipe(), 0)
    generator, times = make_generator(0), np.zeros(6)
    for _ in range(1000):
        times += np.bincount(feed._draw(1, 0, 6, 3, generator), minlength=6)
    np.testing.assert_allclose(
        times / times.sum(), [0, 1 / 8, 2 / 8, 0, 5 / 8, 0], atol=0.03
    )


@pytest.mark.parametrize("batching", ["video", "mixed"])
def test_batches_that_are_read_ahead_are_the_same(
    videos, tmp_path, monkeypatch, batching
):
    sets = []
    for name, own in zip("na", videos, strict=True):
        files = [tmp_path / f"{name}{number}.npy" for number in range(len(own))]
        for file, video in zip(files, own, strict=True):
            np.save(file, video.transpose(1, 0, 2))
        sets.append(VideoSet(files))
    selection = select_above([np.linspace(0, 1, v.shape[1]) for v in sets[1]])
    recipe = Recipe.named(batching=batching, batch_size=20, steps_per_epoch=5)
    unpinned = _Plan.read  # to pin needs a GPU
    monkeypatch.setattr(_Plan, "read", lambda plan, pinned=False: unpinned(plan))

    def read(ahead):
        feed = Feed(TINY, *sets, selection, recipe, 0)
        assert not feed._reads_ahead  # as the model is on the CPU
        feed._reads_ahead = ahead
        return feed.epoch(make_generator(0))

    plain, ahead = list(read(False)), list(read(True))
    assert len(plain) == len(ahead) > 4
    for one, other in zip(plain, ahead, strict=True):
        assert one.title == other.title
        for name in ("features", "labels", "noise"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    # Stopped in the middle, or where a file is lost, no thread stays.
    batches = read(True)
    next(batches)
    batches.close()
    files[0].unlink()
    with pytest.raises(FileNotFoundError):
        list(read(True))
    assert threading.active_count() == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("batching", ["video", "mixed"])
def test_no_file_stays_mapped_while_a_batch_is_in_use(tmp_path, batching):
    files = [tmp_path / f"{number}.npy" for number in range(5)]
    for file in files:
        np.save(file, np.zeros((3, 4), np.float32))
    recipe = Recipe.named(batching=batching, steps_per_epoch=3)
    feed = Feed(TINY, VideoSet(files), None, NOBODY, recipe, 0)
    for batch in feed.epoch(make_generator(0)):
        assert len(batch.features)
        assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_no_more_batches_are_read_ahead_than_there_are_readers(tmp_path, monkeypatch):
    files = [tmp_path / f"{number}.npy" for number in range(40)]
    for file in files:
        np.save(file, np.zeros((3, 4), np.float32))
    read = []
    original = _Plan.read

    def count(plan, pinned):
        read.append(plan.title)
        return original(plan)

    monkeypatch.setattr(_Plan, "read", count)
    feed = Feed(TINY, VideoSet(files), None, NOBODY, Recipe.named(), 0)
    feed._reads_ahead = True
    for given, batch in enumerate(feed.epoch(make_generator(0)), start=1):
        time.sleep(0.01)  # what could be read is read meanwhile
        assert len(read) <= given + READERS + 1
        assert batch.features.shape == (3, 4)
    assert sorted(read) == sorted(map(str, files))


def test_ranked_snippets_are_the_highest_above_the_guard():
    normal = [np.linspace(0, 1, 101)]
    scores = [np.array([0.1, 0.97, 0.99, 0.2, 0.98, 0.3, 0.4, 0.5, 0.1, 0.1])]
    found = select_ranked(scores, normal, top_share=0.2, normal_quantile=0.95)
    assert np.flatnonzero(found.masks[0]).tolist() == [2, 4]
    guarded = select_ranked(scores, normal, top_share=0.8, normal_quantile=0.95)
    assert np.flatnonzero(guarded.masks[0]).tolist() == [1, 2, 4]
    runs = select_ranked(
        scores, normal, top_share=0.8, normal_quantile=0.95, min_run=2, weighted=True
    )
    assert np.flatnonzero(runs.masks[0]).tolist() == [1, 2]
    np.testing.assert_allclose(runs.weights[0][1:3], [0.02, 0.04], rtol=1e-5)
    assert not runs.weights[0][3:].any()
    # Where all runs are shorter, they stay; a video may have none.
    single = select_ranked([*scores, np.zeros(4)], normal, top_share=0.1, min_run=3)
    assert np.flatnonzero(single.masks[0]).tolist() == [2]
    assert single.empty == (1,)
    with pytest.raises(ValueError, match="lower normal_quantile"):
        select_ranked([np.zeros(4)], normal)


def low_then_high(video):
    """Scores that rise over a video."""
    return np.linspace(0, 1, video.shape[1])


QUICK = {
    "recipe": "paper",
    "hidden_dims": (16,),
    "latent_dim": 4,
    "epochs": 1,
    "steps_per_epoch": 2,
    "batch_size": 16,
    "baseline_epochs": 5,
    "baseline_hidden_dims": (8,),
    "progress": False,
}


@pytest.mark.parametrize("pairs", [False, True])
def test_scores_that_are_given_select(videos, pairs):
    scores = low_then_high
    if pairs:
        scores = tuple(
            [torch.from_numpy(low_then_high(v)) for v in own] for own in videos
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = PseudoVideoSampler.fit(*videos, scores=scores, **QUICK)
    expected = [int((low_then_high(v) > 0.5).sum()) for v in videos[1]]
    assert sampler.selection["selected_per_video"] == expected
    ranked = PseudoVideoSampler.fit(
        *videos,
        scores=scores,
        **QUICK,
        selection="ranked",
        top_share=0.2,
        normal_quantile=0.5,
    )
    expected = [math.ceil(0.2 * v.shape[1]) for v in videos[1]]
    assert ranked.selection["selected_per_video"] == expected


def test_whole_numbers_and_truths_are_scores_too(videos):
    sampler = PseudoVideoSampler.fit(
        *videos,
        scores=lambda video: np.arange(video.shape[1]) > 0,
        selection="ranked",
        top_share=1.0,
        normal_quantile=0.1,
        **QUICK,
    )
    expected = [v.shape[1] - 1 for v in videos[1]]
    assert sampler.selection["selected_per_video"] == expected


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda video: np.zeros(video.shape[1] + 1), r"finite values for normal\[0\]"),
        (
            lambda video: np.full(video.shape[1], np.nan),
            r"finite values for normal\[0\]",
        ),
        (lambda video: video, r"got shape \(2, "),
        (([], []), "expected those of 8 normal videos, got 0"),
        (([],), "got 1 members"),
        ({"normal": [], "abnormal": []}, "got dict"),
        (lambda video: np.full(video.shape[1], np.inf), "got inf among them"),
    ],
)
def test_scores_that_do_not_fit_are_refused(videos, scores, message):
    with pytest.raises(ValueError, match=message):
        PseudoVideoSampler.fit(*videos, scores=scores, **QUICK)


def test_scores_of_their_own_scale_do_not_say_what_is_suspicious(videos):
    def loud(video):
        return 1000 * low_then_high(video)

    sampler = PseudoVideoSampler.fit(*videos, scores=loud, scope="suspicious", **QUICK)
    assert 0 < sampler.profile.suspicious < 1


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"candidates": 2}, "the baseline, which candidates and"),
        ({"scope": "suspicious"}, "the baseline, which candidates and"),
        ({"translation": "graft"}, "'one-class' with translation='graft'"),
    ],
)
def test_one_class_has_no_scores(videos, choice, message):
    with pytest.raises(ValueError, match=f"{message}.* learns of abnormal videos"):
        PseudoVideoSampler.fit(videos[0], recipe="one-class", **choice)
    with pytest.raises(ValueError, match="a selection by scores learns of abnormal"):
        PseudoVideoSampler.fit(videos[0], scores=low_then_high)
    with pytest.raises(ValueError, match="'paper' learns of abnormal videos"):
        PseudoVideoSampler.fit(videos[0], recipe="paper")


def test_rates_of_pseudo_videos_are_shares():
    for name in ("normal_rate", "abnormal_rate"):
        with pytest.raises(ValueError, match=rf"{name}: expected a value in \[0, 1\]"):
            Recipe.named(**{name: 1.5})
    with pytest.raises(ValueError, match="one of them must be above 0"):
        Recipe.named("robust", abnormal_rate=0.0)
