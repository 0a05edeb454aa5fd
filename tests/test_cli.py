"""The command line, in process; and the files that `generate` writes."""

import json
import subprocess
import sys

import numpy as np
import pytest

from list_files import list_options, write_lists
from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.cli import main
from vad_pseudoaug.features import read_features, read_list

SMALL = [
    *("--recipe", "paper"),
    *("--hidden-dims", "16", "--latent-dim", "4", "--epochs", "2"),
    *("--baseline-epochs", "40", "--baseline-hidden-dims", "16"),
    *("--baseline-lr", "0.01"),
]


@pytest.fixture
def lists(videos, tmp_path):
    write_lists(tmp_path, videos)
    return tmp_path


def fit(lists, *more):
    return main(["fit", *list_options(lists), "-o", str(lists / "run"), *SMALL, *more])


def generate(lists, *more):
    arguments = ["generate", str(lists / "run"), "-o", str(lists / "pseudo"), *more]
    return main(arguments)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_fit_then_generate(lists, capsys):
    assert fit(lists) == 0
    assert "snippets of abnormal videos selected" in capsys.readouterr().out
    recipe = PseudoVideoSampler.from_pretrained(lists / "run").recipe
    assert (recipe.hidden_dims, recipe.epochs, recipe.threshold) == ((16,), 2, 0.5)
    assert generate(lists) == 0
    out = capsys.readouterr().out
    assert "12 pseudo normal" in out
    assert "16 pseudo abnormal" in out
    written = read_list(lists / "pseudo" / "pseudo_abnormal.list")
    assert len(written) == 16
    sources = read_list(lists / "normal.list")
    for number, path in enumerate(written):
        pseudo, source = read_features(path), read_features(sources[number % 8])
        mask = np.load(lists / "pseudo" / "masks" / "pseudo_abnormal" / path.name)
        assert pseudo.shape == source.shape
        assert np.array_equal(pseudo[:, ~mask], source[:, ~mask])
        assert mask.sum() == max(1, len(mask) // 2)


def test_generate_goes_on_where_it_stopped(lists):
    fit(lists)
    generate(lists)
    whole = contents(lists / "pseudo")
    for path in sorted((lists / "pseudo").rglob("*.npy"))[::3]:
        path.unlink()
    (lists / "pseudo" / "pseudo_normal.list").unlink()
    assert generate(lists) == 0
    assert contents(lists / "pseudo") == whole


def test_generate_refuses_a_folder_of_another_run(lists, capsys):
    fit(lists)
    generate(lists)
    before = contents(lists / "pseudo")
    assert generate(lists, "--seed", "1") == 2
    assert "which differs in seed (0, now 1)" in capsys.readouterr().err
    assert contents(lists / "pseudo") == before


@pytest.mark.parametrize(
    ("layout", "dtype", "shape"),
    [("TND", "float16", (5, 2, 12)), ("NTD", "float32", (2, 5, 12))],
)
def test_generate_writes_the_hosts_layout(lists, layout, dtype, shape):
    fit(lists)
    assert generate(lists, "--layout", layout, "--dtype", dtype) == 0
    path = sorted((lists / "pseudo" / "pseudo_abnormal").glob("*0.npy"))[0]
    array = np.load(path)
    assert array.dtype == dtype
    assert array.shape[layout.index("N")] == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "normal0.npy").unlink(), "row 1: no such file"),
        (lambda folder: (folder / "normal0.npy").write_bytes(b""), "not readable"),
        (
            lambda folder: np.save(folder / "normal0.npy", np.ones((4, 2, 3))),
            "same extractor",
        ),
        (
            lambda folder: np.save(folder / "normal3.npy", np.full((4, 2, 12), np.nan)),
            "expected finite values",
        ),
        (lambda folder: (folder / "normal.list").write_text(""), "names no feature"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(lists, capsys, spoil, message):
    spoil(lists)
    assert fit(lists) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (lists / "run" / "config.json").exists()


def test_bad_choices_are_code_2(lists, capsys):
    assert fit(lists, "--share", "0") == 2
    assert "share: expected" in capsys.readouterr().err
    assert generate(lists) == 2
    assert "no such checkpoint" in capsys.readouterr().err
    assert main(["demo", "--draws", "1"]) == 2


def test_ctrl_c_says_how_to_go_on(lists, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("vad_pseudoaug.fitting.train_vae", interrupt)
    assert fit(lists) == 130
    assert "goes on from here" in capsys.readouterr().err


def test_a_run_of_other_choices_is_not_overwritten(lists, capsys, monkeypatch):
    assert fit(lists) == 0
    first = contents(lists / "run")
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("vad_pseudoaug.fitting.train_vae", None)  # nothing is trained
        assert fit(lists) == 0
        assert "run: is there already" in capsys.readouterr().out
        for more in ([], ["--dry-run"]):
            assert fit(lists, "--epochs", "3", *more) == 2
            error = capsys.readouterr().err
            assert "a run that differs in epochs (2, now 3); take another" in error
        for other, named in (("normal", "normal"), ("abnormal", "normal, abnormal")):
            (lists / f"{other}.list").write_text(f"{other}0.npy\n{other}1.npy\n")
            assert fit(lists) == 2
            assert f"differs in {named}; take" in capsys.readouterr().err
    assert contents(lists / "run") == first
    assert fit(lists, "--epochs", "3", "--overwrite") == 0
    assert contents(lists / "run") != first


def test_an_unfinished_run_of_other_choices_is_refused_at_once(
    lists, capsys, monkeypatch
):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vad_pseudoaug.fitting.measure_fit", stop)
        assert fit(lists) == 130
        patch.setattr("vad_pseudoaug.fitting.select_snippets", None)
        for more in ([], ["--dry-run"]):
            assert fit(lists, "--epochs", "3", *more) == 2
            assert "differs in epochs (2, now 3); delete" in capsys.readouterr().err
    assert fit(lists, "--epochs", "3", "--overwrite", "--dry-run") == 0
    assert (lists / "run" / "training.safetensors").exists()
    assert fit(lists, "--epochs", "3", "--overwrite") == 0


@pytest.mark.parametrize("recipe", ["paper", "one-class"])
def test_an_unfinished_run_goes_on_of_the_same_videos_alone(
    lists, capsys, monkeypatch, recipe
):
    command = ["fit", "--normal", str(lists / "normal.list"), "-o", str(lists / "run")]
    if recipe == "paper":
        command += ["--abnormal", str(lists / "abnormal.list")]
    command += [*SMALL[2:], "--recipe", recipe, "--batch-size", "8"]

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vad_pseudoaug.fitting.measure_fit", stop)
        assert main(command) == 130
    (lists / "normal.list").write_text("normal0.npy\nnormal1.npy\nnormal2.npy\n")
    for more in ([], ["--dry-run"]):
        assert main([*command, *more]) == 2
        error = capsys.readouterr().err
        assert "which differs in normal (8 videos (..., 2, 12), content " in error
    assert main([*command, "--overwrite", "--dry-run"]) == 0
    assert main([*command, "--overwrite"]) == 0
    sampler = PseudoVideoSampler.from_pretrained(lists / "run")
    assert len(sampler.normal) == 3
    assert not (lists / "run" / "training.safetensors").exists()


def test_an_interrupted_overwrite_goes_on(lists, capsys, monkeypatch):
    assert fit(lists) == 0
    old = contents(lists / "run")
    for name in ("held-out", "report"):
        (lists / "run" / name).mkdir()
    (lists / "run" / "skipped.json").write_text("{}")

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vad_pseudoaug.fitting.measure_fit", stop)
        assert fit(lists, "--overwrite") == 130
    assert fit(lists) == 0
    assert "wrote" in capsys.readouterr().out
    assert contents(lists / "run") == old


def test_what_would_fail_after_the_work_fails_before_it(lists, capsys, monkeypatch):
    (lists / "run").write_text("a file")
    monkeypatch.setattr("vad_pseudoaug.sampler.fit_vae", None)
    for more in ([], ["--dry-run"]):
        assert fit(lists, *more) == 2
        assert "expected a folder" in capsys.readouterr().err
    (lists / "run").unlink()
    for more in ([], ["--dry-run"]):
        assert fit(lists, "--device", "tpu", *more) == 2
        assert "device 'tpu'" in capsys.readouterr().err
        assert fit(lists, "--recipe", "mean-shift", "--share", "2", *more) == 2
        assert "share: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--per-video", "-1"], "per_video: expected a number above 0"),
        (["--per-video", "nan"], "per_video: expected a number above 0"),
        (["--per-video", "1e9"], "at most 1000, got 1000000000.0"),
        (["--per-video", "0.01"], "makes no video of these sources"),
        (["--layout", "TD"], "'TD' has no axis for 2 crops"),
        (["--rank", "3", "--world-size", "2"], "0 <= rank < world_size"),
    ],
)
def test_generate_refuses_with_and_without_a_dry_run(lists, capsys, more, message):
    fit(lists)
    for dry in ([], ["--dry-run"]):
        assert generate(lists, *more, *dry) == 2
        assert message in capsys.readouterr().err
        assert not (lists / "pseudo").exists()


