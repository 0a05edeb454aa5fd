"""Ground truth and results that nobody vouches for: refused before memory is taken."""

import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
import torch

from vad_pseudoaug.entries import Entry, has_entry, read_entry, write_entry
from vad_pseudoaug.ground_truth import MAX_LABELS, read_archive, read_ground_truth
from vad_pseudoaug.protocol import read_folder

MIB = 1 << 20


def npy(shape, descr="|u1", values=b""):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text.encode() + values


def element(kind, content):
    return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)


def variable(flags, shape, values, name=b""):
    """One variable of a level 5 file: flags, shape and name, then its values."""
    head = element(6, struct.pack("<2I", flags, 0))
    head += element(5, struct.pack(f"<{len(shape)}i", *shape)) + element(1, name)
    return element(14, head + values)


def doubles(*rows):
    values = np.array(rows, dtype="<f8")
    shape = values.shape if values.ndim == 2 else (0, 0)
    return variable(6, shape, element(9, values.tobytes(order="F")))


def mat(*cells, shape=None, packed=False):
    shape = (1, len(cells)) if shape is None else shape
    content = variable(1, shape, b"".join(cells), b"gt")
    if packed:
        content = zlib.compress(content)
        content = struct.pack("<2I", 15, len(content)) + content
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + content


