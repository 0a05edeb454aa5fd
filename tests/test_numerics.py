"""Numbers at their limits: gradients, extreme features, divergence, threads."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from list_files import list_options, write_lists
from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, Recipe, VAEConfig, VideoSet
from vad_pseudoaug.checkpoint import read_tensors
from vad_pseudoaug.cli import main
from vad_pseudoaug.losses import kl_by_unit
from vad_pseudoaug.selection import Selection
from vad_pseudoaug.training import train_vae

CHOICES = [
    {},
    {"reduction": "mean", "alpha": 0.5},
    {"free_bits": 0.05},
    {"shared_trunk": True},
    {"standardise": True},
    {"variance": "fitted", "alpha": 1.0},
]
D = 6


def model(dtype=torch.float64, **choices):
    own = MultiTaskVAE(VAEConfig(D, (5,), 3, **choices), seed=1, dtype=dtype)
    if own.config.standardise:
        own.set_standardisation(torch.linspace(-1, 1, D, dtype=dtype), 1.7)
    return own


@pytest.mark.parametrize("choices", CHOICES)
def test_the_gradient_is_that_of_finite_differences(choices):
    own = model(**choices).eval()  # a fitted variance stays as it is
    features = torch.rand(7, D, dtype=torch.float64, generator=torch.manual_seed(0))
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 0])

    def total():
        generator = torch.Generator().manual_seed(3)
        return own.loss(features, labels, generator=generator, kl_weight=0.7).total

    total().backward()
    step, checked = 1e-6, 0
    rng = np.random.default_rng(0)
    for parameter in own.parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in rng.choice(len(flat), min(len(flat), 6), replace=False).tolist():
            saved, values = flat[index].item(), []
            for shift in (step, -step):
                flat[index] = saved + shift
                values.append(total().item())
            flat[index] = saved
            slope = (values[0] - values[1]) / (2 * step)
            assert gradient[index].item() == pytest.approx(slope, rel=1e-5, abs=1e-7)
            checked += gradient[index].item() != 0
    assert checked > 20


def extreme(name):
    rows = torch.rand(9, D, generator=torch.manual_seed(0))
    return {
        "norm 1e-6": rows / rows.norm(dim=1, keepdim=True) * 1e-6,
        "norm 1e6": rows / rows.norm(dim=1, keepdim=True) * 1e6,
        "constant": torch.full((9, D), 3.5),
        "zero": torch.zeros(9, D),
        "one-hot": torch.eye(D)[torch.arange(9) % D],
    }[name]


@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize(
    "name", ["norm 1e-6", "norm 1e6", "constant", "zero", "one-hot"]
)
def test_extreme_features_train(name, choices):
    videos = VideoSet([extreme(name).numpy()[None]] * 3)
    masks = (np.ones(9, bool),) * 3
    own = model(torch.float32, **choices)
    history = train_vae(
        own,
        videos,
        VideoSet([extreme(name).numpy()[None] * 0.5] * 3),
        Selection(masks, ()),
        Recipe.named(epochs=5, lr=1e-2),
        progress=False,
    )
    assert np.isfinite([list(entry.values()) for entry in history]).all()
    assert all(p.isfinite().all() for p in own.parameters())
    made = own.translate(extreme(name), 1, generator=torch.Generator())
    assert made.isfinite().all()


@pytest.mark.parametrize("factor", [1e3, 1e30])
def test_the_log_variance_is_bounded(factor):
    own = model(torch.float32)
    with torch.no_grad():
        own.log_var_head.weight *= factor
        own.log_var_head.bias += factor * torch.tensor([1.0, -1.0, 1.0])
    mean, log_var = own.encode(extreme("one-hot"))
    assert log_var.min() == -20
    assert log_var.max() == 20
    assert kl_by_unit(mean, log_var).isfinite().all()
    loss = own.loss(
        extreme("one-hot"), torch.arange(9) % 2, generator=torch.Generator()
    )
    loss.total.backward()
    assert loss.total.isfinite()
    assert all(p.grad.isfinite().all() for p in own.parameters())


def test_a_fit_that_diverges_says_so_and_keeps_the_last_whole_epoch(
    videos, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_lists(tmp_path, videos)
    command = ["fit", *list_options(), "--recipe", "paper", "--epochs", "4"]
    command += ["--hidden-dims", "8", "--latent-dim", "2"]
    command += ["--threshold", "0.1", "--baseline-epochs", "2", "-o", "run"]
    original, calls = MultiTaskVAE.loss, 0

    def explode(self, *arguments, **options):
        nonlocal calls
        calls += 1
        loss = original(self, *arguments, **options)
        factor = float("inf") if calls > 2 * 14 + 5 else 1.0
        return loss._replace(total=loss.total * factor)

    with monkeypatch.context() as patch:
        patch.setattr(MultiTaskVAE, "loss", explode)
        assert main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: training diverged in epoch 3, at ")
    assert said.endswith(
        "lower the learning rate (0.0001); the last complete epoch is kept"
    )
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "training.safetensors"
    ]
    tensors, meta = read_tensors(tmp_path / "run" / "training.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert meta["history"].count('"lr"') == 2
    assert main(command) == 0  # goes on from there
    assert len(PseudoVideoSampler.from_pretrained("run").history) == 4


PROGRAM = """
import sys, torch
torch.set_num_threads(int(sys.argv[1]))
from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.data import ped2
sampler = PseudoVideoSampler.fit(
    *(ped2() / f"{name}.list" for name in ("normal", "abnormal")),
    recipe="paper", threshold=0.3, epochs=2, baseline_epochs=2, progress=False,
)
generator = torch.Generator().manual_seed(1)
made = sampler.sample(torch.rand(2, 9, 1024, generator=generator), label=1,
    generator=generator)
for tensor in (*sampler.vae.parameters(), made.features):
    tensor.detach().numpy().astype("<f8").tofile(sys.stdout.buffer)
"""


@pytest.mark.slow
def test_a_fit_by_other_threads_is_close():
    """Products of several threads may add in another order: to rounding, no more."""
    found = []
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, threads],
            stdout=subprocess.PIPE,
            check=True,
            env=environment,
        )
        found.append(np.frombuffer(done.stdout, "<f8"))
    assert len(found[0]) > 1024 * 1024
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