def test_a_dry_run_of_generate_looks_at_what_is_there(lists, capsys):
    fit(lists)
    generate(lists)
    capsys.readouterr()
    assert generate(lists, "--dry-run") == 0
    assert "28 of them are there" in capsys.readouterr().out
    assert generate(lists, "--dry-run", "--dtype", "float16") == 2
    assert "dtype (float32, now float16)" in capsys.readouterr().err


def test_a_file_or_nothing_is_no_folder(lists, capsys):
    fit(lists)
    (lists / "pseudo").write_text("a file")
    for dry in ([], ["--dry-run"]):
        assert generate(lists, *dry) == 2
        assert "pseudo: expected a folder" in capsys.readouterr().err
    assert fit(lists, "-o", "") == 2
    assert "expected a folder, got an empty path" in capsys.readouterr().err
    assert fit(lists, "--normal", "", "-o", str(lists / "other")) == 2
    assert "expected a list file, got an empty path" in capsys.readouterr().err


def test_rows_are_good_in_a_list_anywhere(lists, tmp_path):
    fit(lists)
    generate(lists)
    rows = (lists / "pseudo" / "pseudo_abnormal.list").read_text().splitlines()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "train.list").write_text("".join(f"{row}\n" for row in rows))
    assert len(read_list(elsewhere / "train.list")) == len(rows) == 16
    generate(lists, "--relative")
    rows = (lists / "pseudo" / "pseudo_abnormal.list").read_text().splitlines()
    assert rows[0].startswith("pseudo_abnormal/00000_")


