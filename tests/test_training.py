"""Training: a batch is a video, runs resume to the bit, divergence is caught."""

import json

import numpy as np
import pytest
import torch

from vad_pseudoaug import (
    CheckpointError,
    MultiTaskVAE,
    PseudoVideoSampler,
    Recipe,
    VAEConfig,
    VideoSet,
)
from vad_pseudoaug import training as module
from vad_pseudoaug.checkpoint import read_tensors, write_tensors
from vad_pseudoaug.selection import Selection, select_above
from vad_pseudoaug.training import train_vae


@pytest.fixture
def run(videos):
    """Train anew each time; the model of the run, and its history."""
    normal, abnormal = (VideoSet(v) for v in videos)
    selection = select_above([np.linspace(0, 1, v.shape[1]) for v in abnormal])

    def train(state_path=None, seed=0, **choices):
        recipe = Recipe.named(**{"epochs": 4, "lr": 1e-3, **choices})
        model = MultiTaskVAE(VAEConfig(12, (16,), 4), seed=0)
        train.model = model
        history = train_vae(
            model, normal, abnormal, selection, recipe, seed=seed, state_path=state_path
        )
        return model, history

    return train


def same(first, second):
    return all(
        torch.equal(a, b)
        for a, b in zip(first.parameters(), second.parameters(), strict=True)
    )


def test_the_loss_falls_and_the_rate_decays(run):
    _, history = run(epochs=20)
    assert len(history) == 20
    for name in ("reconstruction_normal", "reconstruction_abnormal"):
        assert history[-1][name] < history[0][name]
    rates = [entry["lr"] for entry in history]
    np.testing.assert_allclose(rates, [1e-3 * 0.95**i for i in range(20)])


def test_a_batch_is_one_video_of_selected_snippets(run, monkeypatch):
    seen = []
    original = MultiTaskVAE.loss

    def spy(self, features, labels, **options):
        assert len(set(labels.tolist())) == 1
        seen.append((labels[0].item(), len(features)))
        return original(self, features, labels, **options)

    monkeypatch.setattr(MultiTaskVAE, "loss", spy)
    run(epochs=1)
    assert [label for label, _ in seen].count(0) == 8
    assert [label for label, _ in seen].count(1) == 6
    seen.clear()
    run(epochs=1, max_snippets=2)
    assert max(rows for _, rows in seen) == 4  # two snippets of two crops


def test_the_same_seed_gives_the_same_weights(run):
    first, second, other = run()[0], run()[0], run(seed=1)[0]
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_run_resumes_to_the_bit(run, tmp_path, monkeypatch, error):
    whole, history = run()
    path = tmp_path / "training.safetensors"
    calls = 0
    original = MultiTaskVAE.loss

    def interrupt(self, *arguments, **options):
        nonlocal calls
        calls += 1
        if calls == 14 * 2 + 5:  # in the midst of the third epoch
            raise error
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(MultiTaskVAE, "loss", interrupt)
        run(path)
    assert path.is_file()
    resumed, resumed_history = run(path)
    assert resumed_history == history
    assert same(whole, resumed)
    # A finished run is not trained again.
    assert same(run(path)[0], whole)


def test_the_state_is_written_now_and_then(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_BETWEEN_SAVES", -1.0)
    written = []
    original = module.write_tensors
    monkeypatch.setattr(
        module,
        "write_tensors",
        lambda *a, **k: (written.append(1), original(*a, **k)),
    )
    run(tmp_path / "training.safetensors")
    assert len(written) == 4


def test_the_state_of_another_run_is_refused(run, tmp_path):
    path = tmp_path / "training.safetensors"
    run(path)
    with pytest.raises(CheckpointError, match=r"differs in lr \(0.001, now 0.0001\)"):
        run(path, lr=1e-4)
    path.write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="not readable"):
        run(path)


def test_the_state_of_other_videos_in_memory_is_refused(videos, tmp_path):
    normal = videos[0]
    path = tmp_path / "training.safetensors"
    recipe = Recipe.named("one-class", epochs=1, steps_per_epoch=1)
    nothing = Selection((), ())

    def train(own):
        model = MultiTaskVAE(VAEConfig(12, (8,), 2), seed=0)
        train_vae(model, VideoSet(own), None, nothing, recipe, state_path=path)

    train(normal)
    train([torch.from_numpy(video.copy()) for video in normal])  # the same in a copy
    for changed in range(len(normal)):
        own = [video + (i == changed) for i, video in enumerate(normal)]
        with pytest.raises(CheckpointError, match=r"differs in normal \(.* content"):
            train(own)


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"run": "7"},
        {"run": "{"},
        *({"history": text} for text in (None, "[7]", "{}", '{"lr": 1}', "[{}]", "[]")),
        {"history": '"lr"'},
        {"history": json.dumps([dict.fromkeys(("lr", *module.TERMS), "1")])},
        {"history": json.dumps([dict.fromkeys(("lr", *module.TERMS), 1.0)] * 5)},
    ],
    ids=str,
)
def test_a_state_that_is_none_is_refused(run, tmp_path, meta):
    path = tmp_path / "training.safetensors"
    run(path)
    tensors, good = read_tensors(path)
    kept = {k: v for k, v in {**good, **meta}.items() if meta and v is not None}
    write_tensors(path, tensors, meta=kept)
    with pytest.raises(CheckpointError, match="not readable as the state of a run"):
        run(path)


