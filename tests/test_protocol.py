"""Protocols: what trains and what tests, and a score for each frame."""

import csv

import numpy as np
import pytest
import torch

from vad_pseudoaug.data import ped2
from vad_pseudoaug.metrics import frame_figures
from vad_pseudoaug.protocol import (
    Data,
    LabelledVideo,
    Split,
    ped2_split,
    read_folder,
    read_split,
)

LENGTHS = {"n1": 3, "n2": 5, "a1": 4, "t_normal": 2, "t_1": 3, "t_10": 4}
LABELS = {
    "t_normal": np.zeros(30, dtype=np.uint8),
    "t_1": np.repeat([0, 1, 0], 16).astype(np.uint8),
    "t_10": np.repeat([0, 1], [40, 30]).astype(np.uint8),
}


@pytest.fixture
def features():
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(3, 2, (2, length, 5)).astype(np.float32)
        for name, length in LENGTHS.items()
    }


@pytest.fixture
def split(features):
    return Split(
        [features["n1"], features["n2"]],
        [features["a1"]],
        [LabelledVideo(name, features[name], LABELS[name]) for name in LABELS],
    )


@pytest.fixture
def folder(features, tmp_path):
    def write(name, rows):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([("video", "label"), *rows])

    write("train.csv", [("n1", 0), ("a1", 1), ("n2", 0)])
    write("test.csv", [("t_normal", 0), ("t_1", 1), ("t_10", 1)])
    np.savez(tmp_path / "features.npz", **features)
    np.savez(tmp_path / "frame_labels_test.npz", **LABELS)
    return tmp_path


@pytest.fixture
def lists(features, tmp_path):
    """Paths of three lists and of the masks, features as `(T, N, D)` with a suffix."""
    names = {"normal": ("n1", "n2"), "abnormal": ("a1",), "test": tuple(LABELS)}
    (tmp_path / "truth").mkdir()
    for name, video in features.items():
        np.save(tmp_path / f"{name}_i3d.npy", video.transpose(1, 0, 2))
    for name, labels in LABELS.items():
        np.save(tmp_path / "truth" / f"{name}.npy", labels)
    for name, videos in names.items():
        rows = "".join(f"{video}_i3d.npy\n" for video in videos)
        (tmp_path / f"{name}.list").write_text(rows)
    return {
        **{name: str(tmp_path / f"{name}.list") for name in names},
        "truth": str(tmp_path / "truth"),
    }


def equal(found, expected, *, suffix=""):
    for own, other in (
        (found.normal, expected.normal),
        (found.abnormal, expected.abnormal),
        ([v.features for v in found.test], [v.features for v in expected.test]),
        (found.labels, expected.labels),
    ):
        for one, two in zip(own, other, strict=True):
            np.testing.assert_array_equal(one, two, strict=True)
    assert [v.name for v in found.test] == [v.name + suffix for v in expected.test]
    return True


def test_a_draw_of_ped2_trains_on_10_and_tests_on_the_other_18_videos():
    drawn = []
    for draw in range(10):
        split = ped2_split(draw)
        assert split.counts == (4, 6, 12, 6)
        assert all(path.stem.startswith("Train") for path in split.normal)
        assert all(path.stem.startswith("Test") for path in split.abnormal)
        train = {path.stem for path in (*split.normal, *split.abnormal)}
        test = {video.name for video in split.test}
        assert len(train) == 10
        assert not train & test
        assert len(train | test) == 28
        drawn.append(frozenset(train))
    assert len(set(drawn)) == 10


