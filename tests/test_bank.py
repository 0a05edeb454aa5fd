"""Banks of real runs: where they are from, how they are stretched, bounds, files."""

import numpy as np
import pytest
import torch

from vad_pseudoaug import CheckpointError, PseudoVideoSampler, Recipe, VideoSet
from vad_pseudoaug import bank as module
from vad_pseudoaug.bank import Bank, build_bank
from vad_pseudoaug.randomness import make_generator


def numbered(*lengths):
    """Videos whose snippets have their place as a value: 100 for each video."""
    return [
        (100 * video + np.arange(length, dtype=np.float32))[None, :, None].repeat(2, 0)
        for video, length in enumerate(lengths)
    ]


def runs_of(bank):
    return [
        run[0, :length, 0].tolist()
        for run, length in zip(bank.runs, bank.lengths.tolist(), strict=True)
    ]


def test_runs_are_those_of_the_mask_in_order():
    videos = VideoSet(numbered(8, 5, 3))
    masks = [
        np.array([1, 1, 0, 0, 1, 1, 1, 0], bool),
        np.zeros(5, bool),
        np.array([0, 0, 1], bool),
    ]
    bank = build_bank(videos, masks, seed=0)
    assert runs_of(bank) == [[0, 1], [4, 5, 6], [202]]
    assert bank.runs.shape == (3, 2, 3, 1)
    assert bank.runs.dtype == torch.float16
    assert not bank.runs[2, :, 1:].any()


def test_long_runs_are_parted_and_all_of_a_normal_video_is_taken():
    bank = build_bank(VideoSet(numbered(70)), None, seed=0)
    assert bank.lengths.tolist() == [32, 32, 6]
    assert [place for run in runs_of(bank) for place in run] == list(range(70))


def test_a_bank_is_bounded(monkeypatch):
    videos = VideoSet(numbered(*[4] * 30))
    monkeypatch.setattr(module, "MAX_RUNS", 12)
    first, other = (build_bank(videos, None, seed=seed) for seed in (0, 1))
    assert len(first) == len(other) == 12
    assert runs_of(first) != runs_of(other)
    assert runs_of(first) == runs_of(build_bank(videos, None, seed=0))
    monkeypatch.setattr(module, "MAX_BYTES", 5 * 2 * 2 * 4)
    assert len(build_bank(videos, None, seed=0)) == 5
    monkeypatch.setattr(module, "MAX_BYTES", 1)
    assert len(build_bank(videos, None, seed=0)) == 1


def test_a_run_is_stretched_to_a_length():
    bank = build_bank(VideoSet(numbered(5)), None, seed=0)
    assert torch.equal(bank.take(0, 5)[0, :, 0], torch.arange(5.0))
    torch.testing.assert_close(bank.take(0, 9)[1, :, 0], torch.arange(9) / 2)
    torch.testing.assert_close(bank.take(0, 3)[0, :, 0], torch.tensor([0.0, 2.0, 4.0]))
    assert bank.take(0, 1).shape == (2, 1, 1)


def test_a_video_of_other_crops_takes_those_there_are_in_turn():
    runs = torch.arange(3.0)[None, :, None, None].expand(1, 3, 4, 5).contiguous()
    bank = Bank(runs, torch.tensor([4]))
    for crops in (1, 3, 7):
        video = torch.zeros(crops, 9, 5, dtype=torch.float64)
        made = bank.draw(video, 6, make_generator(0))
        assert made.shape == (crops, 6, 5)
        assert made.dtype == torch.float64
        assert made[:, 0, 0].tolist() == [crop % 3 for crop in range(crops)]


def test_features_too_large_for_half_precision_are_kept_whole():
    bank = build_bank(VideoSet([np.full((1, 4, 2), 1e6, np.float32)]), None, seed=0)
    assert bank.runs.dtype == torch.float32
    assert (bank.take(0, 4) == 1e6).all()


