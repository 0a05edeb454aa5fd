"""The report page, its pictures, and the gates as text: what a reader gets."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from vad_pseudoaug.gate_samples import Clip
from vad_pseudoaug.gates import Gate
from vad_pseudoaug.pictures import draw_pictures
from vad_pseudoaug.report import format_gates, write_report
from vad_pseudoaug.vae import ABNORMAL, NORMAL

GOOD = Gate("good", 0.5, 0.4, 0.9, "below 0.65", True, "a <good> figure")
BAD = Gate("bad & worse", 0.0001, None, None, "above 12.3", False, "a bad figure")
NAMES = ["timelines", "features", "norms", "neighbours", "lags", "units", "training"]


@pytest.fixture(scope="module")
def failed(checked):
    return replace(checked, gates={"the model": [GOOD], "pseudo videos": [GOOD, BAD]})


@pytest.fixture(scope="module")
def page(failed, tmp_path_factory):
    return write_report(failed, tmp_path_factory.mktemp("report") / "new" / "folder")


@pytest.fixture(scope="module")
def text(page):
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pictures(checked):
    return {picture.name: picture for picture in draw_pictures(checked)}


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_the_page_says_which_gates_failed(text):
    assert "1 of 3 gates failed" in text
    assert "<li>pseudo videos: bad &amp; worse</li>" in text
    assert "<li>the model" not in text
    assert text.count(">FAIL<") == 1
    assert text.count(">pass<") == 2


def test_the_page_says_that_all_passed_and_needs_no_history(checked, tmp_path):
    gates = {"the model": [GOOD], "pseudo videos": [GOOD]}
    sampler = copy.copy(checked.sampler)
    sampler.history = []
    page = write_report(replace(checked, gates=gates, sampler=sampler), tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "All 2 gates passed" in text
    assert "FAIL" not in text


def test_the_page_stands_alone(text):
    assert text.count('src="data:image/png;base64,') == len(NAMES)
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "http" not in re.sub(r"base64,[^\"]*", "", text)
    assert "{" not in re.sub(r"<style>.*</style>", "", text, flags=re.DOTALL)
    assert "a &lt;good&gt; figure" in text
    assert "<title>Are these pseudo videos any good?</title>" in text


def test_the_page_names_the_recipe_and_the_videos(text, failed):
    assert "recipe <b>paper</b>, seed 0, fitted on 5 normal and 5 abnormal" in text
    assert "pseudo videos of 5 normal and 5 abnormal" in text
    for name, value in failed.sampler.recipe.to_dict().items():
        assert f"<td>{name}</td><td>{value}</td>" in text


def test_figures_and_pictures_are_files_too(page):
    folder = page.parent
    assert (page.name, folder.name) == ("report.html", "folder")
    saved = json.loads((folder / "gates.json").read_text())
    assert not saved["passed"]
    assert saved["gates"]["pseudo videos"][1] == BAD._asdict()
    for name in NAMES:
        content = (folder / f"{name}.png").read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5_000
    assert len(list(folder.iterdir())) == len(NAMES) + 2


def test_gates_as_text_are_columns(failed):
    rows = format_gates(failed).splitlines()
    assert rows[0] == "the model"
    found = next(row for row in rows if "good" in row)
    assert found.split() == ["good", "0.50", "0.40", "0.90", "below", "0.65", "pass"]
    found = next(row for row in rows if "bad" in row)
    assert found.split()[3:] == ["0.0001", "-", "-", "above", "12.3", "FAIL"]
    assert rows[-1] == "2 of 3 gates passed"
    verdicts = {r.index(w) for r in rows for w in ("pass", "FAIL") if r.endswith(w)}
    assert len(verdicts) == 1


def test_every_picture_has_a_title_and_tells_what_to_look_for(pictures):
    assert list(pictures) == NAMES
    for picture in pictures.values():
        assert picture.title
        assert len(picture.caption) > 60


def test_lines_differ_without_colour(pictures):
    """In greyscale by their style or their marks."""
    for picture in pictures.values():
        for axes in picture.figure.axes:
            named = [x for x in axes.get_lines() if not x.get_label().startswith("_")]
            looks = {(str(x.get_linestyle()), x.get_linewidth()) for x in named}
            assert len(looks) == len(named), picture.name
            marks = [(c.get_paths()[0].vertices.tobytes(), c.get_facecolor().size)
                     for c in axes.collections]  # fmt: skip
            assert len(set(marks)) == len(marks), picture.name


def test_timelines_are_those_of_the_longest_videos(pictures, checked):
    axes = pictures["timelines"].figure.axes
    sources = checked.sources[ABNORMAL]
    longest = sorted((len(clip.features) for clip in sources), reverse=True)[:3]
    assert [len(lines(own)["source"]) for own in axes[1::2]] == longest
    for own in axes[1::2]:
        norms = lines(own)["source"][:, 1]
        video = int(axes[axes.index(own) - 1].get_ylabel().split()[-1]) - 1
        features = sources[video].features
        np.testing.assert_allclose(norms, np.linalg.norm(features, axis=1), rtol=1e-6)
        mask = checked.materials[ABNORMAL].pseudo[video].mask
        differ = lines(own)["pseudo video"][:, 1] != norms
        np.testing.assert_array_equal(differ, mask)
        shaded = sum(patch.get_width() for patch in own.patches)
        assert shaded == mask.sum()


def test_the_classes_are_0_and_1_of_the_timelines(checked):
    """Of a video that is the mean normal snippet, then the mean abnormal one."""
    material = checked.materials[ABNORMAL]
    rows = [
        np.concatenate([clip.features[clip.mask] for clip in clips]).mean(axis=0)
        for clips in (material.training_other, material.training)
    ]
    clip = Clip(np.repeat(rows, 20, axis=0), np.ones(40, bool))
    changed = {**checked.materials, ABNORMAL: replace(material, pseudo=[clip] * 5)}
    sources = {**checked.sources, ABNORMAL: [clip] * 5}
    found = draw_pictures(replace(checked, materials=changed, sources=sources))
    drawn = lines(found[0].figure.axes[0])["source"][:, 1]
    np.testing.assert_allclose(drawn, np.repeat([0, 1], 20), atol=1e-4)


def test_cumulative_lines_reach_1_and_hold_the_norms(pictures, checked):
    for own, label in zip(
        pictures["norms"].figure.axes, (ABNORMAL, NORMAL), strict=True
    ):
        drawn = lines(own)["generated"]
        assert drawn[-1, 1] == 1
        pseudo = checked.materials[label].pseudo
        rows = np.concatenate([clip.features[clip.mask] for clip in pseudo])
        assert drawn[-1, 0] == pytest.approx(np.linalg.norm(rows, axis=1).max())


def test_likeness_in_time_starts_at_1(pictures):
    for own in pictures["lags"].figure.axes:
        drawn = {k: v for k, v in lines(own).items() if not k.startswith("_")}
        assert set(drawn) == {"generated", "real"}
        for line in drawn.values():
            assert line[0].tolist() == [0, 1]
        assert len({len(line) for line in drawn.values()}) == 1
