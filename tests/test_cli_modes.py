"""`--json`, `--dry-run` and `--config`, in process."""

import json

import pytest

from list_files import list_options, write_lists
from vad_pseudoaug import cli_modes, features
from vad_pseudoaug.cli import main

SMALL = [
    *("--recipe", "paper"),
    *("--hidden-dims", "16", "--latent-dim", "4", "--epochs", "2"),
    *("--baseline-epochs", "40", "--baseline-hidden-dims", "16"),
    *("--baseline-lr", "0.01", "--threshold", "0.1"),
]


@pytest.fixture
def lists(videos, tmp_path):
    write_lists(tmp_path, videos)
    return tmp_path


def fit(lists):
    return ["fit", *list_options(lists), "-o", str(lists / "run"), *SMALL]


def said(capsys, *arguments):
    assert main([str(part) for part in arguments]) == 0
    return json.loads(capsys.readouterr().out)


def weights(run):
    return [path.name for path in run.glob("model-*")]


def test_dry_runs_write_nothing(lists, capsys):
    before = sorted(lists.iterdir())
    found = said(capsys, *fit(lists), "--dry-run", "--json")
    assert found["read"]["normal"] == {
        "num_videos": 8,
        "num_crops": 2,
        "feature_dim": 12,
    }
    assert found["recipe"]["epochs"] == 2
    assert main([*fit(lists), "--dry-run"]) == 0
    assert "would read 6 abnormal videos" in capsys.readouterr().out
    assert sorted(lists.iterdir()) == before


def test_a_run_is_repeated_from_its_record(lists, capsys):
    first = [*fit(lists), "--seed", "3", "--json"]
    found = said(capsys, *first)
    assert found["num_selected"] <= found["num_snippets"]
    assert found["seed"] == 3
    for config in (lists / "run" / "config.json", lists / "run"):
        again = said(capsys, "fit", "--config", config, "-o", lists / "two", "--json")
        assert again["recipe"] == found["recipe"]
        assert again["seed"] == 3
    assert weights(lists / "run") == weights(lists / "two")
    more = ("--config", lists / "run", "-o", lists / "x", "--epochs", "1", "--dry-run")
    assert said(capsys, "fit", *more, "--json")["recipe"]["epochs"] == 1


def test_a_list_given_replaces_that_of_the_record_alone(lists, capsys):
    main(fit(lists))
    (lists / "few.list").write_text("normal1.npy\nnormal2.npy\n")
    capsys.readouterr()
    more = ("--normal", lists / "few.list", "-o", lists / "two", "--dry-run", "--json")
    read = said(capsys, "fit", "--config", lists / "run", *more)["read"]
    assert (read["normal"]["num_videos"], read["abnormal"]["num_videos"]) == (2, 6)


def test_generate_says_what_it_would_write_and_what_it_wrote(lists, capsys):
    main(fit(lists))
    capsys.readouterr()
    arguments = ("generate", lists / "run", "-o", lists / "pseudo", "--json")
    would = said(capsys, *arguments, "--dry-run")
    assert not (lists / "pseudo").exists()
    wrote = said(capsys, *arguments)
    for name, count in (("num_normal", 12), ("num_abnormal", 16)):
        assert would[name] == wrote[name] == count
    assert wrote["num_missing"] == 0


def test_normal_videos_alone_are_one_class(lists, capsys):
    found = said(
        capsys,
        "fit",
        *list_options(lists)[:2],
        "-o",
        lists / "run",
        *SMALL[2:],
        *("--batch-size", "8", "--steps-per-epoch", "2", "--json"),
    )
    assert found["recipe"]["name"] == "one-class"
    assert "squared error" not in found
    would = said(
        capsys, "generate", lists / "run", "-o", lists / "p", "--dry-run", "--json"
    )
    assert (would["num_normal"], would["num_abnormal"]) == (0, 8)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"seed": 1e999}'])
def test_what_is_no_record_is_one_sentence(tmp_path, capsys, content):
    record = tmp_path / "config.json"
    if content is not None:
        record.write_text(content)
    assert main(["fit", "--config", str(record), "-o", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {record}: ")
    assert error.count("\n") == 1


def test_without_videos_the_option_is_named(tmp_path, capsys):
    assert main(["fit", "-o", str(tmp_path / "run")]) == 2
    assert "--normal: expected a list," in capsys.readouterr().err


def test_layouts_are_those_of_the_readers():
    assert cli_modes.LAYOUTS == features.LAYOUTS