def write(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in content.items():
            archive.writestr(name, member)


HUGE = npy("(1000000000000,)")
HALF = npy(f"({40 * MIB},)", values=bytes(40 * MIB))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gt.npy", b"\x93NUMPY\2\0" + b"\xff" * 4, "claims 4294967295 bytes, at most"),
        ("gt.npy", HUGE, r"claims an array \[1000000000000\] of 1000000000000 bytes"),
        ("gt.npy", npy("(3,)", "|O", bytes(24)), "got dtype object"),
        ("gt.npy", b"\x80\x04K\x01.", "not that of a .npy file"),
        ("gt.npz", {"a.npy": HUGE}, r"claims an array \[1000000000000\]"),
        ("gt.npz", {"a.npy": HALF, "b.npy": HALF}, "that unpack to 83886"),
        ("gt.npz", {"a.npy": npy("(3,)", "|O", bytes(24))}, "got dtype object"),
        ("gt.npz", {"a.npy": npy("(3,)"), "b": b"text"}, "there are 0"),
        ("gt.npz", {"b\x1b[2J": b"text"}, r"'b\\x1b\[2J' is no array"),
        ("gt.mat", mat(doubles([3], [5]), shape=(1, 2**31 - 1)), "expected 1 cells"),
        ("gt.mat", mat(doubles([3], [5]), shape=(-1, -1)), r"cells, got shape \[-1"),
        ("gt.mat", mat(shape=(1, 1)), "a variable is truncated"),
        ("gt.mat", mat(element(9, bytes(8))), "cell 1 is no whole array"),
        ("gt.mat", mat(struct.pack("<2I", 14, 2**30)), "cell 1 is no whole array"),
        ("gt.mat", mat(variable(1, (1, 1), doubles([1], [2]))), "array of real numb"),
        ("gt.mat", mat(variable(4, (1, 2), element(4, b"ab"))), "array of real numb"),
        ("gt.mat", mat(variable(6, (2**30, 4), element(9, bytes(8)))), "the values"),
        ("gt.mat", mat(doubles([1, 2, 3, 4], [2, 9, 9, np.nan])), "whole numbers"),
        ("gt.mat", mat(doubles([1], [np.inf])), "whole numbers of frames"),
        ("gt.mat", mat(doubles([1.5], [2])), "whole numbers of frames"),
        (
            "gt.mat",
            mat(doubles(*np.zeros((2, 2**18))), packed=True),
            "bytes that unpack",
        ),
    ],
)
def test_refused_by_what_it_claims(name, content, message, tmp_path):
    path = tmp_path / name
    write(path, content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as raised:
            read_ground_truth(path, ["a"], [3])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(raised.value).startswith(f"{path}: ")
    assert most < 8 * MIB


def test_a_text_too_large_for_annotations_is_not_read(tmp_path):
    path = tmp_path / "gt.txt"
    with path.open("wb") as file:
        file.truncate(MAX_LABELS + 1)
    with pytest.raises(
        ValueError, match="expected a text of annotations, got 67108865"
    ):
        read_ground_truth(path, ["a"], [3])


def test_a_video_that_is_annotated_twice_is_refused(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text("a.mp4 Abuse 1 2\nb.mp4 Abuse 1 2\na.mp4 Abuse 3 4\n")
    with pytest.raises(ValueError, match=r"row 3: 'a.mp4 Abuse 3 4' is there twice"):
        read_ground_truth(path, ["a"], [3])


def test_a_byte_order_mark_does_not_matter(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_bytes(b"\xef\xbb\xbfa.mp4 Abuse 2 3 -1 -1\r\n")
    assert read_ground_truth(path, ["a"], [4])[0].tolist() == [0, 1, 1, 0]


def test_complex_labels_are_refused(tmp_path):
    np.save(tmp_path / "gt.npy", np.array([0, 1, 1j]))
    with pytest.raises(ValueError, match="expected one 0 or 1 a frame"):
        read_ground_truth(tmp_path / "gt.npy", ["a"], [3])


def test_names_of_videos_cannot_steer_a_terminal(tmp_path):
    np.savez(tmp_path / "gt.npz", a=np.zeros(3))
    with pytest.raises(FileNotFoundError, match=r"the video '\\x1b\[2Jb'$"):
        read_ground_truth(tmp_path / "gt.npz", ["\x1b[2Jb"], [3])


def test_labels_that_are_packed_well_are_no_bomb(tmp_path):
    labels = {f"v{number}": np.zeros(100_000) for number in range(30)}  # 24 MB
    np.savez_compressed(tmp_path / "gt.npz", **labels)
    assert (tmp_path / "gt.npz").stat().st_size < 240_000
    found = read_ground_truth(tmp_path / "gt.npz", list(labels), [100_000] * 30)
    assert [len(own) for own in found] == [100_000] * 30
    with pytest.raises(ValueError, match="bytes that unpack to"):
        read_archive(tmp_path / "gt.npz")  # as features


@pytest.mark.parametrize("packed", [False, True])
def test_cells_as_matlab_writes_them(packed, tmp_path):
    cells = [doubles([3], [5]), element(14, b""), doubles(), doubles([1, 5], [2, 9])]
    (tmp_path / "gt.mat").write_bytes(mat(*cells, shape=(2, 2), packed=packed))
    found = read_ground_truth(tmp_path / "gt.mat", list("abcd"), [6, 2, 2, 6])
    assert [own.tolist() for own in found] == [
        [0, 0, 1, 1, 1, 0],
        [0, 0],
        [0, 0],
        [1, 1, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<u2", "<i4", "<f4", "<u8"])
@pytest.mark.parametrize("packed", [False, True])
def test_cells_read_as_scipy_reads_them(dtype, packed, tmp_path):
    cells = np.empty((3, 1), dtype=object)
    for number, edges in enumerate(([[1], [4]], [[2, 7], [3, 9]], [[]])):
        cells[number, 0] = np.array(edges, dtype=dtype)
    path = tmp_path / "gt.mat"
    other = {"gt": cells, "text": "abc", "more": np.ones(3)}
    scipy.io.savemat(path, other, do_compression=packed)
    found = read_ground_truth(path, ["a", "b", "c"], [4, 9, 2])
    expected = [[1] * 4, [0, 1, 1, 0, 0, 0, 1, 1, 1], [0, 0]]
    assert [own.tolist() for own in found] == expected


def test_features_that_unpack_without_end_are_refused(tmp_path):
    for name, label in (("train", 0), ("test", 1)):
        (tmp_path / f"{name}.csv").write_text(f"video,label\n{name},{label}\n")
    zeros = np.zeros((500, 1024), np.float32)
    np.savez_compressed(tmp_path / "features.npz", train=zeros, test=zeros)
    with pytest.raises(ValueError, match=r"features\.npz: .*bytes that unpack to 409"):
        read_folder(tmp_path)


def entry(path):
    mask = torch.tensor([True, False, True])
    own = Entry(torch.arange(24.0).reshape(2, 3, 4), mask, False)
    write_entry(path, own, 5, keep=False)
    return own


def test_an_entry_of_a_pool_reads_back(tmp_path):
    own = entry(tmp_path / "a")
    found = read_entry(tmp_path / "a", 5)
    assert torch.equal(found.features, own.features)
    assert torch.equal(found.mask, own.mask)
    assert has_entry(tmp_path / "a", 5)
    assert read_entry(tmp_path / "a", 6) is None
    assert not has_entry(tmp_path / "a", 6)


HEAD = npy("(5,)", "<i8", struct.pack("<5q", 5, 0, 1, 0, 1))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\5\6" + bytes(18),  # an empty archive, which np.load opens as such
        npy("(0,)", "<i8"),
        npy("(2,)", "<f8", struct.pack("<2d", 5, 0)),
        npy("(2, 1)", "<i8", struct.pack("<2q", 5, 0)),
        HEAD,
        HEAD + npy("(1000000, 3, 1000000)", "<f4"),
        HEAD + npy("(2, 3, 4)", "<i4", bytes(96)),
        HEAD + npy("(2, 4, 3)", "<f4", bytes(96)),
        HEAD + npy("(6, 4)", "<f4", bytes(96)),
        HEAD + npy("(2, 3, 4)", "|O", bytes(192)),
    ],
)
def test_what_is_no_entry_of_a_pool_is_made_again(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    assert read_entry(tmp_path / "a", 5) is None
