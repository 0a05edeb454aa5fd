"""The documentation: its tutorial runs, its blocks parse, its pages are in the nav."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from vad_pseudoaug.cli import main

DOCS = Path(__file__).parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for kind, text in BLOCK.findall((DOCS / "tutorial.md").read_text()):
        if kind == "python":
            exec(compile(text, "tutorial.md", "exec"), names)
        else:
            for line in text.splitlines():
                assert main(shlex.split(line)[1:]) == 0, line
    out = capsys.readouterr().out
    assert "would read 10 normal videos" in out
    aucs = [float(row.split()[-1]) for row in out.splitlines()[-2:]]
    assert all(0 < auc < 1 for auc in aucs)
    assert Path("pseudo/pseudo_abnormal.list").is_file()


def test_python_blocks_parse_and_commands_exist(capsys):
    for page in DOCS.glob("*.md"):
        for kind, text in BLOCK.findall(page.read_text()):
            if kind == "python":
                ast.parse(text, page.name)
    assert main(["inspect", "nothing"]) == 2


def test_every_page_is_in_the_nav_and_every_picture_is_there():
    nav = (DOCS.parent / "mkdocs.yml").read_text()
    for page in DOCS.glob("*.md"):
        assert page.name in nav
        for picture in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
            assert (DOCS / picture).is_file()
