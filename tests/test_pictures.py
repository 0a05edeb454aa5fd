"""The script that makes the pictures of README and documentation."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vad_pseudoaug.plots import new_figure

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def pictures():
    spec = importlib.util.spec_from_file_location(
        "pictures", ROOT / "docs" / "pictures.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lines_are_drawn_as_text(pictures):
    axes = new_figure()[1][0, 0]
    axes.plot([0, 3.5, 7], label="pseudo")
    axes.plot([0, 1, 2], label="normal video")
    text = pictures.as_text(axes, np.array([False, True, True]))
    assert text.splitlines() == [
        "    normal video  ▁▁ ▂▂ ▃▃",
        "    pseudo        ▁▁ ▅▅ ██",
        "    generated        ^^ ^^",
    ]


def test_the_tables_of_the_evidence_are_read(pictures):
    text = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    for heading in pictures.FORESTS.values():
        found = pictures.read_differences(text, heading)
        assert list(found) == ["mlp", "rtfm"]
        for host in found.values():
            for own in host.values():
                assert len(own) == 10  # all arms but none
                assert all(i.low < i.mean < i.high for i in own.values())
    table = (
        "\n## A\n\nHost `own`, 3 seeds:\n\n| arm | AUC - none | AP - none |\n"
        "| --- | --- | --- |\n| none |  |  |\n"
        "| x | -1.5 [-2.0, +0.5] | +3.0 [+1.0, +5.0] * |\n\n## B\n"
    )
    found = pictures.read_differences(table, "A")["own"]
    assert found["auc"] == {"x": (-0.015, -0.02, 0.005)}
    assert found["ap"]["x"].low == 0.01
    with pytest.raises(ValueError, match="B: no such tables"):
        pictures.read_differences(table, "B")


def test_a_picture_is_put_in_its_place(pictures, tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- docs/pictures.py -->\n\nold\n\n<!-- end -->\nb\n")
    for _ in range(2):
        pictures.into_readme(path, "    new")
    assert path.read_text() == (
        "a\n<!-- docs/pictures.py -->\n\n    new\n\n<!-- end -->\nb\n"
    )
    path.write_text("no place\n")
    with pytest.raises(ValueError, match="expected one place for the picture, got 0"):
        pictures.into_readme(path, "    new")


def test_the_readme_shows_its_picture_wherever_it_is_read(pictures):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [found] = pictures.PLACE.finditer(text)
    drawn = found[0].splitlines()
    assert sum(set(pictures.LEVELS) & set(line) != set() for line in drawn) == 2
    assert "![" not in text  # a file of the repository is not at hand everywhere
