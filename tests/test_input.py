"""The table of docs/input.md: each row is done, and what is seen is what it says."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from safetensors.numpy import save_file

from list_files import list_options, write_lists
from vad_pseudoaug import PseudoVideoSampler, VideoSet
from vad_pseudoaug.cli import main
from vad_pseudoaug.items import as_tensor

PAGE = Path(__file__).parent.parent / "docs" / "input.md"
TABLES = PAGE.read_text().partition("## Ground truth")[0]  # see test_hostile_labels.py
ROWS = dict(re.findall(r"^\| (?!input|---)(.+?) \| (.+) \|$", TABLES, re.M))
VIDEO = np.random.default_rng(0).random((6, 2, 12), dtype=np.float32)  # (T, N, D)
TRAIN = [
    *(
        "--recipe",
        "paper",
        "--hidden-dims",
        "8",
        "--latent-dim",
        "2",
        "--epochs",
        "1",
        "--threshold",
        "0.1",
    ),
    *("--baseline-epochs", "1", "--baseline-hidden-dims", "8"),
]


class Harm:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self):
        return os.mkdir, ("harmed",)


def messages(row):
    """What the row says is seen, as patterns: `...` stands for anything."""
    return [
        ".*".join(re.escape(part) for part in text.split("..."))
        for text in re.findall("`(.+?)`", ROWS[row])
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = VIDEO.transpose(1, 0, 2)
    write_lists(tmp_path, [[video + s + n for n in range(4)] for s in (0, 1)])
    return tmp_path


def fit(*more):
    return main(["fit", *list_options(), "-o", "run", *TRAIN, *more])


def assert_refused(capsys, pattern, *more):
    """Fit; see one sentence of the table, code 2, and nothing written."""
    before = sorted(Path().rglob("*"))
    assert fit(*more) == 2
    seen = capsys.readouterr().err
    assert seen.startswith("error: ")
    assert seen.count("\n") == 1, seen
    assert re.search(pattern, seen), f"{seen!r} is not {pattern!r}"
    assert sorted(Path().rglob("*")) == before


def put(name):
    """Put another file in the place of the third normal video."""
    rows = Path("normal.list").read_text()
    Path("normal.list").write_text(rows.replace("normal2.npy", name))
    return Path(name)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def save(array):
    return lambda: np.save("normal2.npy", array, allow_pickle=True)


def npz(compression=None, **arrays):
    path = put("video.npz")
    (np.savez_compressed if compression else np.savez)(path, **arrays)
    return path


def write(content):
    Path("normal2.npy").write_bytes(content)


def npy_header(text, length=None, version=1):
    size = struct.pack("<H" if version == 1 else "<I", length or len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode()


def truncated_archives():
    cut(npz(features=VIDEO))


def truncated_mat():
    path = put("video.mat")
    scipy.io.savemat(path, {"features": VIDEO})
    cut(path)


def truncated_safetensors():
    save_file({"features": VIDEO}, put("video.safetensors"))
    cut(Path("video.safetensors"))


def lying_safetensors(start, end):
    def make():
        entry = {"dtype": "F32", "shape": [6, 2, 12], "data_offsets": [start, end]}
        header = json.dumps({"features": entry}).encode()
        content = struct.pack("<Q", len(header)) + header + VIDEO.tobytes()
        put("video.safetensors").write_bytes(content)

    return make


def large_safetensors_header():
    with put("video.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 100 << 20))
        file.truncate(200 << 20)


def bomb_mat():
    """A compressed matrix of 512 MiB, in half a MiB."""
    inner = struct.pack("<2I2I", 6, 8, 6, 0) + struct.pack("<2I2i", 5, 8, 2**26, 1)
    inner += struct.pack("<2I4s4x", 1, 4, b"rgbx") + struct.pack("<2I", 9, 2**29)
    packer = zlib.compressobj(9)
    data = packer.compress(struct.pack("<2I", 14, len(inner) + 2**29) + inner)
    data += b"".join(packer.compress(bytes(1 << 24)) for _ in range(32))
    data += packer.flush()
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    put("video.mat").write_bytes(head + struct.pack("<2I", 15, len(data)) + data)


def other_methods():
    with zipfile.ZipFile(put("video.npz"), "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("features.npy", npy_header("{}"))


def matlab_objects():
    path = put("video.mat")
    cells = np.array([VIDEO, {"a": VIDEO}], dtype=object)
    scipy.io.savemat(path, {"cells": cells, "struct": {"deep": VIDEO}, "text": "abc"})


def list_of(*rows, name="normal.list"):
    return lambda: Path(name).write_bytes(b"\n".join(rows))


def in_place_of_the_list(make):
    def replace():
        Path("normal.list").unlink()
        make(Path("normal.list"))

    return replace


NPY = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }\n"
# For each row of refusals, what leads to the messages that it shows, in their order;
# the last message serves for all that are left.
REFUSED = {
    "an empty file": [lambda: write(b"")],
    "a truncated `.npy`": [lambda: cut(Path("normal2.npy"))],
    "a truncated `.npz`, `.mat`, `.safetensors`": [
        truncated_archives,
        truncated_mat,
        truncated_safetensors,
    ],
    "no snippets, `(0, N, D)`": [save(np.zeros((0, 3, 12)))],
    "an array of python objects": [save(np.array([{}, Harm()], dtype=object))],
    "complex numbers, truth values": [save(VIDEO.astype("c16"))],
    "one axis or four": [save(np.zeros(5))],
    "crops and snippets swapped": [save(np.zeros((10, 45, 12)))],
    "another feature size than the other videos": [save(VIDEO[..., :11])],
    "NaN or infinity": [save(np.full((3, 2, 2), np.nan))],
    "numbers beyond float32, such as 1e300": [save(np.full((3, 2, 12), 1e300))],
    "another kind of file": [lambda: put("video.pt").write_bytes(b"PK")],
    "several arrays in one file": [lambda: npz(rgb=VIDEO, flow=VIDEO)],
    "a row without a file": [list_of(b"normal0.npy", b"", b"gone.npy")],
    "a row that names a folder": [
        lambda: (Path("deep").mkdir(), list_of(b"", b"", b"deep")())
    ],
    "the same file twice, however it is spelled": [
        list_of(b"normal0.npy", b"", b"normal0.npy"),
        list_of(b"normal0.npy", b"", b"./normal0.npy"),
        lambda: list_of(
            b"normal0.npy", b"", os.fsencode(Path("normal0.npy").resolve())
        )(),
    ],
    "no row at all": [list_of(b""), list_of(b"", b"  \r", b"")],
    "a folder, a feature file, UTF-16 in place of the list": [
        in_place_of_the_list(Path.mkdir),
        in_place_of_the_list(lambda path: path.write_bytes(b"\x93NUMPY\x01\0")),
        in_place_of_the_list(lambda path: path.write_text("a.npy", "utf-16")),
    ],
    "a file that is in the normal and in the abnormal list": [
        list_of(b"normal0.npy", b"abnormal0.npy")
    ],
    "a pickle called `.npy`, or inside a `.npz`": [
        lambda: write(pickle.dumps(Harm())),
        lambda: npz(features=np.array([Harm()], dtype=object)),
    ],
    "a header of megabytes": [
        lambda: write(npy_header("{" + " " * 10**6, 4 * 10**9, version=2))
    ],
    "a shape that the file has no room for": [
        lambda: write(npy_header(NPY % f"{10**9}, 10, 2048")),
        lambda: write(npy_header(NPY % f"{10**18}, {10**18}")),
    ],
    "an archive that unpacks to over 100 times its size": [
        lambda: npz(compression=True, features=np.zeros((2**20, 2, 12), np.float32)),
        bomb_mat,
    ],
    "`.mat` cells, structs, objects, functions": [matlab_objects],
    "safetensors whose offsets lie outside the file, or overlap other sizes": [
        lying_safetensors(0, 600),
        lying_safetensors(-576, 0),
        lying_safetensors(10**18, 10**18 + 576),
        lying_safetensors(10, 20),
    ],
}


@pytest.mark.parametrize(
    ("row", "number"),
    [(row, number) for row, cases in REFUSED.items() for number in range(len(cases))],
)
def test_refused_by_the_sentence_of_the_table(folder, capsys, row, number):
    REFUSED[row][number]()
    patterns = messages(row)
    assert_refused(capsys, patterns[min(number, len(patterns) - 1)])
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: write(npy_header("{'descr': ")), "not readable"),
        (lambda: write(npy_header(NPY % "-1, 12")), "is none"),
        (lambda: write(npy_header(NPY % "True, 12")), "is none"),
        (lambda: write(b"\x93NUMPY\x03\x00" + bytes(200)), "version 1.0 or 2.0"),
        (large_safetensors_header, "16777216 are allowed"),
        (other_methods, "compressed by method 14, not deflate"),
        (save(VIDEO.astype([("a", "f4"), ("b", "f4")])), "array of plain numbers"),
        (save(np.array(["a"])), "array of plain numbers"),
        (save(np.array(["2020-01-01"], "datetime64[s]")), "array of plain numbers"),
    ],
)
def test_refused_in_other_ways(folder, capsys, make, message):
    make()
    assert_refused(capsys, message)


def test_one_list_only_or_the_same_list_twice(folder, capsys):
    first, second = messages("one list only, or the same list twice")
    with pytest.raises(ValueError, match=first):
        PseudoVideoSampler.fit("normal.list", [])
    Path("abnormal.list").write_bytes(Path("normal.list").read_bytes())
    assert_refused(capsys, second.replace("8", "4"))


def test_what_is_used(folder):
    """All that the table says is used, in one run: fit, generate, read again."""
    variants = {
        "half.npy": VIDEO.astype("f2"),
        "double.npy": VIDEO.astype("f8"),
        "whole.npy": (VIDEO * 100).astype("i4"),
        "bytes.npy": (VIDEO * 100).astype("u1"),
        "swapped.npy": VIDEO.astype(">f4"),
        "fortran.npy": np.asfortranarray(VIDEO),
        "one.npy": VIDEO[:1],
    }
    for name, array in variants.items():
        np.save(name, array)
    strange = os.fsdecode(b"caf\xe9.npy")
    np.save(strange, VIDEO)
    absolute, deep = folder / "absolute.npy", folder / "deep"
    np.save(absolute, VIDEO)
    deep.mkdir()
    np.save("deep/up.npy", VIDEO)
    rows = [*variants, "", f"  {absolute}\t", "deep/../deep/up.npy"]
    content = "\r\n".join(rows).encode() + b"\r\n" + os.fsencode(strange) + b"\r\n\r\n"
    Path("normal.list").write_bytes(b"\xef\xbb\xbf" + content)
    videos = VideoSet("normal.list")
    assert len(videos) == len(variants) + 3
    for (name, array), video in zip(variants.items(), videos, strict=False):
        assert video.dtype == np.float32, name
        np.testing.assert_array_equal(
            video, array.astype(np.float32).transpose(1, 0, 2)
        )
    assert fit() == 0
    Path("one.list").write_text("one.npy\n")
    generate = ["generate", "run", "-o", "pseudo", "--per-video", "1"]
    assert main([*generate, "--normal", "one.list"]) == 0
    [one] = Path("pseudo/pseudo_abnormal").glob("*_one.npy")
    assert np.load(f"pseudo/masks/pseudo_abnormal/{one.name}").tolist() == [True]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "change",
    [
        read_only,
        lambda video: np.repeat(video, 2, axis=2)[..., ::2],
        lambda video: video[:, ::-1][:, ::-1],
        np.asfortranarray,
        *(lambda v, dtype=dtype: v.astype(dtype) for dtype in (">f4", ">f8", "f8")),
        *(lambda v, dtype=dtype: v.astype(dtype) for dtype in ("f2", "i4", "u1")),
        torch.from_numpy,
        lambda video: torch.from_numpy(video).to(torch.float64).requires_grad_(),
    ],
)
def test_arrays_in_memory_become_float32_copies(change):
    assert (
        "float32 copy"
        in ROWS["an array in memory that is read-only, not contiguous, big-endian, ..."]
    )
    video = (VIDEO * 100).round().transpose(1, 0, 2)  # (N, T, D), exact in all dtypes
    given = change(np.ascontiguousarray(video))
    tensor = VideoSet([given]).tensor(0)
    assert tensor.dtype == torch.float32
    assert tensor.numpy().flags.writeable
    np.testing.assert_array_equal(tensor.numpy(), video)
    tensor.zero_()
    assert bool(
        (np.asarray(torch.as_tensor(VideoSet([given]).tensor(0))) == video).all()
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (VIDEO.astype(object), "expected real numbers, got dtype object"),
        (VIDEO.astype(str), "expected real numbers, got dtype <U32"),
        (VIDEO > 0.5, "expected real numbers, got dtype bool"),
        (VIDEO + 1j, "expected real numbers, got dtype complex64"),
        (VIDEO[0, 0], "expected two axes"),
        (VIDEO[None], "expected two axes"),
        (VIDEO[:0], "the video is empty"),
        (VIDEO * np.inf, "expected finite values, got inf"),
        (VIDEO[..., :11], r"as in normal\[0\], got 6 of 11"),
        (VIDEO.tolist(), "a floating array of two or more axes"),
        (None, "a floating array of two or more axes"),
    ],
)
def test_arrays_in_memory_that_are_no_video(given, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        list(VideoSet([VIDEO, given], name="normal"))
    assert "\n" not in str(caught.value)
    with pytest.raises((ValueError, TypeError)):
        PseudoVideoSampler.fit([VIDEO, given], [VIDEO], epochs=1)


@pytest.mark.parametrize(
    "change",
    [
        read_only,
        lambda video: video[:, ::-1],
        lambda video: video[::2],
        np.asfortranarray,
        *(lambda v, dtype=dtype: v.astype(dtype) for dtype in (">f4", ">f8", "f2")),
    ],
)
def test_any_floating_array_is_a_tensor(change):
    array = change(VIDEO.copy())
    np.testing.assert_array_equal(as_tensor(array).numpy(), array)


def test_tensors_are_shared_and_whole_numbers_refused():
    array = VIDEO.copy()
    as_tensor(array)[0] = 7
    assert (array[0] == 7).all()
    tensor = torch.from_numpy(array)
    assert as_tensor(tensor) is tensor
    for value in (VIDEO.astype("i4"), VIDEO > 1, tensor.int(), VIDEO.astype(object)):
        with pytest.raises(TypeError, match="features: expected floating numbers, got"):
            as_tensor(value)
    with pytest.raises(TypeError, match="an array or tensor, got list"):
        as_tensor([1.0])


def test_the_table_has_no_row_without_a_test():
    elsewhere = {  # what is used; checkpoints: test_checkpoint.py, test_training.py
        "float32 `.npy`, `(T, D)` or `(T, N, D)`",
        "float16, float64, whole numbers, big-endian, Fortran order",
        "an array in memory that is read-only, not contiguous, big-endian, ...",
        "a video of 1 snippet",
        "blank rows, spaces around a row, CRLF, a byte order mark",
        "file names that are not UTF-8",
        "rows with an absolute path, or with `..`",
        "one list only, or the same list twice",
        "a `config.json` with huge widths or thousands of layers",
        "a `config.json` that names weights in another folder",
        "weights that are changed, not finite, or not floating",
        "weights of two dtypes, a scale of 0, class means or a scorer of another size",
        "the state of an unfinished fit with tensors of other sizes, or figures of "
        "other epochs",
        "a `config.json` of over 64 MiB, nested without end, with infinite or endless "
        "numbers",
    }
    assert set(ROWS) == elsewhere | set(REFUSED)