def test_a_draw_of_ped2_is_a_function_of_its_number():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = ped2_split(3), ped2_split(3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (first.normal, first.abnormal) == (second.normal, second.abnormal)
    assert [v.name for v in first.test] == [v.name for v in second.test]


def test_videos_of_ped2_have_their_own_frame_labels():
    for video in ped2_split().test:
        name = video.name.removesuffix("_i3d")
        expected = np.load(ped2() / "frame_labels" / f"{name}.npy")
        np.testing.assert_array_equal(video.frame_labels, expected)
        assert video.frame_labels.any() == name.startswith("Test")
        assert abs(len(expected) - 16 * video.features.shape[1]) < 16


def first_feature(video):
    return video[0, :, 0]


def test_each_frame_has_the_score_of_its_snippet(split):
    snippets = split.snippet_scores(first_feature)
    frames = split.frame_scores(first_feature)
    for video, own, found in zip(split.test, snippets, frames, strict=True):
        np.testing.assert_array_equal(own, video.features[0, :, 0])
        last = video.features.shape[1] - 1
        expected = [own[min(f // 16, last)] for f in range(len(video.frame_labels))]
        np.testing.assert_array_equal(found, np.array(expected), strict=True)
    # One video ends within a snippet, one with it, and one goes on behind the last.
    assert [len(own) for own in frames] == [30, 48, 70]
    assert split.evaluate(first_feature) == frame_figures(split.labels, frames)


def test_scores_may_be_a_tensor(split):
    found = split.snippet_scores(
        lambda video: torch.from_numpy(video[0, :, 0]).double().requires_grad_()
    )
    for one, other in zip(found, split.snippet_scores(first_feature), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda video: video[0, 1:, 0], r"t_normal: .* a snippet, 2, got shape \(1,\)"),
        (lambda video: video[0, :, :1], r"t_normal: .* got shape \(2, 1\)"),
        (lambda video: video[0, :, 0].sum(), r"t_normal: .* got shape \(\)"),
        (lambda video: np.log(video[0, :, 0] - np.inf), "t_normal: .* NaN or infinite"),
        (lambda video: np.full(video.shape[1], np.inf), "t_normal: .* NaN or infinite"),
    ],
)
def test_scores_that_are_not_one_a_snippet_are_refused(split, score, message):
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=message):
        split.snippet_scores(score)


def test_standardised_features_have_mean_0_and_spread_1_in_training(split):
    found = split.standardised()
    rows = np.concatenate(
        [v.reshape(-1, 5) for v in (*found.normal, *found.abnormal)], dtype=np.float64
    )
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), 1, rtol=1e-6)
    train = np.concatenate([v.reshape(-1, 5) for v in (*split.normal, *split.abnormal)])
    for one, other in zip(found.test, split.test, strict=True):
        expected = (other.features - train.mean(axis=0)) / train.std(axis=0)
        np.testing.assert_allclose(one.features, expected, rtol=1e-4, atol=1e-5)
        assert one.features.dtype == np.float32
        np.testing.assert_array_equal(one.frame_labels, other.frame_labels)
        assert one.name == other.name
    assert found.counts == split.counts


def test_a_constant_feature_becomes_0(split):
    for video in (*split.normal, *split.abnormal):
        video[..., 2] = 0.1
    found = split.standardised()
    for video in (*found.normal, *found.abnormal):
        assert not video[..., 2].any()
        assert np.isfinite(video).all()
    for one, other in zip(found.test, split.test, strict=True):
        np.testing.assert_allclose(
            one.features[..., 2], other.features[..., 2] - 0.1, atol=1e-6
        )


