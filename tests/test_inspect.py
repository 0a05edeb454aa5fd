"""What `inspect` says of feature files."""

import json

import numpy as np
import pytest

from vad_pseudoaug.cli import main
from vad_pseudoaug.data import ped2
from vad_pseudoaug.inspection import inspect_files


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        video = rng.random((4 + number, 2, 6), dtype=np.float32)
        np.save(tmp_path / f"v{number}.npy", video)
    (tmp_path / "all.list").write_text("v0.npy\nv1.npy\nv2.npy\n")
    return tmp_path


def figures(capsys, *arguments):
    assert main(["inspect", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["", "all.list"])
def test_folder_and_list_say_the_same(folder, capsys, name):
    found = figures(capsys, folder / name)
    assert (found["num_files"], found["layout"]) == (3, "TND")
    assert (found["num_crops"], found["feature_dim"]) == (2, 6)
    assert found["lengths"] == [4, 5, 6]
    assert found["dtype"] == "float32"
    assert "clamped at 0" in found["taken_for"]
    norms = [
        np.linalg.norm(np.load(path), axis=-1).ravel() for path in folder.glob("*.npy")
    ]
    low, *_, high = found["norms"]
    assert low == pytest.approx(np.concatenate(norms).min())
    assert high == pytest.approx(np.concatenate(norms).max())


def test_one_file_and_another_layout(folder, capsys):
    found = figures(capsys, folder / "v1.npy", "--layout", "NTD")
    assert (found["num_crops"], found["lengths"]) == (5, [2])
    assert "layout='NTD'" in found["call"]


@pytest.mark.parametrize("name", ["", "all.list", "v1.npy"])
@pytest.mark.parametrize("layout", ["TND", "NTD"])
def test_the_call_runs_as_it_is(folder, capsys, name, layout):
    if layout == "NTD":
        for path in folder.glob("*.npy"):
            np.save(path, np.load(path).transpose(1, 0, 2))
    found = figures(capsys, folder / name, "--layout", layout)
    assert str(folder / name) in found["call"]
    files = [folder / "v1.npy"]
    for call, lengths in (
        (found["call"], found["lengths"]),
        (inspect_files(files, layout=layout).call, [5]),
    ):
        names = {}
        exec(call, names)
        assert [video.shape[1] for video in names["videos"]] == lengths


def test_the_shipped_features(capsys):
    assert main(["inspect", str(ped2() / "normal.list")]) == 0
    out = capsys.readouterr().out
    assert "16, float16" in out
    assert f"VideoSet({str(ped2() / 'normal.list')!r})" in out
    assert "PseudoVideoSampler.fit(normal, abnormal)" in out
    assert "#" in out


def test_one_array_of_several(folder, capsys):
    np.savez(folder / "two.npz", rgb=np.ones((4, 6)), flow=np.ones((4, 6)))
    assert main(["inspect", str(folder / "two.npz")]) == 2
    assert "pass key=, one of rgb, flow" in capsys.readouterr().err
    assert "key='rgb'" in figures(capsys, folder / "two.npz", "--key", "rgb")["call"]


def test_unit_norms_and_signs_are_recognised(tmp_path, capsys):
    video = np.random.default_rng(0).normal(size=(5, 512))
    np.save(tmp_path / "a.npy", video)
    found = figures(capsys, tmp_path / "a.npy")
    assert "both signs" in found["taken_for"]
    assert found["layout"] == "TD"
    np.save(tmp_path / "a.npy", video / np.linalg.norm(video, axis=1, keepdims=True))
    found = figures(capsys, tmp_path / "a.npy")
    assert "norms are 1" in found["taken_for"]
    assert "CLIP" in found["taken_for"]


def test_values_that_are_not_finite_are_counted(folder, capsys):
    video = np.load(folder / "v1.npy")
    video[2, 1, :3] = np.nan
    np.save(folder / "v1.npy", video)
    found = figures(capsys, folder)
    assert found["num_not_finite"] == 3
    assert found["not_finite_files"] == [str(folder / "v1.npy")]
    assert main(["inspect", str(folder)]) == 0
    assert "--skip-bad" in capsys.readouterr().out
    np.save(folder / "v1.npy", np.full((3, 2, 6), np.nan))
    assert main(["inspect", str(folder / "v1.npy")]) == 0
    assert "no finite snippet" in capsys.readouterr().out
    assert figures(capsys, folder / "v1.npy")["norms"] is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v0.npy", b"", "not readable as features"),
        ("v2.npy", None, "as in"),
        ("missing.npy", None, "no such feature file"),
        ("missing.list", None, "expected a list file"),
    ],
)
def test_bad_files_are_one_sentence(folder, capsys, name, content, message):
    if content is not None:
        (folder / name).write_bytes(content)
    elif name == "v2.npy":
        np.save(folder / name, np.ones((3, 2, 5)))
    path = folder / name if name.startswith("missing") else folder
    assert main(["inspect", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert name in error
    assert message in error


def test_an_empty_folder(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 2
    assert "the folder has none" in capsys.readouterr().err


def test_runs_and_masks_are_no_features(folder, capsys):
    before = figures(capsys, folder)
    run, pseudo = folder / "run", folder / "pseudo"
    (pseudo / "masks" / "pseudo_abnormal").mkdir(parents=True)
    run.mkdir()
    (run / "config.json").write_text("{}")
    (run / "model-0123456789ab.safetensors").write_bytes(b"no features")
    (pseudo / "manifest.json").write_text("{}")
    np.save(pseudo / "masks" / "pseudo_abnormal" / "a.npy", np.ones(3, bool))
    after = figures(capsys, folder)
    assert after["num_files"] == before["num_files"]
    assert main(["inspect", str(run)]) == 2
    assert "holds a run, not features" in capsys.readouterr().err
    assert main(["inspect", ""]) == 2
    assert "expected a path, got an empty one" in capsys.readouterr().err
