"""Tables and files of a comparison, of results made by hand."""

import csv
import json

import numpy as np
import pytest

from vad_pseudoaug.arms import Arm
from vad_pseudoaug.compare import Comparison, Run
from vad_pseudoaug.intervals import Interval
from vad_pseudoaug.metrics import FrameFigures
from vad_pseudoaug.protocol import Data
from vad_pseudoaug.summary import FIGURES, ArmResult, format_tables, write_summary

NAN = float("nan")


def result(
    arm, host="mlp", *, values=(0.7, 0.8), num_extra=((0, 0), (0, 0)), **differences
):
    return ArmResult(
        host,
        arm,
        num_extra,
        {
            figure: np.array([NAN, NAN] if figure == "best_on_test" else values)
            for figure in FIGURES
        },
        {
            other: {name: Interval(*interval) for name in ("auc", "ap")}
            for other, interval in differences.items()
        },
    )


@pytest.fixture
def results():
    return [
        result("none", none=(0, 0, 0)),
        result("clear", num_extra=((12, 8), (12, 8)), none=(0.01, 0.005, 0.0151)),
        result("worse", none=(-0.02, -0.03, -0.01)),
        result("unclear", none=(0.01, -0.005, 0.025)),
    ]


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and "---" not in line
    ]


def test_a_table_has_means_and_spreads_in_percent(results):
    found = rows(format_tables(results))
    assert found[0][:4] == ["arm", "videos added", "AUC", "AP"]
    assert found[2][:4] == ["clear", "12 + 8", "75.00 +- 7.07", "75.00 +- 7.07"]
    assert found[2][-1] == "-"  # no best checkpoint on test


def test_what_an_arm_added_is_said_over_all_seeds(results):
    changing = result("auto", num_extra=((0, 0), (21, 63)))
    assert rows(format_tables([*results, changing]))[5][1] == "0 to 21 + 0 to 63"


def test_a_star_marks_an_interval_that_leaves_out_0(results):
    found = {row[0]: row[1] for row in rows(format_tables(results))[6:]}
    assert found == {
        "none": "+0.00 [+0.00, +0.00]",
        "clear": "+1.00 [+0.50, +1.51] *",
        "worse": "-2.00 [-3.00, -1.00] *",
        "unclear": "+1.00 [-0.50, +2.50]",
    }


def test_each_host_has_tables_of_its_own():
    text = format_tables([result("none"), result("none", "rtfm")])
    assert text.index("Host mlp, 2 seeds") < text.index("Host rtfm, 2 seeds")
    assert "paired differences" not in text  # there is nothing to compare with


def test_columns_are_aligned(results):
    for part in format_tables(results).split("\n\n"):
        table = [line for line in part.splitlines() if line.startswith("|")]
        assert len({len(line) for line in table}) <= 1


@pytest.fixture
def comparison():
    return Comparison(
        Data("ped2", {}), [Arm("none", "none"), Arm("more", "duplicate")], ("mlp",), 2
    )


def run(arm, seed, auc, comparison):
    test = comparison.data.split(seed).test
    scores = [np.linspace(0, 1, video.features.shape[1]) for video in test]
    figures = FrameFigures(auc, 0.5, 0.5, None, 0.5, 0.1)
    return Run("mlp", arm, seed, figures, None, (0, 0), 1.25, scores)


def test_files_hold_every_run_and_no_invalid_json(comparison, results, tmp_path):
    runs = [run(arm, 0, 0.6, comparison) for arm in ("none", "more")]
    write_summary(tmp_path, comparison, runs, results, pictures=False)
    assert {path.name for path in tmp_path.iterdir()} == {
        "summary.json",
        "summary.md",
        "runs.csv",
    }
    text = (tmp_path / "summary.json").read_text()
    assert "NaN" not in text
    saved = json.loads(text)
    assert saved[1]["values"]["best_on_test"] == [None, None]
    assert saved[1]["differences"]["none"]["auc"] == {
        "mean": 0.01,
        "low": 0.005,
        "high": 0.0151,
    }
    assert saved[1]["num_extra"] == [[12, 8], [12, 8]]
    with (tmp_path / "runs.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["arm"] for row in table] == ["none", "more"]
    assert table[0]["auc"] == "0.6"
    assert table[0]["abnormal_auc"] == ""
    assert (tmp_path / "summary.md").read_text() == format_tables(results) + "\n"


def test_pictures_are_written_beside_them(comparison, tmp_path):
    runs = [run(arm, s, 0.6, comparison) for arm in ("none", "more") for s in (0, 1)]
    results = [result("none"), result("more", none=(0.01, 0.0, 0.02))]
    write_summary(tmp_path, comparison, runs, results)
    for name in ("forest", "roc"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
