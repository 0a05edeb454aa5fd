"""Frame-level ground truth: every kind reads back, and errors name what is wrong."""

import zipfile

import numpy as np
import pytest
import scipy.io

from vad_pseudoaug.ground_truth import read_annotations, read_ground_truth

NAMES = ["01_0014", "01_0015", "02_003", "12_0149"]
LABELS = [
    np.array(labels, dtype=np.uint8)
    for labels in (
        [0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 1],
        [1, 1, 1, 1, 1],
    )
]
COUNTS = [len(labels) for labels in LABELS]


def intervals(labels):
    """First and last anomalous frames, counted from 1: `(K, 2)`."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], labels, [0]))))
    return edges.reshape(-1, 2) + np.array([1, 0])


def write_concatenated(folder, names, labels):
    np.save(folder / "gt.npy", np.concatenate(labels))
    return folder / "gt.npy"


def write_masks(folder, names, labels):
    (folder / "test_frame_mask").mkdir()
    for name, own in zip(names, labels, strict=True):
        np.save(folder / "test_frame_mask" / f"{name}.npy", own)
    return folder / "test_frame_mask"


def write_archive(folder, names, labels):
    np.savez(folder / "gt.npz", **dict(zip(names, labels, strict=True)))
    return folder / "gt.npz"


def write_annotations(folder, names, labels):
    rows = []
    for name, own in zip(names, labels, strict=True):
        frames = [str(frame) for frame in intervals(own).ravel()]
        frames += ["-1"] * (4 - len(frames))  # as UCF-Crime has it
        rows.append(f"{name}.mp4  Abuse  {'  '.join(frames)}  \n\n")
    (folder / "gt.txt").write_text("".join(rows))
    return folder / "gt.txt"


def write_cells(folder, names, labels):
    return save_cells(folder, [intervals(own).T for own in labels])


def write_tall_cells(folder, names, labels):
    return save_cells(folder, [intervals(own) for own in labels])


def save_cells(folder, found):
    cells = np.empty((1, len(found)), dtype=object)
    for number, edges in enumerate(found):
        cells[0, number] = np.asarray(edges, dtype=np.float64)
    scipy.io.savemat(folder / "gt.mat", {"gt": cells})
    return folder / "gt.mat"


WRITERS = [
    write_concatenated,
    write_masks,
    write_archive,
    write_annotations,
    write_cells,
    write_tall_cells,
]
BY_NAME = [write_masks, write_archive, write_annotations]
every_kind = pytest.mark.parametrize("write", WRITERS)
by_name = pytest.mark.parametrize("write", BY_NAME)


def equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == np.uint8
        np.testing.assert_array_equal(one, other)
    return True


@every_kind
def test_every_kind_reads_back(write, tmp_path):
    path = write(tmp_path, NAMES, LABELS)
    assert equal(read_ground_truth(path, NAMES, COUNTS), LABELS)


@by_name
def test_videos_are_found_by_name_in_any_order_and_with_a_suffix(write, tmp_path):
    path = write(tmp_path, NAMES, LABELS)
    asked = ["12_0149_i3d", "01_0015", "01_0014_x264_i3d", "02_003.rgb"]
    found = read_ground_truth(path, asked, [COUNTS[i] for i in (3, 1, 0, 2)])
    assert equal(found, [LABELS[i] for i in (3, 1, 0, 2)])


@by_name
def test_a_name_is_no_start_of_a_longer_one(write, tmp_path):
    labels = [np.eye(8, dtype=np.uint8)[i] for i in range(4)]
    path = write(tmp_path, ["1", "1_1", "1_10", "1_1_2"], labels)
    asked = ["1_10_i3d", "1_1_i3d", "1_1_2_i3d", "1_2_i3d", "1_1"]
    found = read_ground_truth(path, asked, [8] * 5)
    assert equal(found, [labels[i] for i in (2, 1, 3, 0, 1)])
    with pytest.raises(FileNotFoundError, match="no ground truth for the video 11_i3d"):
        read_ground_truth(path, ["11_i3d"], [8])


def test_annotations_of_ucf_crime_count_from_1_and_include_the_last_frame(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text(
        "Abuse028_x264.mp4  Abuse  3  5  -1  -1  \n"
        "Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1  \n"
        "Arson010_x264.mp4  Arson  1  2  7  20  \n"
    )
    assert read_annotations(path) == {
        "Abuse028_x264": [(3, 5)],
        "Normal_Videos_003_x264": [],
        "Arson010_x264": [(1, 2), (7, 20)],
    }
    names = ["Arson010_x264_i3d", "Abuse028_x264", "Normal_Videos_003_x264"]
    found = read_ground_truth(path, names, [8, 6, 3])
    assert equal(
        found, [[1, 1, 0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 1, 0], [0, 0, 0]]
    )  # what lies behind the video's end is cut


def test_cells_count_from_1_and_include_the_last_frame(tmp_path):
    path = save_cells(tmp_path, [[[3], [5]], [[1, 5, 7], [2, 5, 9]], np.zeros((0, 0))])
    assert equal(
        read_ground_truth(path, ["a", "b", "c"], [6, 8, 2]),
        [[0, 0, 1, 1, 1, 0], [1, 1, 0, 0, 1, 0, 1, 1], [0, 0]],
    )


def test_tall_cells_with_two_intervals_read_as_the_other_cells_do(tmp_path):
    path = save_cells(tmp_path, [[[1, 1], [3, 4], [6, 6]], [[1, 2], [5, 6]]])
    assert equal(
        read_ground_truth(path, ["a", "b"], [6, 6]),
        [[1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 1, 1]],
    )


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_plain_arrays_of_any_type_and_with_extra_axes_are_taken(dtype, tmp_path):
    column = np.concatenate(LABELS).astype(dtype)[:, None]
    np.save(tmp_path / "gt.npy", column)
    assert equal(read_ground_truth(tmp_path / "gt.npy", NAMES, COUNTS), LABELS)


def test_masks_know_the_true_number_of_frames(tmp_path):
    path = write_masks(tmp_path, NAMES, LABELS)
    assert equal(read_ground_truth(path, NAMES, [16] * 4), LABELS)


def long_video(write, folder):
    """Write labels of 5,000 frames, of which 3,001 to 4,900 are anomalous."""
    labels = np.zeros(5000, dtype=np.uint8)
    labels[3000:4900] = 1
    return write(folder, ["a"], [labels])


@by_name
@pytest.mark.parametrize("num_snippets", [313, 312, 290])
def test_a_tail_without_snippets_may_be_labelled(write, num_snippets, tmp_path):
    path = long_video(write, tmp_path)
    [found] = read_ground_truth(path, ["a"], [16 * num_snippets])
    masks = write in (write_masks, write_archive)  # they know the number of frames
    assert len(found) == (5000 if masks else 16 * num_snippets)
    assert found.sum() == min(len(found), 4900) - 3000


@by_name
@pytest.mark.parametrize("num_snippets", [32, 156])
def test_features_of_segments_or_of_another_stride_are_refused(
    write, num_snippets, tmp_path
):
    path = long_video(write, tmp_path)
    with pytest.raises(ValueError, match=f"the snippets to {16 * num_snippets};"):
        read_ground_truth(path, ["a"], [16 * num_snippets])


def test_more_snippets_than_a_mask_has_frames_are_refused(tmp_path):
    path = long_video(write_masks, tmp_path)
    with pytest.raises(ValueError, match="up to frame 5000, the snippets to 8000;"):
        read_ground_truth(path, ["a"], [8000])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npy: no such ground truth"):
        read_ground_truth(tmp_path / "absent.npy", NAMES, COUNTS)


@by_name
def test_a_missing_video_is_named(write, tmp_path):
    path = write(tmp_path, NAMES[:2], LABELS[:2])
    with pytest.raises(FileNotFoundError, match=f"{path.name}.* the video 02_003"):
        read_ground_truth(path, NAMES, COUNTS)


def test_another_number_of_frames_or_videos_is_refused(tmp_path):
    path = write_concatenated(tmp_path, NAMES, LABELS)
    with pytest.raises(ValueError, match="holds 23 frames, the 3 test videos have 18"):
        read_ground_truth(path, NAMES[:3], COUNTS[:3])
    with pytest.raises(ValueError, match="num_frames: expected 4, got 3"):
        read_ground_truth(path, NAMES, COUNTS[:3])
    path = write_cells(tmp_path, NAMES, LABELS)
    with pytest.raises(ValueError, match="of 3 videos: expected 3 cells, got shape"):
        read_ground_truth(path, NAMES[:3], COUNTS[:3])


def test_an_unknown_ending_is_refused(tmp_path):
    (tmp_path / "gt.json").write_text("[]")
    with pytest.raises(ValueError, match=r"expected a folder, .*got '\.json'"):
        read_ground_truth(tmp_path / "gt.json", NAMES, COUNTS)


def spoil(path, how):
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "other": b"broken" * 9, "cut": content[: len(content) // 2]}[how]
    )


@pytest.mark.parametrize("how", ["empty", "other", "cut"])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_concatenated, "not readable as a plain array"),
        (write_masks, "not readable as a plain array"),
        (write_archive, "not readable"),
        (write_cells, "holds no readable 'gt'"),
    ],
)
def test_a_broken_file_is_named(write, message, how, tmp_path):
    path = write(tmp_path, NAMES, LABELS)
    file = path / f"{NAMES[0]}.npy" if path.is_dir() else path
    spoil(file, how)
    with pytest.raises(ValueError, match=f"{file.name}.*{message}"):
        read_ground_truth(path, NAMES, COUNTS)


def test_an_archive_of_other_things_is_named(tmp_path):
    path = tmp_path / "gt.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"gt\.npz: not readable as an archive"):
        read_ground_truth(path, ["a"], [3])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", "0 0 1")
    with pytest.raises(ValueError, match=r"gt\.npz: .*: a is no array"):
        read_ground_truth(path, ["a"], [3])


@pytest.mark.parametrize(
    "row", ["a.mp4", "a.mp4 Abuse 1", "a.mp4 Abuse one two", "a.mp4 Abuse 1 2 3"]
)
def test_a_broken_row_is_named(row, tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text(f"b.mp4 Normal -1 -1 -1 -1\n{row}\n")
    with pytest.raises(ValueError, match=f"gt.txt, row 2: expected a name.*{row!r}"):
        read_ground_truth(path, ["a"], [9])


def test_an_annotation_that_is_no_text_is_named(tmp_path):
    (tmp_path / "gt.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"gt\.txt"):
        read_ground_truth(tmp_path / "gt.txt", ["a"], [9])


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a file was unpickled",)


@pytest.mark.parametrize("write", WRITERS[:3])
def test_pickled_objects_are_refused(write, tmp_path):
    path = write(tmp_path, ["a"], [np.array([Trap()], dtype=object)])
    with pytest.raises(ValueError, match=path.name) as raised:
        read_ground_truth(path, ["a"], [1])
    assert "allow_pickle" not in str(raised.value)


@pytest.mark.parametrize("write", WRITERS[:3])
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2, 1], r"got shape \(3,\) and values \[0, 1, 2\]"),
        ([0.0, 0.5, 1.0], r"values \[0.0, 0.5, 1.0\]"),
        ([0.0, np.nan, 1.0], "expected one 0 or 1 a frame"),
        ([[0, 1], [1, 0], [0, 0]], r"got shape \(3, 2\)"),
    ],
)
def test_values_other_than_0_and_1_are_refused(write, labels, message, tmp_path):
    path = write(tmp_path, ["a"], [np.array(labels)])
    with pytest.raises(ValueError, match=message):
        read_ground_truth(path, ["a"], [3])


def test_an_interval_that_ends_before_it_starts_is_refused(tmp_path):
    (tmp_path / "gt.txt").write_text("a.mp4 Abuse 9 4 -1 -1\n")
    for path in (tmp_path / "gt.txt", save_cells(tmp_path, [[[9], [4]]])):
        with pytest.raises(ValueError, match="a: 9 to 4 is no interval of frames"):
            read_ground_truth(path, ["a"], [20])


def test_cells_that_are_no_intervals_are_refused(tmp_path):
    path = save_cells(tmp_path, [np.ones((3, 4))])
    with pytest.raises(ValueError, match=r"expected cells of \(2, K\), got \(3, 4\)"):
        read_ground_truth(path, ["a"], [20])
    for content in ({"labels": np.ones(3)}, {"gt": np.ones(1)}):
        scipy.io.savemat(path, content)
        with pytest.raises(
            ValueError, match=r"gt\.mat: holds no readable 'gt' of 1 videos"
        ):
            read_ground_truth(path, ["a"], [20])


@every_kind
def test_as_many_videos_as_shanghaitech_has_read_back(write, tmp_path):
    rng = np.random.default_rng(0)
    names = [
        f"{scene:02d}_{video:04d}" for scene in range(1, 14) for video in range(17)
    ]
    labels = [np.zeros(int(rng.integers(60, 400)), dtype=np.uint8) for _ in names[:199]]
    for own in labels[:44]:
        for start in rng.integers(0, len(own) - 20, size=int(rng.integers(1, 3))):
            own[start : start + 20] = 1
    path = write(tmp_path, names[:199], labels)
    counts = [len(own) for own in labels]
    assert equal(read_ground_truth(path, names[:199], counts), labels)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
@pytest.mark.parametrize("wide", [True, False])
def test_two_intervals_are_read_the_way_round_in_which_they_are_apart(
    order, wide, tmp_path
):
    pairs = np.array([[2, 3], [5, 6]])[order]
    path = save_cells(tmp_path, [pairs.T if wide else pairs])
    assert equal(read_ground_truth(path, ["a"], [7]), [[0, 1, 1, 0, 1, 1, 0]])