def test_a_state_without_its_weights_is_refused(run, tmp_path):
    path = tmp_path / "training.safetensors"
    run(path)
    tensors, good = read_tensors(path)
    kept = {k: v for k, v in tensors.items() if "mean" not in k}
    write_tensors(path, kept, meta=good)
    with pytest.raises(CheckpointError, match="not readable as the state of a run"):
        run(path)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("adam.0.exp_avg", torch.zeros(1)),  # Adam would read beyond its end
        ("adam.0.exp_avg", None),
        ("adam.0.exp_avg_sq", torch.zeros(16, 12, dtype=torch.int64)),
        ("adam.0.step", torch.zeros(3)),
        ("adam.0.step", None),
        ("adam.99.step", torch.zeros(())),
        ("adam.-1.step", torch.zeros(())),
        ("adam.x.step", torch.zeros(())),
        ("best.mean_head.bias", torch.zeros(5)),
        ("model.mean_head.bias", torch.zeros(4, dtype=torch.int32)),
        ("model.mean_head.bias", torch.zeros(5)),
        ("other", torch.zeros(1)),
    ],
    ids=lambda one: one if isinstance(one, str) else None,
)
def test_a_state_with_tensors_that_do_not_fit_is_refused(run, tmp_path, name, tensor):
    path = tmp_path / "training.safetensors"
    run(path)
    tensors, meta = read_tensors(path)
    assert tensors["adam.0.exp_avg"].shape == (16, 12)
    assert tensors["model.mean_head.bias"].shape == (4,)
    tensors[name] = tensor
    kept = {k: v for k, v in tensors.items() if v is not None}
    write_tensors(path, kept, meta=meta)
    with pytest.raises(CheckpointError, match=f"the tensor {name} is"):
        run(path)


def test_divergence_stops_with_the_last_complete_epoch(run, monkeypatch):
    good, _ = run(epochs=2)
    original = MultiTaskVAE.loss
    calls = 0

    def explode(self, *arguments, **options):
        nonlocal calls
        calls += 1
        loss = original(self, *arguments, **options)
        broken = loss._replace(total=loss.total * float("nan"))
        return broken if calls == 14 * 2 + 3 else loss

    monkeypatch.setattr(MultiTaskVAE, "loss", explode)
    with pytest.raises(FloatingPointError, match="diverged in epoch 3"):
        run(epochs=4)
    assert same(run.model, good)


def test_the_state_of_files_that_were_made_anew_is_refused(videos, tmp_path):
    recipe = Recipe.named("one-class", epochs=1, steps_per_epoch=1)
    file = tmp_path / "video.npy"

    def train(video):
        np.save(file, video)
        path = tmp_path / "training.safetensors"
        model = MultiTaskVAE(VAEConfig(12, (8,), 2), seed=0)
        nothing = Selection((), ())
        train_vae(model, VideoSet([file]), None, nothing, recipe, state_path=path)

    train(videos[0][0])
    train(videos[0][0])
    with pytest.raises(CheckpointError, match="differs in normal"):
        train(videos[0][0] + 1)


def test_the_state_of_another_selection_is_refused_or_overwritten(
    videos, small, tmp_path, monkeypatch
):
    """Of as many snippets of each video."""

    def fit(order, **options):
        scores = tuple(
            [np.arange(video.shape[1])[::order] for video in own] for own in videos
        )
        choices = {**small, "selection": "ranked", "normal_quantile": 0.0, **options}
        return PseudoVideoSampler.fit(*videos, scores=scores, **choices)

    calls = []
    original = MultiTaskVAE.loss

    def interrupt(*arguments, **options):
        calls.append(1)
        if len(calls) == 14 + 3:  # in the midst of the second epoch
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MultiTaskVAE, "loss", interrupt)
        fit(1, folder=tmp_path)
    with pytest.raises(CheckpointError, match="differs in selected"):
        fit(-1, folder=tmp_path)
    fitted, expected = fit(-1, folder=tmp_path, overwrite=True), fit(-1)
    per_video = [one.selection["selected_per_video"] for one in (fitted, fit(1))]
    assert per_video[0] == per_video[1]
    assert same(fitted.vae, expected.vae)
    assert fitted.history == expected.history


def test_a_last_step_that_diverges_is_caught(run, monkeypatch):
    """Its loss, of before the step, is finite."""
    steps = []
    original = torch.optim.Adam.step

    def step(self, *arguments, **options):
        original(self, *arguments, **options)
        steps.append(1)
        if len(steps) == 4 * 14:
            self.param_groups[0]["params"][0].data[0, 0] = torch.inf

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    with pytest.raises(FloatingPointError, match="diverged in epoch 4, at its last"):
        run()
    assert all(bool(own.isfinite().all()) for own in run.model.parameters())


@pytest.mark.parametrize("name", ["model.mean_head.bias", "adam.0.exp_avg_sq"])
def test_a_state_that_is_not_finite_is_refused(run, tmp_path, name):
    path = tmp_path / "training.safetensors"
    run(path)
    tensors, meta = read_tensors(path)
    tensors[name].view(-1)[0] = torch.nan
    write_tensors(path, tensors, meta=meta)
    with pytest.raises(CheckpointError, match=f"{name} is not finite"):
        run(path)
