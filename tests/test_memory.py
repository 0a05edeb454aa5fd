"""Videos of any length: made and measured in blocks, in as much memory as these."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from vad_pseudoaug import PseudoVideoSampler, Recipe, VideoSet, baseline, check, pooling
from vad_pseudoaug.bank import build_bank
from vad_pseudoaug.baseline import Baseline
from vad_pseudoaug.export import export_videos
from vad_pseudoaug.features import read_list
from vad_pseudoaug.gates import Clip
from vad_pseudoaug.profile import feature_moments, measure_profile
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.selection import select_above


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(pooling, "BLOCK_BYTES", 2 * 2 * 12 * 4)  # two snippets
    monkeypatch.setattr(pooling, "RESIDENT_BYTES", 1000)


@pytest.fixture
def long(tmp_path):
    """Normal and abnormal videos in files, float32 and float16."""
    rng = np.random.default_rng(0)
    sets = []
    for number, dtype in enumerate((np.float32, np.float16)):
        files = []
        for length in (1, 7, 20):
            files.append(tmp_path / f"{number}{length}.npy")
            np.save(files[-1], rng.random((length, 2, 12)).astype(dtype))
        sets.append(VideoSet(files))
    return sets


def test_some_snippets_are_read_and_no_others(long):
    for videos in long:
        assert [videos.num_snippets(i) for i in range(3)] == [1, 7, 20]
        rows = videos.rows(1, np.array([6, 0]))
        assert np.array_equal(rows, videos[1][:, [6, 0]])
        assert rows.dtype == np.float32


def test_a_bad_snippet_is_named_by_its_place_in_the_video(tmp_path, small_blocks):
    video = np.ones((9, 2, 12), np.float32)
    np.save(tmp_path / "a.npy", video)
    video[5, 1, 3] = np.nan
    np.save(tmp_path / "b.npy", video)
    videos = VideoSet([tmp_path / "a.npy", tmp_path / "b.npy"])
    with pytest.raises(ValueError, match="crop 1, snippet 5, feature 3"):
        videos.rows(1, np.array([2, 5]))
    with pytest.raises(ValueError, match="crop 1, snippet 5, feature 3"):
        list(videos.blocks(1))
    with pytest.raises(ValueError, match="crop 1, snippet 5, feature 3"):
        videos.segments(1, 2, method="linear")
    assert videos.rows(1, slice(0, 5)).shape == (2, 5, 12)


def test_blocks_measure_what_whole_videos_do(long, vae, monkeypatch):
    normal, abnormal = long
    masks = select_above([np.linspace(1, 0, n) for n in (1, 7, 20)])
    options = {"hidden_dims": (4,), "seed": 0}

    def measure():
        return (
            measure_profile(vae, normal, abnormal, masks),
            feature_moments(normal),
            Baseline(12, **options).score(abnormal),
            build_bank(abnormal, masks.masks, seed=0),
        )

    whole = measure()
    monkeypatch.setattr(pooling, "BLOCK_BYTES", 200)
    profile, moments, scores, bank = measure()
    assert profile.non_negative
    assert profile.real_norms == whole[0].real_norms
    assert profile.correlation == pytest.approx(whole[0].correlation)
    torch.testing.assert_close(moments[0], whole[1][0])
    assert moments[1] == pytest.approx(whole[1][1])
    for one, two in zip(scores, whole[2], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)
    assert torch.equal(bank.runs, whole[3].runs)


def test_norms_of_what_is_made_are_learned_from_windows(long, vae, monkeypatch):
    normal, abnormal = long
    sample, shapes = PseudoVideoSampler.sample, []

    def seen(self, window, **options):
        shapes.append(tuple(window.shape))
        return sample(self, window, **options)

    monkeypatch.setattr(PseudoVideoSampler, "sample", seen)

    recipe = Recipe.named("paper", norms="matched", placement="run")

    def learn(abnormal=abnormal):
        shapes.clear()
        own = PseudoVideoSampler(
            vae, recipe=recipe, normal=normal, abnormal=abnormal, seed=5
        )
        own._calibrate(progress=False)
        return own.profile.generated_norms

    whole = learn()  # of 1, 7 and 20 snippets, for each class
    assert shapes == [(2, length, 12) for length in (1, 7, 20)] * 2
    free = PseudoVideoSampler(vae, recipe=replace(recipe, norms="free"))
    for label, sources in enumerate((abnormal, normal)):
        norms = []
        for number in range(3):
            made = free.sample(
                sources[number],
                label=label,
                generator=make_generator(5, 4, label, number),
            )
            generated = made.features[:, made.pseudo_mask].numpy()
            norms += [np.linalg.norm(generated, axis=-1).ravel()]
        table = np.quantile(np.concatenate(norms), np.linspace(0, 1, 101))
        np.testing.assert_allclose(whole[label], table, rtol=1e-5)
    assert learn(abnormal=None) == ((), whole[1])
    monkeypatch.setattr("vad_pseudoaug.sampler.MAX_SNIPPETS", 2 * 3 * 5)
    windows = learn()
    assert windows == learn()
    assert shapes == [(2, length, 12) for length in (1, 5, 5)] * 2
    assert windows != whole
    assert all(len(table) > 1 for table in (*whole, *windows))
    monkeypatch.setattr("vad_pseudoaug.sampler.MAX_VIDEOS", 2)
    learn()
    assert shapes == [(2, length, 12) for length in (1, 7)] * 2


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"translation": "residual", "placement": "run", "taper": 2},
        {"translation": "graft", "noise": "correlated"},
        {"scope": "suspicious", "candidates": 2},
        {"translation": "disturb", "placement": "run"},
    ],
    ids=lambda choices: choices.get("translation") or "-".join(choices) or "paper",
)
def test_a_long_video_is_made_as_a_short_one(long, vae, choices, small_blocks):
    recipe = Recipe.named("paper", **choices)
    normal, abnormal = long
    sampler = PseudoVideoSampler(
        vae,
        recipe=recipe,
        normal=normal,
        abnormal=abnormal,
        scorer=Baseline(12, hidden_dims=(4,)) if recipe.needs_scorer else None,
        banks={n: build_bank(long[n], None, seed=0) for n in recipe.needs_banks},
    )
    for label in (0, 1):
        for number in range(3):
            whole = sampler.sample(
                sampler.sources(label).tensor(number),
                label=label,
                generator=make_generator(number),
            )
            mask, blocks = sampler.sample_source(
                number, label=label, generator=make_generator(number)
            )
            assert torch.equal(mask, whole.pseudo_mask)
            torch.testing.assert_close(torch.cat(list(blocks), dim=1), whole.features)


@pytest.mark.parametrize("layout", ["TND", "NTD"])
def test_long_videos_are_written_in_parts(long, vae, tmp_path, layout, small_blocks):
    sampler = PseudoVideoSampler(vae, normal=long[0], abnormal=long[1])
    made = export_videos(
        sampler, tmp_path / "out", per_video=1, layout=layout, dtype="float16"
    )
    masks = tmp_path / "out" / "masks" / "pseudo_abnormal"
    for number, file in enumerate(read_list(made.abnormal_list)):
        video = np.load(file)
        assert video.dtype == np.float16
        assert video.shape[layout.index("T")] == long[0].num_snippets(number)
        assert len(np.load(masks / file.name)) == (1, 7, 20)[number]


def test_many_pooled_videos_lie_in_a_file(videos, monkeypatch):
    recipe = Recipe.named("paper", baseline_epochs=2, baseline_hidden_dims=(4,))
    whole = Baseline.fit(*videos, recipe=recipe)
    monkeypatch.setattr(baseline, "MAX_BYTES_IN_MEMORY", 0)
    spilled = Baseline.fit(*videos, recipe=recipe)
    for one, two in zip(whole.parameters(), spilled.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_window_holds_most_of_what_is_meant():
    mask = np.array([1, 0, 0, 1, 1, 0], bool)
    assert check._window(mask, 2) == slice(3, 5)
    assert check._window(mask, 99) == slice(0, 6)


def test_clips_of_long_videos_are_windows(long, monkeypatch):
    whole = check._clips(long[0])
    monkeypatch.setattr(check, "MAX_BYTES", 4 * 12 * 3 * 5)
    cut = check._clips(long[0])
    assert [len(clip.features) for clip in whole] == [1, 7, 20]
    assert [len(clip.features) for clip in cut] == [1, 5, 5]
    assert isinstance(cut[2], Clip)
    assert np.array_equal(cut[2].features, whole[2].features[:5])


GROWTH = """
import resource, sys
import numpy as np
from pathlib import Path
from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.export import export_videos

