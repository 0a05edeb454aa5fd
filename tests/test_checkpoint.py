"""Checkpoints: always the old one or the new one, and never a foreign one."""

import json

import pytest
import torch

from vad_pseudoaug import CheckpointError, checkpoint
from vad_pseudoaug.checkpoint import (
    atomic_path,
    read_checkpoint,
    write_checkpoint,
)

OLD, NEW = {"w": torch.zeros(3)}, {"w": torch.ones(3)}


def read(folder):
    return read_checkpoint(folder, "Thing", ("size",))


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path, "Thing", {"size": 3}, OLD)
    return tmp_path


def test_round_trip_and_replacement(folder):
    config, tensors = read(folder)
    assert config == {"size": 3}
    assert torch.equal(tensors["w"], OLD["w"])
    (folder / "notes.txt").write_text("mine")
    write_checkpoint(folder, "Thing", {"size": 4}, NEW)
    assert read(folder)[0] == {"size": 4}
    assert len(list(folder.glob("*.safetensors"))) == 1
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("call", range(1, 5))
def test_a_crash_at_any_step_leaves_the_old_or_the_new_one(folder, monkeypatch, call):
    # os.fsync and Path.replace are the steps between which a crash can fall.
    calls = 0

    def crash_at(original):
        def step(*arguments):
            nonlocal calls
            calls += 1
            if calls == call:
                raise SystemExit
            return original(*arguments)

        return step

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(checkpoint.os, "fsync", crash_at(checkpoint.os.fsync))
        patch.setattr(checkpoint.Path, "replace", crash_at(checkpoint.Path.replace))
        write_checkpoint(folder, "Thing", {"size": 4}, NEW)
    config, tensors = read(folder)
    assert config == {"size": 3}
    assert torch.equal(tensors["w"], OLD["w"])
    write_checkpoint(folder, "Thing", {"size": 4}, NEW)
    assert torch.equal(read(folder)[1]["w"], NEW["w"])
    assert len(list(folder.iterdir())) == 2


def test_an_atomic_write_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(RuntimeError, match="disk full"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("disk full")
    assert list(path.parent.iterdir()) == []


def change(folder, **entries):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(entries)
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"kind": "Other"}, "expected a checkpoint of Thing, got 'Other'"),
        ({"format_version": 2}, "expected format_version 1"),
        ({"surprise": 1}, r"unknown entries \['surprise'\]"),
        ({"size": None}, r"missing \['size'\]"),
        ({"weights": {"file": "../up.safetensors"}}, "names no file"),
        ({"weights": {"file": "gone.safetensors"}}, "missing"),
        ({"weights": None}, "names no file"),
    ],
)
def test_entries_that_are_not_ours(folder, entries, message):
    change(folder, **entries)
    with pytest.raises(CheckpointError, match=message):
        read(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "[" * 100_000])
def test_a_configuration_that_is_no_json_object(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError):
        read(folder)


def test_weights_that_were_changed(folder):
    [weights] = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CheckpointError, match="checksum"):
        read(folder)


def test_a_folder_without_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: no such checkpoint"):
        read(tmp_path)