def test_standardising_leaves_the_split_as_it_was(split):
    before = [video.copy() for video in (*split.normal, *split.abnormal)]
    split.standardised()
    for one, other in zip((*split.normal, *split.abnormal), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_folder_reads_back(folder, split):
    assert equal(read_folder(folder), split)


def test_features_of_a_folder_may_lack_the_crop_axis(folder, split, features):
    np.savez(folder / "features.npz", **{k: v[0] for k, v in features.items()})
    found = read_folder(folder)
    np.testing.assert_array_equal(found.normal[1], features["n2"][:1])
    np.testing.assert_array_equal(found.test[2].features, features["t_10"][:1])


def test_lists_read_back(lists, split):
    assert equal(read_split(**lists), split, suffix="_i3d")


def test_lists_take_a_layout(lists, split, features, tmp_path):
    for name, video in features.items():
        np.save(tmp_path / f"{name}_i3d.npy", video)
    assert equal(read_split(**lists, layout="NTD"), split, suffix="_i3d")


def test_a_configuration_names_its_split(folder, lists, split):
    assert equal(Data("folder", {"folder": str(folder)}).split(0), split)
    assert equal(Data("lists", lists).split(0), split, suffix="_i3d")
    found = Data("lists", lists, standardise=True).split(0)
    assert equal(found, split.standardised(), suffix="_i3d")
    drawn = Data("ped2", {}).split(7)
    assert drawn.normal == ped2_split(7).normal
    assert Data.named(str(folder)) == Data("folder", {"folder": str(folder)})
    assert Data.named("ped2", standardise=True) == Data("ped2", {}, standardise=True)
    assert Data.named("synthetic") == Data("synthetic", {})
    with pytest.raises(ValueError, match="ucf-crime: expected"):
        Data("lists", lists, expect="ucf-crime").split(0)


@pytest.mark.parametrize(
    "name", ["train.csv", "test.csv", "features.npz", "frame_labels_test.npz"]
)
def test_a_missing_file_of_a_folder_is_named(name, folder):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        read_folder(folder)


@pytest.mark.parametrize("name", ["n2", "t_10"])
def test_a_video_without_features_is_named(name, folder, features):
    del features[name]
    np.savez(folder / "features.npz", **features)
    with pytest.raises(FileNotFoundError, match=f"lacks 1 videos, such as {name}"):
        read_folder(folder)


def test_a_video_without_frame_labels_is_named(folder):
    np.savez(folder / "frame_labels_test.npz", t_normal=LABELS["t_normal"])
    with pytest.raises(FileNotFoundError, match="no ground truth for the video t_1"):
        read_folder(folder)


@pytest.mark.parametrize(
    "table",
    [
        "",
        "video,label\n",
        "name,label\nn1,0\n",
        "video,class\nn1,0\n",
        "video,label\nn1,normal\n",
        "video,label\nn1\n",
        "video,label\nn1,2\n",
        "video,label\nn1,\n",
    ],
)
@pytest.mark.parametrize("name", ["train", "test"])
def test_a_broken_table_is_named(name, table, folder):
    (folder / f"{name}.csv").write_text(table)
    with pytest.raises(ValueError, match=rf"{name}\.csv: expected .* 0 or 1"):
        read_folder(folder)


def test_a_table_without_a_class_is_refused(folder):
    (folder / "train.csv").write_text("video,label\na1,1\n")
    with pytest.raises(ValueError, match="normal: expected at least one video"):
        read_folder(folder)


@pytest.mark.parametrize("name", ["features.npz", "frame_labels_test.npz"])
@pytest.mark.parametrize("content", [b"", b"broken", b"PK\x03\x04 cut"])
def test_a_broken_archive_is_named(name, content, folder):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        read_folder(folder)


def test_a_video_does_not_train_and_test(folder):
    (folder / "train.csv").write_text("video,label\nn1,0\na1,1\nt_1,1\n")
    with pytest.raises(ValueError, match="t_1"):
        read_folder(folder)


def test_a_video_of_lists_does_not_train_and_test(lists, tmp_path):
    path = tmp_path / "." / "t_1_i3d.npy"  # the same by another path
    (tmp_path / "abnormal.list").write_text(f"a1_i3d.npy\n{path}\n")
    with pytest.raises(ValueError, match=r"test\.list: 1 videos .*t_1_i3d\.npy"):
        read_split(**lists)


def test_test_videos_of_one_name_are_told_apart_by_their_folders(lists, tmp_path):
    rows = []
    for name in LABELS:
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}_i3d.npy").rename(tmp_path / name / "video.npy")
        rows.append(f"{name}/video.npy\n")
    (tmp_path / "test.list").write_text("".join(rows))
    frames = [np.resize(LABELS[name], 16 * LENGTHS[name]) for name in LABELS]
    np.save(tmp_path / "gt.npy", np.concatenate(frames))
    split = read_split(**{**lists, "truth": str(tmp_path / "gt.npy")})
    assert len({video.name for video in split.test}) == 3
    with pytest.raises(FileNotFoundError, match=r"no ground truth .*t_normal"):
        read_split(**lists)  # masks by name: which is whose, nothing says


def test_counts_of_another_split_are_refused(split):
    message = r"shanghaitech: expected \(175, 63, 155, 44\) .* got \(2, 1, 1, 2\)"
    with pytest.raises(ValueError, match=message):
        split.check_counts("shanghaitech")


def of_counts(counts):
    """A split of so many videos: normal and abnormal to train, then to test."""
    video = np.zeros((1, 2, 3), dtype=np.float32)
    test = [
        LabelledVideo(f"{label}_{i}", video, np.arange(32) < 9 * label)
        for label in (0, 1)
        for i in range(counts[2 + label])
    ]
    return Split([video] * counts[0], [video] * counts[1], test)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        # 199 test videos, of which 44 abnormal; and 290, of which 140.
        ("shanghaitech", (175, 63, 155, 44)),
        ("ucf-crime", (800, 810, 150, 140)),
    ],
)
def test_published_counts_are_checked_one_by_one(name, counts):
    of_counts(counts).check_counts(name)
    for place in range(4):
        wrong = [count - (i == place) for i, count in enumerate(counts)]
        with pytest.raises(ValueError, match=f"{name}: expected .* got "):
            of_counts(wrong).check_counts(name)


def test_an_abnormal_test_video_without_an_anomalous_frame_changes_the_counts():
    split = of_counts((175, 63, 155, 44))
    split.test[-1].frame_labels[:] = False
    assert split.counts == (175, 63, 156, 43)
    with pytest.raises(ValueError, match=r"got \(175, 63, 156, 43\)"):
        split.check_counts("shanghaitech")


def test_an_unknown_split_is_refused(split):
    with pytest.raises(ValueError, match=r"'ped3'.*shanghaitech"):
        split.check_counts("ped3")
