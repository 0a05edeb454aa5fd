"""On a GPU: what is learned, made and mixed in is what a CPU gives, up to rounding."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch
from torch.utils.data import DataLoader

import hosts
from list_files import list_options, write_lists
from vad_pseudoaug import PseudoVideoSampler, training
from vad_pseudoaug.adapters import mil, rtfm
from vad_pseudoaug.check import check_sampler
from vad_pseudoaug.randomness import make_generator

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no GPU"
)
RECIPES = ("paper", "robust", "one-class")


def fit(many_videos, small, device, recipe="paper", **options):
    choices = {**small, "recipe": recipe, **options}
    return PseudoVideoSampler.fit(
        *many_videos, device=device, progress=False, **choices
    )


@pytest.fixture(params=RECIPES)
def twins(request, many_videos, small):
    return [
        fit(many_videos, small, device, request.param) for device in ("cpu", "cuda")
    ]


def test_a_fit_learns_what_a_cpu_learns(twins):
    on_cpu, on_gpu = twins
    assert on_gpu.device.type == "cuda"
    assert on_gpu.selection == on_cpu.selection
    assert len(on_gpu.history) == len(on_cpu.history) > 0
    for one, other in zip(on_gpu.history, on_cpu.history, strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-6)


def test_pseudo_videos_are_those_of_a_cpu(twins, many_videos, tmp_path):
    """Of one model, whose checkpoint goes from the GPU to the CPU."""
    _, on_gpu = twins
    on_gpu.save_pretrained(tmp_path)
    on_cpu = PseudoVideoSampler.from_pretrained(
        tmp_path, normal=many_videos[0], abnormal=many_videos[1]
    )
    back = PseudoVideoSampler.from_pretrained(tmp_path, device="cuda")
    labels = [k for k in (0, 1) if on_gpu.recipe.rate(k)]
    assert labels
    for label in labels:
        source = torch.from_numpy(many_videos[1 - label][0])
        options = {"label": label}
        expected = on_cpu.sample(source, generator=make_generator(7), **options)
        for sampler in (on_gpu, back):
            for where in ("cpu", "cuda"):
                found = sampler.sample(
                    source.to(where), generator=make_generator(7), **options
                )
                assert found.features.device.type == where
                assert torch.equal(found.pseudo_mask.cpu(), expected.pseudo_mask)
                torch.testing.assert_close(
                    found.features.cpu(), expected.features, rtol=1e-4, atol=1e-4
                )
        drawn = [
            one.draw(5, label=label, generator=make_generator(8))
            for one in (on_cpu, on_gpu)
        ]
        torch.testing.assert_close(*[d.features for d in drawn], rtol=1e-4, atol=1e-4)


def test_the_generator_may_live_on_the_gpu(many_videos, small):
    sampler = fit(many_videos, small, "cuda")
    source = torch.from_numpy(many_videos[0][0]).cuda()
    made = [
        sampler.sample(
            source, label=1, generator=torch.Generator("cuda").manual_seed(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(made[0].features, made[1].features)
    assert not torch.equal(made[0].features, made[2].features)


def test_no_global_state_of_the_gpu_is_touched(many_videos, small):
    before = torch.cuda.get_rng_state()
    sampler = fit(many_videos, small, "cuda")
    sampler.draw(3, label=1)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_an_unfinished_fit_goes_on(many_videos, small, tmp_path, monkeypatch):
    whole = fit(many_videos, small, "cuda", folder=tmp_path / "whole")
    rate = training.learning_rate

    def interrupted(recipe, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return rate(recipe, epoch)

    monkeypatch.setattr(training, "learning_rate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(many_videos, small, "cuda", folder=tmp_path / "run")
    monkeypatch.undo()
    again = fit(many_videos, small, "cuda", folder=tmp_path / "run")
    assert len(again.history) == len(whole.history)
    for one, other in zip(again.history, whole.history, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("adapter", [rtfm, mil])
def test_loaders_of_a_host_on_the_gpu(adapter, num_workers, sampler):
    """Workers fork after the GPU is in use, and what they give is pinned."""
    torch.ones(1, device="cuda")

    def batches(**options):
        pair = [
            DataLoader(
                hosts.RtfmDataset(9, k),
                batch_size=4,
                num_workers=num_workers,
                **options,
            )
            for k in (0.0, 1.0)
        ]
        handle = adapter.attach(*pair, sampler, p=1, seed=3)
        found = [batch[0] for loader in pair for batch in loader]
        assert handle.stats()["replaced"] == 18
        return found

    expected = batches()
    sampler.vae.cuda()
    found = batches(pin_memory=True)
    assert all(one.is_pinned() for one in found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@contextmanager
def default_on_the_gpu(how):
    torch.set_default_device("cuda" if how == "device" else None)
    if how != "device":
        torch.set_default_tensor_type("torch.cuda.FloatTensor")
    try:
        yield
    finally:
        torch.set_default_device("cpu")
        if how != "device":
            torch.set_default_tensor_type("torch.FloatTensor")


@pytest.mark.filterwarnings("ignore:torch.set_default_tensor_type")
@pytest.mark.parametrize("how", ["device", "tensor type"])
def test_a_host_whose_default_device_is_the_gpu(how, many_videos, small, sampler):
    """Its tensors are made there, and its loaders shuffle there."""
    plain = fit(many_videos, small, "cpu")
    with default_on_the_gpu(how):
        pair = [
            DataLoader(
                hosts.RtfmDataset(9, k),
                batch_size=4,
                shuffle=True,
                generator=torch.Generator(device="cuda"),
            )
            for k in (0.0, 1.0)
        ]
        handle = rtfm.attach(*pair, sampler, p=1)
        for loader in pair:
            for batch in loader:
                assert torch.as_tensor(batch[0]).isfinite().all()
        assert handle.stats()["replaced"] == 18
        again = fit(many_videos, small, "cpu")
        fit(many_videos, small, "cuda").draw(2, label=1)
    for key, value in plain.vae.state_dict().items():
        assert torch.equal(again.vae.state_dict()[key], value)


def test_the_gates_judge_a_sampler_on_the_gpu(many_videos, small):
    pytest.importorskip("sklearn")
    normal, abnormal = many_videos
    sampler = fit((normal[:6], abnormal[:6]), small, "cuda")
    check = check_sampler(sampler, normal[6:], abnormal[6:], progress=False)
    assert all(part for part in check.gates.values())


def test_fit_and_generate_by_nccl(many_videos, tmp_path):
    write_lists(tmp_path, many_videos)
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
    run += ["-m", "vad_pseudoaug"]
    options = ["--device", "cuda", "-o"]
    small = ["--hidden-dims=16", "--latent-dim=4", "--epochs=2", "--baseline-epochs=20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for command in (
        ["fit", *list_options(tmp_path), *small, *options, str(tmp_path / "run")],
        ["generate", str(tmp_path / "run"), *options, str(tmp_path / "pseudo")],
    ):
        subprocess.run([*run, *command], check=True, env=environment, cwd=tmp_path)
    assert list((tmp_path / "pseudo").rglob("*.npy"))


def test_codes_are_kept_for_a_gpu(many_videos, small):
    sampler = fit(many_videos, small, "cuda")
    options = {"label": 1, "generator": make_generator(1)}
    expected = sampler.draw(8, **options)
    sampler.keep_codes(label=1)
    options["generator"] = make_generator(1)
    found = sampler.draw(8, **options)
    assert torch.equal(found.pseudo_mask, expected.pseudo_mask)
    torch.testing.assert_close(found.features, expected.features, rtol=0, atol=5e-3)
    video = torch.rand(2, 6, sampler.feature_dim, device="cuda")
    codes = sampler.encode(video)
    assert codes.mean.device == video.device
    made = [
        sampler.sample(video, label=1, generator=make_generator(2), codes=own)
        for own in (None, codes)
    ]
    torch.testing.assert_close(made[0].features, made[1].features)
