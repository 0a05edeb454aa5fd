"""Pseudo videos: shares, order, shared crops, seeds, batches, counts, round trips."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from vad_pseudoaug import CheckpointError, PseudoVideoSampler, Recipe, VideoSet
from vad_pseudoaug.generation import count_pseudo_videos, draw_mask, order_sources
from vad_pseudoaug.profile import FeatureProfile
from vad_pseudoaug.randomness import make_generator


def test_a_pseudo_abnormal_video_keeps_half_of_its_source(sampler):
    source = torch.rand(3, 10, 12)
    pseudo = sampler.sample(source, label=1, generator=make_generator(0))
    assert pseudo.label == 1
    assert pseudo.pseudo_mask.sum() == 5
    kept = ~pseudo.pseudo_mask
    assert torch.equal(pseudo.features[:, kept], source[:, kept])
    changed = (pseudo.features != source).all(dim=-1)
    assert torch.equal(changed, pseudo.pseudo_mask.expand(3, -1))


def test_a_pseudo_normal_video_is_generated_as_a_whole(sampler):
    source = torch.rand(3, 10, 12)
    pseudo = sampler.sample(source, label=0, generator=make_generator(0))
    assert pseudo.pseudo_mask.all()
    assert (pseudo.features != source).all()


@pytest.mark.parametrize("label", [0, 1])
def test_every_generated_snippet_is_its_own_source_translated(sampler, label):
    source = torch.rand(3, 10, 12)
    pseudo = sampler.sample(source, label=label, generator=make_generator(4))
    # The same draws again, snippet by snippet and crop by crop.
    generator = make_generator(4)
    where = draw_mask(10, label, 0.5, generator=generator)
    noise = torch.randn(len(where), 4, generator=generator)
    for shift, time in zip(noise, where.tolist(), strict=True):
        for crop in range(3):
            mean, log_var = sampler.vae.encode(source[crop, time][None])
            z = mean + torch.exp(log_var / 2) * shift  # shared by the crops
            expected = sampler.vae.decode(z, label)[0]
            torch.testing.assert_close(pseudo.features[crop, time], expected)


def test_the_source_is_not_changed(sampler):
    source = torch.rand(1, 6, 12)
    before = source.clone()
    sampler.sample(source, label=0)
    assert torch.equal(source, before)


def test_one_seed_one_result_on_any_batch_split(sampler):
    batch = torch.rand(5, 2, 8, 12)
    lengths = torch.tensor([8, 3, 5, 8, 1])
    for video, length in zip(batch, lengths.tolist(), strict=True):
        video[:, length:] = 0
    whole = sampler.sample(batch, label=1, generator=make_generator(9), lengths=lengths)
    generator = make_generator(9)
    for start, end in ((0, 2), (2, 3), (3, 5)):
        part = sampler.sample(
            batch[start:end],
            label=1,
            generator=generator,
            lengths=lengths[start:end],
        )
        assert torch.equal(part.pseudo_mask, whole.pseudo_mask[start:end])
        torch.testing.assert_close(part.features, whole.features[start:end])
    generator = make_generator(9)
    for index, (video, length) in enumerate(zip(batch, lengths.tolist(), strict=True)):
        one = sampler.sample(video[:, :length], label=1, generator=generator)
        torch.testing.assert_close(one.features, whole.unbind()[index].features)


def test_padding_stays_zero_and_no_mask_reaches_it(sampler):
    batch = torch.zeros(2, 1, 6, 12)
    batch[0, :, :4] = 1
    batch[1] = 1
    pseudo = sampler.sample(batch, label=0, lengths=torch.tensor([4, 6]))
    assert not pseudo.features[0, :, 4:].any()
    assert pseudo.pseudo_mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert [v.features.shape[1] for v in pseudo.unbind()] == [4, 6]


def test_shape_dtype_and_single_videos(sampler):
    for shape in ((5, 12), (2, 5, 12), (3, 2, 5, 12)):
        pseudo = sampler.sample(torch.rand(shape, dtype=torch.float64), label=1)
        assert pseudo.features.shape == shape
        assert pseudo.features.dtype == torch.float64
    assert sampler.sample(np.ones((5, 12), "f2"), label=1).features.dtype == (
        torch.float16
    )


def test_the_model_may_have_another_dtype(sampler):
    source = torch.rand(2, 5, 12)
    options = {"label": 0, "generator": make_generator(0)}
    expected = sampler.sample(source, **options).features
    double = PseudoVideoSampler(copy.deepcopy(sampler.vae).double())
    options["generator"] = make_generator(0)
    found = double.sample(source, **options).features
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_arrays_that_torch_cannot_share_are_taken(sampler):
    video = np.random.default_rng(0).random((2, 5, 12), dtype=np.float32)
    expected = sampler.sample(video, label=1, generator=make_generator(0)).features
    frozen = video.copy()
    frozen.flags.writeable = False
    for same in (frozen, video.astype(">f4"), video[::-1].copy()[::-1]):
        made = sampler.sample(same, label=1, generator=make_generator(0))
        assert torch.equal(made.features, expected)
    for value in (video > 0.5, video.astype(int), video.astype(complex), [[1.0] * 12]):
        with pytest.raises(TypeError, match="features: expected"):
            sampler.sample(value, label=1)


def test_a_video_of_one_snippet_is_generated(sampler):
    pseudo = sampler.sample(torch.rand(1, 12), label=1)
    assert pseudo.pseudo_mask.tolist() == [True]


def test_no_global_state_and_no_default_plays_a_part(sampler):
    source = torch.rand(2, 6, 12)
    first = sampler.sample(source, label=1, generator=make_generator(1))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        second = sampler.sample(source, label=1, generator=make_generator(1))
    finally:
        torch.set_default_device("cpu")
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.features, second.features)


def test_non_negative_features_stay_so(vae):
    source = torch.rand(2, 6, 12)
    free = PseudoVideoSampler(vae).sample(source, label=0, generator=make_generator(1))
    clamped = PseudoVideoSampler(vae, profile=FeatureProfile(non_negative=True)).sample(
        source, label=0, generator=make_generator(1)
    )
    assert free.features.min() < 0
    torch.testing.assert_close(clamped.features, free.features.clamp(min=0))


def test_features_of_unit_norm_stay_so(vae):
    source = torch.nn.functional.normalize(torch.rand(2, 6, 12), dim=-1)
    unit = PseudoVideoSampler(vae, profile=FeatureProfile(unit_norm=True))
    free = PseudoVideoSampler(vae).sample(source, label=0, generator=make_generator(1))
    made = unit.sample(source, label=0, generator=make_generator(1))
    norms = free.features.norm(dim=-1, keepdim=True)
    assert not torch.allclose(norms, torch.ones(()))
    torch.testing.assert_close(made.features, free.features / norms)


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (torch.rand(5, 11), {"label": 1}, "feature size 12"),
        (torch.rand(12), {"label": 1}, r"expected \(T, D\)"),
        (torch.rand(0, 12), {"label": 1}, r"expected \(T, D\)"),
        (torch.rand(5, 12), {"label": 2}, "0 or 1"),
        (torch.full((5, 12), torch.nan), {"label": 1}, "finite"),
        (
            torch.rand(2, 1, 5, 12),
            {"label": 1, "lengths": torch.tensor([6, 2])},
            "2 whole numbers from 1 to 5",
        ),
        (
            torch.rand(2, 1, 5, 12),
            {"label": 1, "lengths": torch.tensor([1.5, 2])},
            r"whole numbers from 1 to 5, got \[1.5, 2.0\]",
        ),
    ],
)
def test_bad_input_is_refused(sampler, features, options, message):
    with pytest.raises(ValueError, match=message):
        sampler.sample(features, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("values", [[torch.nan], [torch.inf], [torch.inf, -torch.inf]])
def test_a_single_value_that_is_not_finite_is_found(sampler, dtype, values):
    features = torch.rand(5, 12).to(dtype)
    features[3, : len(values)] = torch.tensor(values)
    with pytest.raises(ValueError, match="expected finite values"):
        sampler.sample(features, label=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_finite_values_whose_sum_is_not_are_taken(sampler, dtype):
    features = torch.full((5, 12), torch.finfo(dtype).max / 4, dtype=dtype)
    pseudo = sampler.sample(features, label=1)
    kept = ~pseudo.pseudo_mask
    assert not features.sum().isfinite()
    assert torch.equal(pseudo.features[kept], features[kept])


def test_counts_of_the_paper():
    # Section 4.1: two pseudo videos per video of 175 normal and 63 abnormal ones.
    assert (count_pseudo_videos(175, 2), count_pseudo_videos(63, 2)) == (350, 126)
    # Table 6: ratios 1/2, 1 and 2; half of an odd number is rounded up.
    assert [count_pseudo_videos(175, r) for r in (0.5, 1, 2)] == [88, 175, 350]
    assert [count_pseudo_videos(63, r) for r in (0.5, 1, 2)] == [32, 63, 126]


def test_sources_serve_equally_often():
    order = order_sources(7, 17, generator=make_generator(0))
    times = np.bincount(order, minlength=7)
    assert sorted(times) == [2, 2, 2, 2, 3, 3, 3]
    half = order_sources(175, 88, generator=make_generator(0))
    assert len(set(half)) == 88


def test_draw_gives_two_per_source_by_default(vae, videos):
    normal, abnormal = videos
    sampler = PseudoVideoSampler(vae, normal=normal, abnormal=abnormal)
    pseudo = sampler.draw(label=1)
    assert np.bincount(pseudo.source).tolist() == [2] * 8
    for one in pseudo.unbind():
        source = torch.from_numpy(normal[int(one.source)])
        assert one.features.shape == source.shape
        kept = ~one.pseudo_mask
        assert torch.equal(one.features[:, kept], source[:, kept])
    assert len(sampler.draw(label=0).unbind()) == 12
    assert sampler.draw(5, label=0, num_segments=4).features.shape == (5, 2, 4, 12)
    assert len(sampler.draw(1, label=1).features) == 1
    with pytest.raises(ValueError, match="at least 1"):
        sampler.draw(0, label=1)


def test_a_generator_tells_all_of_a_draw(vae, videos):
    sampler = PseudoVideoSampler(vae, normal=videos[0], seed=3)
    drawn = [sampler.draw(9, label=1, generator=make_generator(5)) for _ in "ab"]
    assert all(torch.equal(drawn[0][i], drawn[1][i]) for i in (0, 2, 3))
    first, second = (sampler.draw(9, label=1).features for _ in "ab")
    assert not torch.equal(first, second)  # its own goes on
    copied = copy.deepcopy(sampler)  # and starts anew in a copy
    assert torch.equal(copied.draw(9, label=1).features, first)


def test_draw_without_sources_says_what_is_missing(sampler):
    with pytest.raises(ValueError, match="normal= to from_pretrained"):
        sampler.draw(1, label=1)


def test_a_sampler_that_was_not_fitted_has_no_history(vae):
    sampler = PseudoVideoSampler(vae)
    assert (sampler.history, sampler.selection) == ([], {})


def test_fit_learns_end_to_end_and_reloads(videos, small, tmp_path):
    normal, abnormal = videos
    sampler = PseudoVideoSampler.fit(
        normal, abnormal, **{**small, "baseline_lr": 1e-2}, folder=tmp_path
    )
    assert sampler.profile.non_negative
    assert len(sampler.history) == 3
    assert sampler.selection["num_selected"] > 0
    assert not (tmp_path / "training.safetensors").exists()
    again = PseudoVideoSampler.from_pretrained(
        tmp_path, normal=normal, abnormal=abnormal
    )
    assert again.recipe == sampler.recipe
    assert again.history == sampler.history
    assert again.fingerprint() == sampler.fingerprint()
    first = sampler.draw(label=1, generator=make_generator(3))
    second = again.draw(label=1, generator=make_generator(3))
    assert torch.equal(first.features, second.features)


MOVED = r"no normal videos .*was fitted on .*0\.npy, which is not there"


def test_sources_that_are_files_are_found_again(videos, vae, tmp_path):
    rows = []
    for number, video in enumerate(videos[0]):
        np.save(tmp_path / f"{number}.npy", video.transpose(1, 0, 2))
        rows.append(f"{number}.npy")
    (tmp_path / "normal.list").write_text("\n".join(rows))
    sampler = PseudoVideoSampler(vae, normal=tmp_path / "normal.list")
    sampler.save_pretrained(tmp_path / "run")
    again = PseudoVideoSampler.from_pretrained(tmp_path / "run")
    assert again.draw(2, label=1).features.shape[:2] == (2, 2)
    (tmp_path / "0.npy").unlink()
    moved = PseudoVideoSampler.from_pretrained(tmp_path / "run")
    with pytest.raises(ValueError, match=MOVED):
        moved.draw(2, label=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda path: np.save(path, np.ones((6, 20))),
            "files whose feature size is 20",
        ),
        (lambda path: path.write_bytes(b""), "files that are not usable now: .*0.npy"),
        (lambda path: np.save(path, np.ones(6)), "files that are not usable now"),
    ],
)
def test_sources_that_are_others_now_leave_the_sampler_usable(
    vae, tmp_path, change, message
):
    np.save(tmp_path / "0.npy", np.ones((6, 12), np.float32))
    PseudoVideoSampler(vae, normal=[tmp_path / "0.npy"]).save_pretrained(tmp_path / "r")
    change(tmp_path / "0.npy")
    again = PseudoVideoSampler.from_pretrained(tmp_path / "r")
    assert again.sample(np.ones((6, 12), np.float32), label=1).pseudo_mask.any()
    with pytest.raises(ValueError, match=rf"fitted on {message}.*: give normal="):
        again.draw(2, label=1)


def test_sources_of_another_user_leave_the_sampler_usable(vae, tmp_path, monkeypatch):
    np.save(tmp_path / "0.npy", np.ones((6, 12), np.float32))
    PseudoVideoSampler(vae, normal=[tmp_path / "0.npy"]).save_pretrained(tmp_path / "r")
    is_file = Path.is_file

    def refused(path):
        if path.name == "0.npy":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    again = PseudoVideoSampler.from_pretrained(tmp_path / "r")
    with pytest.raises(ValueError, match=r"not usable now: .*Permission denied"):
        again.draw(2, label=1)


def test_files_are_found_again_in_their_layout(vae, tmp_path):
    video = np.random.default_rng(0).random((2, 5, 12), dtype=np.float32)
    np.savez(tmp_path / "0.npz", features=video, others=video[:1])
    options = {"layout": "NTD", "key": "features"}
    videos = VideoSet([tmp_path / "0.npz"], **options)
    PseudoVideoSampler(vae, normal=videos).save_pretrained(tmp_path / "run")
    again = PseudoVideoSampler.from_pretrained(tmp_path / "run")
    np.testing.assert_array_equal(again.sources(1)[0], video)


def test_another_kind_of_checkpoint_is_refused(vae, tmp_path):
    vae.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="expected a checkpoint of PseudoVideo"):
        PseudoVideoSampler.from_pretrained(tmp_path)


def test_recipes():
    assert Recipe.named("paper", epochs=7).epochs == 7
    assert Recipe.named(Recipe(share=0.25)).share == 0.25
    with pytest.raises(ValueError, match=r"choice epoch; did you mean 'epochs'\?"):
        Recipe.named("paper", epoch=7)
    with pytest.raises(ValueError, match="unknown recipe 'magic'; there is paper"):
        Recipe.named("magic")
    for bad in ({"share": 0.0}, {"epochs": -1}, {"reduction": "max"}, {"lr": "x"}):
        with pytest.raises(ValueError, match=r"range|expected"):
            Recipe.named("paper", **bad)
