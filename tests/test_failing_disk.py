"""Disks that fail in the midst of a command: one sentence, nothing finished lost."""

import errno
import os
import re
from contextlib import contextmanager

import pytest

from list_files import list_options, write_lists
from vad_pseudoaug import training
from vad_pseudoaug.cli import main

CODES = [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO]
TINY = [
    *("--recipe", "paper", "--threshold", "0.1"),
    *("--hidden-dims", "8", "--latent-dim", "2", "--epochs", "3"),
    *("--baseline-epochs", "2", "--baseline-hidden-dims", "8"),
]
FIT = ["fit", *list_options(), "-o", "run", *TINY]
GENERATE = ["generate", "run", "--per-video", "3", "--relative", "-o", "pseudo"]
COMPARE = [
    *("compare", "-o", "compare", "--seeds", "2", "--hosts", "hosts.means:train"),
    *("--arms", "none", "double=duplicate:per_video=1"),
]


@pytest.fixture
def place(videos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lists(tmp_path, videos)
    return tmp_path


def contents(folder):
    return {
        str(path.relative_to(folder)): re.sub(
            rb'"seconds": .*|,[^,\n]*\n'
            if path.name == "runs.csv"
            else rb"\"seconds.*",
            b"",
            path.read_bytes(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def failing(number, code):
    """Let the n-th write, and those after it, fail."""
    original, calls = os.fsync, 0

    def fsync(handle):
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(code, os.strerror(code))
        original(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        yield


def fails_with_one_sentence(command, capsys, code):
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ")
    assert f"not written: {os.strerror(code)}: '" in said


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("number", [1, 2, 5, 20, 37])
def test_generate_goes_on_where_the_disk_was_full(place, capsys, code, number):
    assert main(FIT) == 0
    with failing(number, code):
        fails_with_one_sentence(GENERATE, capsys, code)
    before = contents(place / "pseudo") if (place / "pseudo").exists() else {}
    assert not [name for name in before if "/." in f"/{name}"]
    written = max(number - 2, 0)  # after the manifest, a record for each 16 files
    arrays = [name for name in before if name.endswith(".npy")]
    assert len(arrays) == written - written // 17
    assert main(GENERATE) == 0
    after = contents(place / "pseudo")
    assert before.items() <= after.items()
    assert main([*GENERATE[:-1], "whole"]) == 0
    assert contents(place / "whole") == after


@pytest.mark.parametrize("code", CODES)
def test_fit_goes_on_where_the_disk_was_full(place, capsys, code, monkeypatch):
    assert main(FIT) == 0
    whole = contents(place / "run")
    monkeypatch.setattr(training, "SECONDS_BETWEEN_SAVES", -1.0)
    for number in (1, 2, 3, 4):
        command = [*FIT[:6], f"again{number}", *TINY]
        with failing(number, code):
            fails_with_one_sentence(command, capsys, code)
        found = contents(place / f"again{number}")
        assert set(found) <= {"training.safetensors"}
        assert bool(found) == (number > 1)
        assert main(command) == 0
        weights = [name for name in whole if name.startswith("model-")]
        assert weights
        found = contents(place / f"again{number}")
        assert all(found[name] == whole[name] for name in weights)


@pytest.mark.parametrize("number", [1, 2, 3, 6, 10])
def test_compare_goes_on_where_the_disk_was_full(place, capsys, number):
    assert main(COMPARE) == 0
    whole = contents(place / "compare")
    command = [*COMPARE[:2], "again", *COMPARE[3:]]
    with failing(number, errno.ENOSPC):
        fails_with_one_sentence(command, capsys, errno.ENOSPC)
    before = contents(place / "again") if (place / "again").exists() else {}
    assert main(command) == 0
    after = contents(place / "again")
    assert before.items() <= after.items()
    assert {n: c for n, c in after.items() if not n.endswith(".png")} == {
        n: c for n, c in whole.items() if not n.endswith(".png")
    }


@pytest.mark.parametrize("command", [GENERATE, FIT])
def test_a_video_that_vanished_is_named(place, capsys, command):
    assert main(FIT) == 0
    assert main(GENERATE) == 0
    run, pseudo = contents(place / "run"), contents(place / "pseudo")
    (place / "abnormal3.npy").rename(place / "moved.npy")
    where = "no abnormal videos" if command is GENERATE else "abnormal.list, row 4"
    assert main([*command[:-1], "other"] if command is GENERATE else FIT) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert where in said[0]
    assert contents(place / "run") == run
    assert contents(place / "pseudo") == pseudo


def test_a_video_that_vanishes_while_generating_is_named(place, capsys, monkeypatch):
    assert main(FIT) == 0
    original, count = os.fsync, 0

    def fsync(handle):
        nonlocal count
        count += 1
        if count == 5:
            (place / "abnormal5.npy").rename(place / "moved.npy")
        original(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    assert main(GENERATE) == 2
    [said] = capsys.readouterr().err.strip().splitlines()
    assert "abnormal5.npy: no such feature file" in said
    before = contents(place / "pseudo")
    assert len(before) > 1
    (place / "moved.npy").rename(place / "abnormal5.npy")
    assert main(GENERATE) == 0
    assert before.items() <= contents(place / "pseudo").items()
