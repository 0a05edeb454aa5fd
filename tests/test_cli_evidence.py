"""The commands `check` and `compare`, in process: exit codes, files, messages."""

import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from list_files import list_options, write_lists
from vad_pseudoaug import check as check_module
from vad_pseudoaug.arms import KINDS
from vad_pseudoaug.cli import main
from vad_pseudoaug.compare import HOSTS
from vad_pseudoaug.experiments import EXPERIMENTS

SMALL = [
    *("--hidden-dims", "16", "--latent-dim", "4", "--epochs", "2"),
    *("--baseline-epochs", "40", "--baseline-hidden-dims", "16"),
    *("--baseline-lr", "0.01"),
]


@pytest.fixture(scope="module")
def folder(many_videos, tmp_path_factory):
    """Two list files, and a run that was fitted on them."""
    folder = tmp_path_factory.mktemp("evidence")
    write_lists(folder, many_videos)
    assert main(["fit", *list_options(folder), "-o", str(folder / "run"), *SMALL]) == 0
    return folder


def test_check_is_code_1_where_a_gate_fails(folder, few_draws, capsys):
    assert main(["check", str(folder / "run")]) == 1
    out = capsys.readouterr().out
    assert "gates passed" in out
    assert "FAIL" in out
    assert str(folder / "run" / "report" / "report.html") in out
    assert (folder / "run" / "report" / "report.html").is_file()
    assert not json.loads((folder / "run" / "report" / "gates.json").read_text())[
        "passed"
    ]
    assert (folder / "run" / "held-out" / "config.json").is_file()


def test_check_is_code_0_where_all_gates_pass(
    folder, checked, tmp_path, capsys, monkeypatch
):
    good = [
        gate
        for gate in checked.gates["pseudo abnormal videos"]
        if gate.name == "variance ratio"
    ]
    found = replace(checked, gates={"the model": [good[0]._replace(passed=True)]})
    given = []

    def check_sampler(sampler, normal, abnormal, *, seed):
        given.extend((normal, abnormal, seed))
        return found

    monkeypatch.setattr(check_module, "check_sampler", check_sampler)
    # With videos of one's own the fit is not repeated.
    monkeypatch.setattr(check_module, "refit_on_part", None)
    arguments = ["check", str(folder / "run"), *list_options(folder), "--seed", "7"]
    assert main([*arguments, "-o", str(tmp_path / "page")]) == 0
    assert given == [*list_options(folder)[1::2], 7]
    assert "1 of 1 gates passed" in capsys.readouterr().out
    assert (tmp_path / "page" / "report.html").is_file()


def test_check_refuses_the_videos_of_the_run(folder, capsys):
    assert main(["check", str(folder / "run"), *list_options(folder)]) == 2
    error = capsys.readouterr().err
    message = "error: normal: the sampler was fitted on 10 of these 10 videos, such as "
    assert error.startswith(message)
    assert error.endswith("normal0.npy\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such checkpoint"),
        (["run", "--normal", "normal.list"], "expected both or none"),
    ],
)
def test_check_of_bad_input_is_code_2(folder, arguments, message, capsys):
    run, *more = arguments
    assert main(["check", str(folder / run), *more]) == 2
    assert message in capsys.readouterr().err


def compare(output, *more):
    arguments = ["compare", "-o", str(output), "--seeds", "2"]
    hosts = ["--hosts", "hosts.means:train"]
    return main([*arguments, *hosts, "--arms", "none", "duplicate", *more])


def test_compare_writes_tables_and_pictures_and_goes_on(tmp_path, capsys):
    assert compare(tmp_path) == 0
    out = capsys.readouterr().out
    assert "4 of 4: seed 1, duplicate" in out
    assert "AUC - none" in out
    for name in ("summary.json", "summary.md", "runs.csv", "forest.png", "roc.png"):
        assert (tmp_path / name).stat().st_size > 100
    assert (tmp_path / "summary.md").read_text() in out
    before = (tmp_path / "summary.json").read_bytes()
    assert compare(tmp_path) == 0
    assert "4 of 4" not in capsys.readouterr().out  # every run was there
    assert (tmp_path / "summary.json").read_bytes() == before


def test_compare_takes_some_arms_of_an_experiment(tmp_path, capsys):
    small = "epochs=1,hidden_dims=4,latent_dim=2,baseline_epochs=40,threshold=0.3"
    names = ["--experiment", "table6", "--arms", "none", "ratio 1/2"]
    assert compare(tmp_path, *names, "--set", small) == 0
    assert "| ratio 1/2 | 3 + 2 |" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "1"], "at least 2"),
        (["--arms", "none", "paste"], "unknown arm 'paste'"),
        (["--arms", "none", "none"], "different names"),
        (["--hosts", "forest"], "unknown host 'forest'"),
        (["--against", "cutmix"], "--against: cutmix is none of the arms"),
        (["--set", "epoch=3"], "unknown choice epoch"),
        (["--experiment", "table7"], "unknown experiment 'table7'"),
        (["--truth", "gt.npy"], "there is --truth"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--expect", "shanghaitech"], "expected (175, 63, 155, 44)"),
        (["--processes", "0"], "processes: expected at least 1, got 0"),
        (["--layout", "TD"], "--layout: of --normal, --abnormal and --test"),
    ],
)
def test_compare_of_bad_input_is_code_2(more, message, tmp_path, capsys):
    assert compare(tmp_path, *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "summary.json").exists()