folder, shape = Path(sys.argv[1]), (6000, 10, 512)  # 123 MB, and empty on the disk
lists = []
for name in ("normal", "abnormal"):
    files = [folder / f"{name}{number}.npy" for number in range(4)]
    for file in files:
        video = np.lib.format.open_memmap(file, "w+", np.float32, shape)
        video[:: 100] = 1 if name == "abnormal" else 0.1
        del video
    lists.append(files)
small = dict(recipe="paper", hidden_dims=(16,), latent_dim=4, epochs=1,
             baseline_epochs=4, baseline_hidden_dims=(8,), threshold=0.0,
             max_snippets=64)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

tiny = [[np.ones((2, 9, 12), np.float32)] * 2, [np.zeros((2, 9, 12), np.float32)] * 2]
PseudoVideoSampler.fit(*tiny, **small)  # what is loaded only when it is used
before = peak()
sampler = PseudoVideoSampler.fit(*lists, **small)
fitted = peak() - before
export_videos(sampler, folder / "out", per_video=0.25, dtype="float16")
print(fitted, peak() - before)
"""


def test_memory_does_not_grow_with_the_videos(tmp_path):
    ended = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    fitted, in_all = map(float, ended.stdout.split())
    # One video has 123 MB, all have 983 MB; read are blocks of 32 MiB.
    assert fitted < 450
    assert in_all < 450