def test_recipes_without_pseudo_normal_videos_write_no_list_of_them(lists, capsys):
    assert fit(lists, "--normal-rate", "0") == 0
    assert generate(lists) == 0
    assert "no pseudo normal videos" in capsys.readouterr().out
    assert not (lists / "pseudo" / "pseudo_normal.list").exists()
    assert generate(lists, "--json") == 0
    assert json.loads(capsys.readouterr().out)["normal_list"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--normal", "a"], "required: -o/--output"),
        (["generate", "run", "--outptu", "b"], "--outptu; did you mean --output?"),
        (["fit", "-o", "b", "--seed", "9" * 19], "--seed: expected a whole number"),
        (["fit", "-o", "b", "--epoch", "3"], "unknown option --epoch; did you mean "),
        (["fit", "-o", "b", "--seed", "-1"], "--seed: expected a whole number from 0"),
        (["fit", "-o", "b", "--noise", "pink"], "invalid choice: 'pink'"),
        (["fit", "-o", "b", "more"], "unknown argument more"),
        (["check", "run", "--jsn"], "unknown option --jsn; did you mean --json?"),
        (["chek"], "invalid choice: 'chek'"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_code_2(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_yes_and_no(lists):
    for flag, expected in (("--standardise", True), ("--no-standardise", False)):
        assert fit(lists, flag, "--overwrite") == 0
        recipe = PseudoVideoSampler.from_pretrained(lists / "run").recipe
        assert recipe.standardise is expected


def test_an_own_fault_is_code_3(lists, capsys, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no such tensor")

    monkeypatch.setattr("vad_pseudoaug.fitting.train_vae", fail)
    assert fit(lists) == 3
    error = capsys.readouterr().err
    assert "RuntimeError: no such tensor" in error
    assert "a fault of vad-pseudoaug" in error.splitlines()[-1]


def test_a_reader_that_goes_is_no_error(lists):
    command = [sys.executable, "-m", "vad_pseudoaug", "inspect", "normal.list"]
    with subprocess.Popen(
        [*command, "--json"], cwd=lists, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_help_teaches(capsys):
    for arguments in (["--help"], ["fit", "--help"], ["generate", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "vad-pseudoaug generate run/" in out
    assert "exit codes: 0 done, 1 a gate" in out
    assert "--threshold" in out
    assert "[threshold, robust ranked]" in " ".join(out.split())
    assert "--standardise, --no-standardise" in out


def test_the_demo_runs_end_to_end(tmp_path, capsys, monkeypatch, small):
    from vad_pseudoaug import demo
    from vad_pseudoaug.examples import rtfm_style

    monkeypatch.setattr(
        rtfm_style.train,
        "__kwdefaults__",
        {**rtfm_style.train.__kwdefaults__, "steps": 4},
    )
    rows = demo.run_demo(
        tmp_path, num_draws=2, **{**small, "threshold": 0.3}, say=print
    )
    table = demo.format_table(rows)
    assert [(row.host, row.figure) for row in rows] == [
        ("baseline", "auc"),
        ("baseline", "ap"),
        ("RTFM-style", "auc"),
        ("RTFM-style", "ap"),
    ]
    assert len(table.splitlines()) == 5
    saved = json.loads((tmp_path / "demo.json").read_text())
    assert saved[0]["without"] == rows[0].without.tolist()
    for row in rows:
        assert row.difference.mean == pytest.approx(
            (row.with_pseudo - row.without).mean()
        )
    for name in ("roc", "scores", "features", "training"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