def test_a_host_in_the_working_folder_is_found(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_host_of_this_test.py").write_text(
        "import numpy as np\n"
        "def train(normal, abnormal, seed):\n"
        "    return lambda features: np.zeros(features.shape[1], np.float32)\n"
    )
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.chdir(tmp_path)
    more = ["--hosts", "my_host_of_this_test:train", "--processes", "2"]
    assert compare(tmp_path / "out", *more) == 0
    assert " s left" in capsys.readouterr().out


def test_check_of_too_few_videos_fails_before_the_fit(
    folder, tmp_path, capsys, monkeypatch
):
    for name in ("normal", "abnormal"):
        rows = [f"{folder / name}{number}.npy\n" for number in range(6)]
        (tmp_path / f"{name}.list").write_text("".join(rows))
    assert (
        main(["fit", *list_options(tmp_path), "-o", str(tmp_path / "run"), *SMALL]) == 0
    )
    monkeypatch.setattr("vad_pseudoaug.sampler.fit_vae", None)
    assert main(["check", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "6 normal videos are too few to hold out 4 of them" in error
    assert not (tmp_path / "run" / "held-out").exists()


def test_compare_takes_lists_and_a_ground_truth(folder, tmp_path, capsys):
    names = [f"{name}{i}.npy" for i in (8, 9) for name in ("normal", "abnormal")]
    truth = []
    for name in names:
        length = len(np.load(folder / name))
        own = np.zeros(16 * length, dtype=np.uint8)
        own[8 * length :] = name.startswith("abnormal")
        truth.append(own)
    np.save(tmp_path / "gt.npy", np.concatenate(truth))
    for name in ("normal", "abnormal"):
        rows = [f"{folder / name}{i}.npy\n" for i in range(8)]
        (tmp_path / f"{name}.list").write_text("".join(rows))
    rows = [f"{folder / name}\n" for name in names]
    (tmp_path / "test.list").write_text("".join(rows))
    files = [
        *list_options(tmp_path),
        *("--test", str(tmp_path / "test.list")),
        *("--truth", str(tmp_path / "gt.npy")),
    ]
    assert compare(tmp_path / "out", *files) == 0
    assert "8 normal and 8 abnormal videos to train, 2 and 2" in capsys.readouterr().out
    np.save(tmp_path / "gt.npy", np.concatenate(truth)[:-1])
    assert compare(tmp_path / "other", *files) == 2
    assert "the 4 test videos have" in capsys.readouterr().err


def test_help_teaches(capsys):
    for command in ("check", "compare"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "Exits with 1 where a gate fails" in " ".join(out.split())
    assert "--truth gt-sh.npy" in out
    told = set(re.findall(r"[\w-]+", out.partition("experiments: ")[2]))
    assert told >= {*KINDS, *HOSTS, *EXPERIMENTS} - {"table4", "table5"}


def test_check_of_a_run_whose_videos_are_elsewhere_says_what_to_do(
    many_videos, few_draws, tmp_path, capsys
):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    write_lists(old, many_videos)
    assert main(["fit", *list_options(old), "-o", str(tmp_path / "run"), *SMALL]) == 0
    old.rename(new)
    for held_out in ([], list_options(new)):
        assert main(["check", str(tmp_path / "run"), *held_out]) == 2
        error = capsys.readouterr().err
        assert "normal and abnormal videos that the run was fitted on" in error
    command = ["fit", "--config", str(tmp_path / "run"), *list_options(new)]
    assert "`fit --config" in error
    assert main([*command, "-o", str(tmp_path / "again")]) == 0
    assert main(["check", str(tmp_path / "again")]) in (0, 1)


def test_check_of_one_class_takes_no_abnormal_videos(folder, tmp_path, capsys):
    normal = ["--normal", str(folder / "normal.list")]
    run = str(tmp_path / "run")
    small = ["--hidden-dims", "16", "--latent-dim", "4", "--epochs", "1"]
    assert main(["fit", *normal, "-o", run, *small]) == 0
    capsys.readouterr()
    assert main(["check", run, "--abnormal", str(folder / "abnormal.list")]) == 2
    assert "learned of normal videos alone" in capsys.readouterr().err
