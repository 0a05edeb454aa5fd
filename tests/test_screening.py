"""Bad videos are set aside with a report, instead of stopping at them."""

import json
from pathlib import Path

import numpy as np
import pytest

from list_files import list_options, write_lists
from vad_pseudoaug.cli import main
from vad_pseudoaug.screening import screen_list, screen_pair

VIDEO = np.random.default_rng(0).random((6, 2, 12), dtype=np.float32)  # (T, N, D)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = VIDEO.transpose(1, 0, 2)
    write_lists(tmp_path, [[video + s + n for n in range(6)] for s in (0, 1)])
    return tmp_path


def spoil():
    np.save("normal0.npy", VIDEO[..., :11])
    Path("normal1.npy").write_bytes(b"")
    Path("normal2.npy").unlink()
    np.save("normal4.npy", np.full_like(VIDEO, np.inf))
    with Path("normal.list").open("a") as rows:
        rows.write("\n\nnormal3.npy\nabnormal0.npy\n")


def test_screening_names_each_bad_video(folder):
    spoil()
    found = screen_list("normal.list")
    assert [path.name for path in found.good] == [
        "normal3.npy",
        "normal5.npy",
        "abnormal0.npy",
    ]
    assert [(path.name, reason[:46]) for path, reason in found.bad] == [
        ("normal0.npy", "2 crops of size 11, the others have 2 crops of"),
        ("normal1.npy", "not readable as features: the content is not t"),
        ("normal2.npy", "no such feature file"),
        ("normal4.npy", "expected finite values, got inf at crop 0, sni"),
        ("normal3.npy", "is named in row 4 already"),
    ]


def test_a_video_of_both_classes_is_used_in_none(folder):
    spoil()
    said = []
    normal, abnormal = screen_pair("normal.list", "abnormal.list", say=said.append)
    assert [path.name for path in normal.good] == ["normal3.npy", "normal5.npy"]
    assert [path.name for path, _ in abnormal.bad] == ["abnormal0.npy"]
    assert said[5] == "skipped abnormal0.npy: is in the list of the other class too"
    assert said[-1] == "abnormal.list: 5 of 6 videos are used"


def test_links_in_a_circle_and_endless_names_are_set_aside(folder):
    Path("a.npy").symlink_to("b.npy")
    Path("b.npy").symlink_to("a.npy")
    with Path("normal.list").open("a") as rows:
        rows.write(f"\na.npy\n{'long' * 99}.npy\n")
    found = screen_list("normal.list")
    assert len(found.good) == 6
    first, second = (reason for _, reason in found.bad)
    assert first == "no such feature file"
    # By the version of Python, the system's word or that there is no such file.
    assert "too long" in second or second == first


def test_lists_without_a_good_video(folder):
    with pytest.raises(ValueError, match="none of 6 videos can be used, such as"):
        screen_pair("normal.list", "normal.list", say=str)
    Path("normal.list").write_text("\n")
    with pytest.raises(ValueError, match="names no feature file"):
        screen_list("normal.list")


def test_fit_goes_on_without_them_and_says_so(folder, capsys):
    spoil()
    fit = ["fit", *list_options()]
    small = ["--recipe", "paper", "--hidden-dims", "8", "--latent-dim", "2"]
    small += ["--epochs", "1", "--baseline-epochs", "1", "--threshold", "0.1"]
    assert main([*fit, *small, "-o", "run"]) == 2
    assert not Path("run").exists()
    assert main([*fit, *small, "-o", "run", "--skip-bad"]) == 0
    said = capsys.readouterr().err
    assert "skipped normal2.npy: no such feature file\n" in said
    assert "normal.list: 2 of 8 videos are used\n" in said
    skipped = json.loads(Path("run/skipped.json").read_text())
    assert [len(skipped[name]) for name in ("normal", "abnormal")] == [6, 1]
    assert skipped["abnormal"][0]["file"] == "abnormal0.npy"
    assert main(["generate", "run", "-o", "pseudo"]) == 0
