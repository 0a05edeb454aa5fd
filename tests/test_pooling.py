"""Pooling: RTFM's result to the bit, and no more memory than a block."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vad_pseudoaug import pooling, to_segments
from vad_pseudoaug.features import as_float32, open_features

# A feature size of 1 is left out: numpy then sums in pairs, RTFM's result too.
VIDEO = np.random.default_rng(0).random((150, 10, 64), dtype=np.float32)  # (T, N, D)


def rtfm_segments(path, num_segments):
    """What RTFM feeds to its model, by its contract: crop by crop, bin by bin."""
    features = np.array(np.load(path), dtype=np.float32).transpose(1, 0, 2)
    edges = np.linspace(0, features.shape[1], num_segments + 1, dtype=int)
    segments = []
    for crop in features:
        for start, end in itertools.pairwise(edges):
            segments.append(
                crop[start] if start == end else np.mean(crop[start:end], axis=0)
            )
    return np.reshape(segments, (len(features), num_segments, -1))


@given(
    length=st.integers(1, 150),
    num_crops=st.integers(1, 10),
    feature_dim=st.integers(2, 64),
    num_segments=st.integers(1, 40),
    dtype=st.sampled_from(["<f4", "<f2", "<f8", ">f4"]),
)
def test_segments_are_rtfms_to_the_bit(
    tmp_path_factory, length, num_crops, feature_dim, num_segments, dtype
):
    path = tmp_path_factory.mktemp("pooling") / "video.npy"
    np.save(path, VIDEO[:length, :num_crops, :feature_dim].astype(dtype))
    expected = rtfm_segments(path, num_segments)
    pooled = to_segments(open_features(path, layout="TND"), num_segments)
    assert pooled.dtype == np.float32
    np.testing.assert_array_equal(pooled, expected)
    in_memory = np.ascontiguousarray(np.load(path).transpose(1, 0, 2))
    np.testing.assert_array_equal(to_segments(in_memory, num_segments), expected)


def test_bins_larger_than_a_block_keep_the_order_of_the_sum(tmp_path, monkeypatch):
    path = tmp_path / "video.npy"
    np.save(path, VIDEO)
    expected = rtfm_segments(path, 4)
    for num_snippets in (1, 3, 37):
        monkeypatch.setattr(pooling, "BLOCK_BYTES", VIDEO[0].nbytes * num_snippets)
        np.testing.assert_array_equal(to_segments(open_features(path), 4), expected)


@pytest.mark.parametrize("method", ["mean", "linear"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_segments_that_would_not_be_finite_are_refused(method, value):
    features = np.ones((2, 6, 3), np.float32)
    features[1, 2:4, 2] = value, -value if method == "linear" else value
    with pytest.raises(ValueError, match=r"crop 1, feature 2"):
        to_segments(features, 3 if method == "mean" else 11, method=method)


def test_maps_are_given_back_but_not_the_callers_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(pooling, "BLOCK_BYTES", 1)
    monkeypatch.setattr(pooling, "RESIDENT_BYTES", 1)
    path = tmp_path / "video.npy"
    np.save(path, VIDEO)
    changed = np.load(path, mmap_mode="c")
    changed[:] = 7
    assert (to_segments(changed.transpose(1, 0, 2)) == 7).all()
    assert (changed == 7).all()
    mapped = np.load(path, mmap_mode="r")
    first = to_segments(mapped.transpose(1, 0, 2))
    np.testing.assert_array_equal(to_segments(mapped.transpose(1, 0, 2)), first)


RESIDENT = """
import resource, sys
from vad_pseudoaug import read_features, to_segments
read_features(sys.argv[1]), to_segments(read_features(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
segments = to_segments(read_features(sys.argv[2]))
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(segments.shape, grown // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
def test_a_large_file_is_pooled_without_holding_it(tmp_path):
    # 512 MiB of zeros that take no room on the disk.
    np.save(tmp_path / "small.npy", VIDEO)
    large = np.lib.format.open_memmap(
        tmp_path / "large.npy", "w+", np.float32, (6554, 10, 2048)
    )
    del large
    done = subprocess.run(
        [sys.executable, "-c", RESIDENT, *map(str, sorted(tmp_path.iterdir())[::-1])],
        capture_output=True,
        text=True,
        check=True,
    )
    shape, _, grown = done.stdout.rpartition(" ")
    assert shape == "(10, 32, 2048)"
    assert int(grown) < 224


def test_float32_that_lies_in_memory_is_looked_at_and_not_copied():
    assert as_float32(VIDEO) is VIDEO
    with pytest.raises(ValueError, match="snippet 1, feature 0 and 1 in all"):
        as_float32(np.array([[1.0], [np.nan]]))
    with pytest.raises(ValueError, match="inf at crop 0, snippet 0, feature 0"):
        as_float32(np.full((1, 1, 1), 1e300))
