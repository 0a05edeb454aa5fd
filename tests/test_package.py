"""The package as it is installed, and the README as it is read."""

import re
import shlex
from importlib import metadata
from pathlib import Path

import pytest

import vad_pseudoaug
from vad_pseudoaug.cli import main
from vad_pseudoaug.data import ped2

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(
    r"^```(\w+)\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
)


def test_the_public_names_are_at_most_a_dozen():
    assert len(vad_pseudoaug.__all__) <= 12
    assert vad_pseudoaug.__all__ == sorted(vad_pseudoaug.__all__)
    assert all(hasattr(vad_pseudoaug, name) for name in vad_pseudoaug.__all__)


def test_the_core_needs_four_packages_and_pins_none():
    core = [r for r in metadata.requires("vad-pseudoaug") if "extra ==" not in r]
    assert sorted(re.split(r"\W", r)[0] for r in core) == [
        "numpy",
        "safetensors",
        "scipy",
        "torch",
    ]
    assert all(">=" in r and "==" not in r and "<" not in r for r in core)


def test_no_top_level_package_but_our_own():
    top_level = metadata.distribution("vad-pseudoaug").read_text("top_level.txt")
    assert top_level.split() == ["vad_pseudoaug"]


def test_the_shipped_features_are_complete():
    folder = ped2()
    for name, count in (("normal", 16), ("abnormal", 12)):
        videos = vad_pseudoaug.VideoSet(folder / f"{name}.list")
        assert len(videos) == count
        assert (videos.num_crops, videos.feature_dim) == (1, 1024)
    assert (folder / "README.md").is_file()


def test_the_readme_has_the_blocks_that_are_run():
    assert {language for language, _ in BLOCKS} >= {"python", "bash"}


def test_the_readme_has_a_running_call_within_20_lines():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any("attach(" in line for line in lines[:20])


def test_diff_blocks_only_add():
    lines = [row for kind, text in BLOCKS if kind == "diff" for row in text.split("\n")]
    assert lines
    assert all(row.startswith("+") for row in lines if row)


@pytest.mark.parametrize(
    "block",
    [
        re.sub(r"^\+", "", text, flags=re.MULTILINE)
        for kind, text in BLOCKS
        if kind in ("python", "diff")
    ],
)
def test_readme_python_blocks_run(block, host_dataset, vae, tmp_path, monkeypatch):
    from torch.utils.data import DataLoader

    from vad_pseudoaug import PseudoVideoSampler

    monkeypatch.chdir(tmp_path)
    fit = PseudoVideoSampler.fit
    small = {"hidden_dims": (16,), "latent_dim": 4, "epochs": 1, "threshold": 0.0}
    monkeypatch.setattr(
        PseudoVideoSampler,
        "fit",
        lambda *args, **kw: fit(*args, **{**kw, **small, "baseline_epochs": 1}),
    )
    # What a host has at hand where the lines are pasted.
    normal, abnormal = host_dataset(6, 0.0), host_dataset(6, 1.0)
    names = {
        "train_nset": normal,
        "train_aset": abnormal,
        "train_nloader": DataLoader(normal, batch_size=2),
        "train_aloader": DataLoader(abnormal, batch_size=2),
    }
    PseudoVideoSampler(vae).save_pretrained("run")
    exec(compile(block, "README.md", "exec"), names)


@pytest.mark.parametrize(
    "line",
    [
        line
        for kind, text in BLOCKS
        if kind == "bash"
        for line in text.splitlines()
        if line.startswith("vad-pseudoaug")
    ],
)
def test_readme_commands_exist(line, monkeypatch, capsys):
    for name in (
        "cli_fit._fit",
        "cli_generate._generate",
        "cli._demo",
        "cli_inspect._inspect",
    ):
        monkeypatch.setattr(f"vad_pseudoaug.{name}", lambda options: None)
    assert main(shlex.split(line, comments=True)[1:]) == 0
