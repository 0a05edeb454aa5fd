"""The command line, in process; and the files that `generate` writes."""

import json

import numpy as np
import pytest

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
    for name, group in zip(("normal", "abnormal"), videos, strict=True):
        rows = []
        for number, video in enumerate(group):
            np.save(tmp_path / f"{name}{number}.npy", video.transpose(1, 0, 2))
            rows.append(f"{name}{number}.npy\n")
        (tmp_path / f"{name}.list").write_text("".join(rows))
    return tmp_path


def fit(lists, *more):
    return main(
        [
            "fit",
            "--normal",
            str(lists / "normal.list"),
            "--abnormal",
            str(lists / "abnormal.list"),
            "-o",
            str(lists / "run"),
            *SMALL,
            *more,
        ]
    )


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
        mask = np.load(path.with_suffix(".mask.npy"))
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
    assert "another run, sources or choices" in capsys.readouterr().err
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


def test_help_teaches(capsys):
    for arguments in (["--help"], ["fit", "--help"], ["generate", "--help"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "vad-pseudoaug generate run/" in out
    assert "--threshold" in out


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