def test_grafts_are_selected_runs_only(many_videos):
    # No abnormal snippet that was not selected may be pasted as an anomaly.
    sampler = PseudoVideoSampler.fit(
        *many_videos,
        scores=lambda video: np.arange(video.shape[1]) >= video.shape[1] - 2,
        recipe="paper",
        translation="graft",
        placement="run",
        min_strength=0.0,
        max_strength=0.0,
        hidden_dims=(16,),
        latent_dim=4,
        epochs=1,
        progress=False,
    )
    real = np.concatenate([v[:, -2:] for v in many_videos[1]], axis=1)  # (N, 20, D)
    source = torch.zeros(2, 4, 12)
    for seed in range(10):
        made = sampler.sample(source, label=1, generator=make_generator(seed))
        grafted = made.features[:, made.pseudo_mask].numpy()
        assert grafted.shape[1] == 2
        starts = np.abs(real[:, 0::2] - grafted[:, :1]).max(axis=(0, 2))
        number = int(starts.argmin())
        np.testing.assert_allclose(grafted, real[:, 2 * number :][:, :2], rtol=2e-3)
    varied = PseudoVideoSampler(
        sampler.vae,
        recipe=Recipe.named(sampler.recipe, max_strength=1.0),
        banks=sampler.banks,
    )
    other = varied.sample(source, label=1, generator=make_generator(0))
    same = sampler.sample(source, label=1, generator=make_generator(0))
    assert torch.equal(other.pseudo_mask, same.pseudo_mask)
    assert not torch.equal(other.features, same.features)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"runs": torch.zeros(2, 1, 3, 5)},
        {"runs": torch.zeros(2, 1, 3, 4), "lengths": torch.tensor([1, 1])},
        {"runs": torch.zeros(2, 1, 3, 5), "lengths": torch.ones(2)},
        {"runs": torch.ones(2, 1, 3, 5).long(), "lengths": torch.tensor([1, 1])},
        {"runs": torch.zeros(2, 1, 3, 5), "lengths": torch.tensor([1, 1, 1])},
        {"runs": torch.zeros(2, 1, 3, 5), "lengths": torch.tensor([1, 4])},
        {"runs": torch.zeros(2, 1, 3, 5), "lengths": torch.tensor([0, 1])},
        {"runs": torch.zeros(0, 1, 3, 5), "lengths": torch.zeros(0).long()},
        {"runs": torch.full((1, 1, 3, 5), torch.nan), "lengths": torch.tensor([3])},
        {"runs": torch.zeros(1, 0, 3, 5), "lengths": torch.tensor([3])},
    ],
)
def test_what_is_no_bank_is_refused(tensors):
    with pytest.raises(CheckpointError, match="the checkpoint's bank: expected"):
        Bank.from_tensors(tensors, 5)


def test_a_checkpoint_without_its_bank_is_refused(vae, tmp_path):
    bank = Bank(torch.ones(1, 1, 2, 12), torch.tensor([2]))
    recipe = Recipe.named("one-class")
    sampler = PseudoVideoSampler(vae, recipe=recipe, banks={0: bank})
    sampler.save_pretrained(tmp_path)
    assert len(PseudoVideoSampler.from_pretrained(tmp_path).banks[0]) == 1
    sampler.banks.clear()
    sampler.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="the banks that the recipe asks for"):
        PseudoVideoSampler.from_pretrained(tmp_path)


def test_a_sampler_without_its_bank_is_refused(vae):
    with pytest.raises(ValueError, match="asks for a bank of runs of class 0"):
        PseudoVideoSampler(vae, recipe=Recipe.named("one-class"))


@pytest.mark.parametrize(("level", "spread"), [(0.0, 1e-8), (100.0, 0.02)])
def test_what_half_precision_would_blur_is_kept_whole(level, spread):
    rng = np.random.default_rng(0)
    features = (level + spread * rng.standard_normal((1, 20, 3))).astype(np.float32)
    bank = build_bank(VideoSet([features]), None, seed=0)
    assert bank.runs.dtype == torch.float32
    assert np.array_equal(bank.runs[0, :, :20].numpy(), features)
