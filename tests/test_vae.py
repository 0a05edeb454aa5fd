"""The model: equations 2 to 6, routing, sizes, checkpoints."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from vad_pseudoaug import CheckpointError, MultiTaskVAE, VAEConfig
from vad_pseudoaug.losses import kl_divergence, squared_error

ARCHES = {
    # widths of table 5, and parameters for D = 2048, counted by hand: weights and
    # biases of the encoder, of the two heads, and of two decoders.
    "Arch1": ((1024, 512), 256, 8_397_824),
    "Arch2": ((1024, 512, 256), 128, 8_398_336),
    "Arch3": ((1024, 512, 512, 256), 256, 9_317_632),
}


def count_by_hand(feature_dim, hidden_dims, latent_dim):
    def layer(i, o):
        return i * o + o

    widths = [feature_dim, *hidden_dims]
    encoder = sum(layer(i, o) for i, o in itertools.pairwise(widths))
    heads = 2 * layer(widths[-1], latent_dim)
    back = [latent_dim, *reversed(hidden_dims), feature_dim]
    decoder = sum(layer(i, o) for i, o in itertools.pairwise(back))
    return encoder + heads + 2 * decoder


@pytest.mark.parametrize(("hidden_dims", "latent_dim", "count"), ARCHES.values())
def test_parameter_counts_of_table_5(hidden_dims, latent_dim, count):
    config = VAEConfig(2048, hidden_dims=hidden_dims, latent_dim=latent_dim)
    model = MultiTaskVAE(config, device="meta")
    assert count == count_by_hand(2048, hidden_dims, latent_dim)
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_paper_counts_18_layers():
    # Three linear layers and three activations in each of encoder and two decoders,
    # see docs/paper.md. Here the encoder's last layer has two heads, and neither the
    # latent code nor the features go through an activation.
    model = MultiTaskVAE(VAEConfig(2048), device="meta")
    linear = sum(isinstance(m, nn.Linear) for m in model.modules())
    relu = sum(isinstance(m, nn.ReLU) for m in model.modules())
    assert (linear, relu) == (10, 6)
    assert (linear - 1) + relu + 3 == 18


def test_equation_2_squared_error():
    rng = np.random.default_rng(0)
    x, y = rng.random((4, 7)), rng.random((4, 7))
    by_hand = [sum((a - b) ** 2 for a, b in zip(*p, strict=True)) for p in zip(x, y)]  # noqa: B905
    ours = squared_error(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(ours.numpy(), by_hand)
    mean = squared_error(torch.tensor(x), torch.tensor(y), "mean")
    np.testing.assert_allclose(mean.numpy(), np.array(by_hand) / 7)


def test_equation_3_kl_against_monte_carlo():
    rng = np.random.default_rng(0)
    mean, log_var = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    deviation = np.exp(log_var / 2)
    draws = rng.normal(mean, deviation, size=(400_000, 3, 2))
    ratio = stats.norm.logpdf(draws, mean, deviation) - stats.norm.logpdf(draws)
    estimate = ratio.sum(axis=2)
    error = 5 * estimate.std(axis=0) / math.sqrt(len(draws))
    ours = kl_divergence(torch.tensor(mean), torch.tensor(log_var)).numpy()
    assert (np.abs(ours - estimate.mean(axis=0)) < error).all()


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("labels", [[0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0]])
def test_equations_4_to_6_row_by_row(reduction, labels):
    config = VAEConfig(7, (5,), 3, alpha=0.3, reduction=reduction)
    model = MultiTaskVAE(config, seed=2, dtype=torch.float64)
    features = torch.rand(6, 7, dtype=torch.float64)
    labels = torch.tensor(labels)
    loss = model.loss(features, labels, generator=torch.Generator().manual_seed(3))

    noise = torch.randn(
        6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    errors, divergences = {0: [], 1: []}, {0: [], 1: []}
    for row, label, shift in zip(features, labels.tolist(), noise, strict=True):
        mean, log_var = model.encode(row[None])
        z = mean + torch.exp(log_var / 2) * shift
        difference = (row - model.decoders[label](z)[0]) ** 2
        errors[label].append(difference.sum() / (7 if reduction == "mean" else 1))
        gaussian = torch.distributions.Normal(mean, torch.exp(log_var / 2))
        unit = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
        divergences[label].append(
            torch.distributions.kl_divergence(gaussian, unit).sum()
        )
    r_normal, r_abnormal = (torch.stack(errors[k]).mean() for k in (0, 1))
    kl_normal, kl_abnormal = (torch.stack(divergences[k]).mean() for k in (0, 1))
    expected = r_normal + r_abnormal + 0.3 * (kl_normal + kl_abnormal)
    for ours, theirs in zip(
        loss, (expected, r_normal, r_abnormal, kl_normal, kl_abnormal), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_the_gradient_is_that_of_the_loss():
    model = MultiTaskVAE(VAEConfig(4, (3,), 2), seed=0, dtype=torch.float64)
    features, labels = torch.rand(5, 4, dtype=torch.float64), torch.arange(5) % 2

    def total(*parameters):
        named = dict(zip(dict(model.named_parameters()), parameters, strict=True))
        generator = torch.Generator().manual_seed(0)

        class Loss(nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self):
                return self.model.loss(features, labels, generator=generator).total

        prefixed = {f"model.{k}": v for k, v in named.items()}
        return torch.func.functional_call(Loss(), prefixed, ())

    parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(total, parameters)


@pytest.mark.parametrize(
    ("reduction", "variance"), [("sum", 0.05), ("mean", 0.05 * 2048)]
)
def test_alpha_is_twice_the_decoder_variance(reduction, variance):
    # -log N(x; y, v) + KL, times 2v, is the joint loss up to a constant.
    config = VAEConfig(2048, alpha=0.1, reduction=reduction)
    assert config.decoder_variance == pytest.approx(variance)
    scale = 2048 if reduction == "mean" else 1
    error, kl = 3.7, 11.0
    negative_bound = error / (2 * variance) + kl
    joint = error / scale + 0.1 * kl
    assert negative_bound * 2 * variance / scale == pytest.approx(joint)


def test_each_class_trains_its_own_decoder_only(vae):
    features = torch.rand(4, 12)
    labels = torch.zeros(4, dtype=torch.int64)
    vae.loss(features, labels, generator=torch.Generator()).total.backward()
    assert all(p.grad is None for p in vae.decoders[1].parameters())
    assert all(p.grad.abs().sum() > 0 for p in vae.decoders[0].parameters())


def test_the_noise_may_be_given_in_place_of_a_generator(vae):
    features, labels = torch.rand(5, 12), torch.tensor([1, 0, 1, 1, 0])
    noise = torch.randn(5, 4, generator=torch.Generator().manual_seed(5))
    given = vae.loss(features, labels, noise=noise)
    drawn = vae.loss(features, labels, generator=torch.Generator().manual_seed(5))
    assert torch.equal(given.total, drawn.total)
    for options in ({}, {"noise": noise, "generator": torch.Generator()}):
        with pytest.raises(TypeError, match="either a generator or noise"):
            vae.loss(features, labels, **options)


@pytest.mark.parametrize("labels", [[1, 0], [1, 1, 0], [0, 1, 0, 1], [1], [0]])
def test_rows_come_back_in_the_order_of_their_labels(vae, labels):
    features, noise = torch.rand(len(labels), 12), torch.zeros(len(labels), 4)
    found, mean, _ = vae(features, torch.tensor(labels), noise=noise)
    for row, z, label in zip(found, mean, labels, strict=True):
        torch.testing.assert_close(row, vae.decode(z[None], label)[0])


def test_translate_uses_the_decoder_of_the_other_class(vae):
    features = torch.rand(4, 12)
    mean, log_var = vae.encode(features)
    z = vae.sample_latent(mean, log_var, generator=torch.Generator().manual_seed(5))
    ours = vae.translate(features, 1, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(ours, vae.decoders[1](z))
    assert not torch.allclose(ours, vae.decoders[0](z))


def test_the_seed_alone_decides_the_weights_and_no_default_plays_a_part():
    config = VAEConfig(12, (8,), 4)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = MultiTaskVAE(config, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        second = MultiTaskVAE(config, seed=3)
    finally:
        torch.set_default_device("cpu")
        torch.set_default_dtype(torch.float32)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dtype == torch.float32
    other = MultiTaskVAE(config, seed=4)
    assert not torch.equal(first.mean_head.weight, other.mean_head.weight)


def test_weights_start_as_those_of_torch():
    model = MultiTaskVAE(VAEConfig(400, (300,), 4))
    weight = model.encoder[0].weight
    assert weight.abs().max() <= 400**-0.5
    assert weight.std().item() == pytest.approx(400**-0.5 / math.sqrt(3), rel=0.02)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_extreme_features_give_finite_losses(vae, scale):
    features = torch.rand(4, 12) * scale
    labels = torch.tensor([0, 1, 0, 1])
    loss = vae.loss(features, labels, generator=torch.Generator())
    loss.total.backward()
    assert all(term.isfinite() for term in loss)
    assert all(p.grad.isfinite().all() for p in vae.parameters())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"feature_dim": 0}, "widths"),
        ({"feature_dim": 8, "hidden_dims": (4, -1)}, "widths"),
        ({"feature_dim": 8, "latent_dim": 2.5}, "widths"),
        ({"feature_dim": 8, "alpha": -1.0}, "alpha"),
        ({"feature_dim": 8, "alpha": float("nan")}, "alpha"),
        ({"feature_dim": 8, "free_bits": float("inf")}, "free_bits"),
        ({"feature_dim": 8, "reduction": "max"}, "reduction"),
    ],
)
def test_configurations_out_of_range_are_refused(options, named):
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        VAEConfig(**options)


def test_wrong_shapes_and_labels_are_refused(vae):
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"expected \(M, 12\)"):
        vae(torch.rand(3, 11), torch.zeros(3), generator=generator)
    with pytest.raises(ValueError, match=r"expected shape \(3,\)"):
        vae(torch.rand(3, 12), torch.zeros(4), generator=generator)
    with pytest.raises(ValueError, match="0 or 1"):
        vae.decode(torch.rand(3, 4), 2)


@pytest.mark.parametrize("wrong", [-1.0, 0.5, 2.0, math.nan])
def test_labels_of_another_kind_are_refused(vae, wrong):
    labels = torch.tensor([0.0, wrong, 1.0])
    with pytest.raises(ValueError, match=f"0, normal, or 1, abnormal, got {wrong}"):
        vae.loss(torch.rand(3, 12), labels, generator=torch.Generator())


def test_checkpoint_round_trip(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    again = MultiTaskVAE.from_pretrained(tmp_path)
    assert again.config == vae.config
    for a, b in zip(vae.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_checkpoint_with_other_widths_is_refused_before_memory_is_taken(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vae"]["hidden_dims"] = [10**9]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="expected shape"):
        MultiTaskVAE.from_pretrained(tmp_path)
