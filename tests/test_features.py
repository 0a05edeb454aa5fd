"""Reading features, their layouts, list files and pooling."""

import itertools
import pickle

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from vad_pseudoaug import read_features, read_list, to_segments
from vad_pseudoaug.features import open_features, to_canonical

VIDEO = np.random.default_rng(0).random((5, 3, 4)).astype(np.float32)  # (T, N, D)


def write(folder, ending, array=VIDEO):
    path = folder / f"video{ending}"
    if ending == ".npy":
        np.save(path, array)
    elif ending == ".npz":
        np.savez(path, features=array)
    elif ending == ".safetensors":
        save_file({"features": np.ascontiguousarray(array)}, path)
    else:
        scipy.io.savemat(path, {"features": array})
    return path


ENDINGS = [".npy", ".npz", ".safetensors", ".mat"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_gives_the_canonical_layout(tmp_path, ending):
    features = read_features(write(tmp_path, ending))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, VIDEO.transpose(1, 0, 2))


def test_npy_is_memory_mapped(tmp_path):
    features = read_features(write(tmp_path, ".npy"))
    while features.base is not None and not isinstance(features, np.memmap):
        features = features.base
    assert isinstance(features, np.memmap)


@pytest.mark.parametrize(
    ("shape", "layout", "canonical"),
    [
        ((5, 4), None, (1, 5, 4)),
        ((5, 4), "TD", (1, 5, 4)),
        ((5, 3, 4), None, (3, 5, 4)),
        ((5, 3, 4), "TND", (3, 5, 4)),
        ((5, 3, 4), "NTD", (5, 3, 4)),
        ((10, 45, 4), "NTD", (10, 45, 4)),
    ],
)
def test_layouts(tmp_path, shape, layout, canonical):
    path = write(tmp_path, ".npy", np.zeros(shape, np.float32))
    assert read_features(path, layout=layout).shape == canonical


def test_axes_that_look_swapped_are_refused(tmp_path):
    path = write(tmp_path, ".npy", np.zeros((10, 45, 4), np.float32))
    with pytest.raises(ValueError, match=r"45 crops.*layout='NTD'"):
        read_features(path)
    with pytest.raises(ValueError, match=r"32 crops.*layout='TND'"):
        to_canonical(np.zeros((32, 10, 4)))


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "i4", "u1"])
def test_other_numbers_become_float32(tmp_path, dtype):
    array = (VIDEO * 100).astype(dtype)
    features = read_features(write(tmp_path, ".npy", array))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, array.astype("f4").transpose(1, 0, 2))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kept", [0, 5, 60, -1])
def test_truncated_files_are_refused_by_name(tmp_path, ending, kept):
    path = write(tmp_path, ending)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"video\\{ending}: not readable"):
        open_features(path)


def test_pickles_and_objects_are_refused(tmp_path):
    path = tmp_path / "video.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not readable"):
        read_features(path)
    path.write_bytes(pickle.dumps(VIDEO))
    with pytest.raises(ValueError, match="not readable"):
        read_features(path)
    path = tmp_path / "video.mat"
    scipy.io.savemat(path, {"features": {"nested": VIDEO}})
    with pytest.raises(ValueError, match="holds 0 arrays"):
        read_features(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"two axes \(T, D\) or three"),
        (np.zeros((2, 2, 2, 2)), r"two axes \(T, D\) or three"),
        (np.zeros((0, 4)), "empty"),
        (np.full((3, 4), np.nan), "nan at crop 0, snippet 0, feature 0 and 12 in all"),
        (np.array([[1.0, np.inf]]), "inf at"),
    ],
)
def test_arrays_that_are_no_video_are_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        read_features(write(tmp_path, ".npy", array))


def test_dtypes_that_are_no_numbers_are_refused(tmp_path):
    with pytest.raises(TypeError, match="real numbers"):
        read_features(write(tmp_path, ".npy", np.zeros((3, 4), complex)))


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npy"):
        read_features(tmp_path / "gone.npy")
    (tmp_path / "video.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"ends in \.npy"):
        read_features(tmp_path / "video.pt")


def test_a_file_with_several_arrays_needs_a_key(tmp_path):
    path = tmp_path / "video.npz"
    np.savez(path, rgb=VIDEO, flow=2 * VIDEO)
    with pytest.raises(ValueError, match="rgb, flow"):
        read_features(path)
    np.testing.assert_array_equal(
        read_features(path, key="flow"), 2 * VIDEO.transpose(1, 0, 2)
    )
    with pytest.raises(ValueError, match="no array 'audio'"):
        read_features(path, key="audio")


def test_list_files(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / "deep" / f"{name}.npy", VIDEO)
    rows = tmp_path / "train.list"
    rows.write_bytes(b"deep/b.npy\r\n\r\n  deep/a.npy  \n")
    assert [p.name for p in read_list(rows)] == ["b.npy", "a.npy"]
    rows.write_text("a.npy\n")
    assert read_list(rows, root=tmp_path / "deep")[0].is_file()
    with pytest.raises(FileNotFoundError, match="row 1"):
        read_list(rows)
    rows.write_text("\n\n")
    with pytest.raises(ValueError, match="names no feature file"):
        read_list(rows)


def mean_by_loop(features, num_segments):
    edges = np.linspace(0, features.shape[1], num_segments + 1, dtype=int)
    segments = []
    for start, end in itertools.pairwise(edges):
        part = features[:, start : max(end, start + 1)]
        segments.append(part.astype(np.float64).mean(axis=1))
    return np.stack(segments, axis=1)


def linear_by_loop(features, num_segments):
    length = features.shape[1]
    out = np.empty((features.shape[0], num_segments, features.shape[2]))
    for index in np.ndindex(out.shape):
        crop, segment, channel = index
        spread = max(num_segments - 1, 1)
        out[index] = np.interp(
            segment * (length - 1) / spread,
            np.arange(length),
            features[crop, :, channel].astype(np.float64),
        )
    return out


@given(
    length=st.integers(1, 70),
    num_segments=st.integers(1, 40),
    num_crops=st.integers(1, 3),
    half=st.booleans(),
)
def test_to_segments_equals_a_loop(length, num_segments, num_crops, half):
    rng = np.random.default_rng(length * 100 + num_segments)
    features = rng.standard_normal((num_crops, length, 3)).astype(
        "f2" if half else "f4"
    )
    for method, loop in (("mean", mean_by_loop), ("linear", linear_by_loop)):
        pooled = to_segments(features, num_segments, method=method)
        assert pooled.dtype == np.float32
        np.testing.assert_allclose(
            pooled, loop(features, num_segments), rtol=2e-6, atol=2e-6
        )


def test_to_segments_refuses_what_it_cannot_pool():
    with pytest.raises(ValueError, match="expected"):
        to_segments(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="at least 1"):
        to_segments(np.zeros((1, 3, 4)), 0)
    with pytest.raises(ValueError, match="'mean' or 'linear'"):
        to_segments(np.zeros((1, 3, 4)), method="max")
