"""Readers agree with the libraries that write the files, and take no bait."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from vad_pseudoaug.claims import claim, pick
from vad_pseudoaug.matlab import read_mat
from vad_pseudoaug.readers import read_npy, read_npz, read_safetensors

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">f4"]
arrays = st.builds(
    lambda shape, dtype, order: (100 * np.random.default_rng(0).random(shape)).astype(
        dtype, order=order
    ),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.sampled_from(DTYPES),
    st.sampled_from("CF"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


def assert_same(found, array):
    assert found.shape == array.shape
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@given(array=arrays)
def test_npy(folder, array):
    np.save(folder / "a.npy", array)
    assert_same(read_npy(folder / "a.npy", None), array)


@given(array=arrays, packed=st.booleans())
def test_npz(folder, array, packed):
    save = np.savez_compressed if packed else np.savez
    save(folder / "a.npz", first=array, second=array[:1])
    assert_same(read_npz(folder / "a.npz", "first"), array)


@given(array=arrays)
def test_safetensors(folder, array):
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    entries = {"first": array, "second": np.zeros(3, "f2")}
    save_file(entries, folder / "a.safetensors", {"made by": "a test"})
    assert_same(read_safetensors(folder / "a.safetensors", "first"), array)


@given(array=arrays, packed=st.booleans())
def test_mat(folder, array, packed):
    path = folder / "a.mat"
    content = {
        "text": "abc",
        "first": array if array.dtype != "f2" else array.astype("f4"),
        "deep": {"cell": np.array([array, "x"], dtype=object)},
        "a_name_of_many_letters": np.arange(3.0),
        "truth": np.ones((2, 2), bool),
        "imaginary": np.ones((2, 2)) + 1j,
    }
    scipy.io.savemat(path, content, do_compression=packed)
    assert_same(read_mat(path, "first"), scipy.io.loadmat(path)["first"])
    assert_same(read_mat(path, "a_name_of_many_letters"), np.arange(3.0)[None])
    with pytest.raises(ValueError, match="only first, a_name_of_many_letters"):
        read_mat(path, "truth")


def test_mat_of_the_other_byte_order(folder):
    path = folder / "big.mat"
    scipy.io.savemat(path, {"first": np.arange(6.0).reshape(2, 3)})
    content = path.read_bytes()
    head = content[:124] + b"\x01\x00MI"
    words = np.frombuffer(content[128:], "<u4").byteswap().tobytes()
    # Whole words were turned: flags, shape and tags are right, the name and the
    # values, of one and eight bytes, are turned back.
    name, values = words.index(b"srif"), len(words) - 48
    values_turned = np.arange(6.0).reshape(2, 3).T.astype(">f8").tobytes()
    words = words[:name] + b"first\0\0\0" + words[name + 8 : values] + values_turned
    path.write_bytes(head + words)
    found = read_mat(path, None)
    np.testing.assert_array_equal(found, np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM", "with -v7"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1XX", "not that of a MATLAB 5 to 7"),
        (b"", "not that of a MATLAB 5 to 7"),
    ],
)
def test_mat_of_other_versions(folder, head, message):
    (folder / "b.mat").write_bytes(head + bytes(100))
    with pytest.raises(ValueError, match=message):
        read_mat(folder / "b.mat", None)


def test_two_variables_of_one_name(folder):
    scipy.io.savemat(folder / "c.mat", {"first": np.ones(3)})
    content = (folder / "c.mat").read_bytes()
    (folder / "c.mat").write_bytes(content + content[128:])
    with pytest.raises(ValueError, match="two variables are called 'first'"):
        read_mat(folder / "c.mat", None)


def test_many_names_are_not_all_listed():
    with pytest.raises(ValueError, match=r"one of 0x{79}, .*, 9x{79}, \.\.\.$"):
        pick([str(number) + 200 * "x" for number in range(99)], None)


def test_names_cannot_steer_a_terminal():
    with pytest.raises(ValueError, match=r"one of a, '\\x1b\[2Jb\\n'$"):
        pick(["a", "\x1b[2Jb\n"], None)


def test_shapes_that_are_none():
    for shape in ((-1, 2), (1.0, 2), (True, 2), (1,) * 40):
        with pytest.raises(ValueError, match="is none"):
            claim(np.dtype("f4"), shape)


BAIT = """
import resource, sys
import numpy, zlib, zipfile, json, torch
from vad_pseudoaug.features import open_features
from vad_pseudoaug.checkpoint import read_tensors
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    read = read_tensors if path.endswith("state.safetensors") else open_features
    try:
        read(path)
    except ValueError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def npy_head(text):
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text


def test_bait_is_refused_before_memory_is_taken(tmp_path):
    shape = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 10, 2048)}\n"
    (tmp_path / "shape.npy").write_bytes(npy_head(shape))
    large = npy_head(shape.replace(b"1000000, 10, 2048", b"2048, 32768"))
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("features.npy", "w") as member,
    ):
        member.write(large)
        for _ in range(256):
            member.write(bytes(1 << 20))
    with (tmp_path / "header.npy").open("wb") as file:
        file.write(b"\x93NUMPY\x02\0" + (2**32 - 1).to_bytes(4, "little"))
        file.truncate(5 << 30)
    for name in ("header.safetensors", "state.safetensors"):
        with (tmp_path / name).open("wb") as file:
            file.write((99 << 20).to_bytes(8, "little"))
            file.truncate(5 << 30)
    entry = {"dtype": "F32", "shape": [2**20, 2**10], "data_offsets": [0, 2**32]}
    head = json.dumps({"features": entry}).encode()
    (tmp_path / "offsets.safetensors").write_bytes(
        len(head).to_bytes(8, "little") + head
    )
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", BAIT, *paths], capture_output=True, text=True, check=True
    )
    *messages, grown = done.stdout.splitlines()
    assert len(messages) == len(paths) == 6
    assert int(grown) < 32
