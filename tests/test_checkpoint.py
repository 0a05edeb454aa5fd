"""Checkpoints: always the old one or the new one, and never a foreign one."""

import errno
import json
import os
import subprocess
import sys

import pytest
import torch

from vad_pseudoaug import (
    Baseline,
    CheckpointError,
    MultiTaskVAE,
    PseudoVideoSampler,
    VAEConfig,
    checkpoint,
)
from vad_pseudoaug.checkpoint import (
    atomic_path,
    read_checkpoint,
    write_checkpoint,
)
from vad_pseudoaug.sampler import _ENTRIES

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


@pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_have_the_rights_of_any_new_file(tmp_path, monkeypatch, umask):
    before = os.umask(umask)
    try:
        with monkeypatch.context() as patch:  # it is of all threads of the process
            patch.setattr(os, "umask", None)
            write_checkpoint(tmp_path, "Thing", {"size": 3}, OLD)
    finally:
        os.umask(before)
    rights = {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert rights == {0o666 & ~umask}


def test_files_of_others_stay(tmp_path):
    names = ["model-00001-of-00002.safetensors", "model-best.safetensors", "model.pt"]
    for name in names:
        (tmp_path / name).write_text(name)
    for size in (1, 2):  # the second replaces the first
        write_checkpoint(tmp_path, "Thing", {"size": size}, {"w": torch.ones(size)})
    assert {name: (tmp_path / name).read_text() for name in names} == {
        name: name for name in names
    }
    assert len(list(tmp_path.iterdir())) == len(names) + 2
    assert read(tmp_path)[0] == {"size": 2}


@pytest.mark.parametrize("text", ['{"model_type": "clip"}', "[]", '{"kind": "x"}'])
def test_a_configuration_of_something_else_is_not_replaced(tmp_path, videos, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(FileExistsError, match="of something else than this library"):
        write_checkpoint(tmp_path, "Thing", {"size": 1}, {"w": torch.ones(1)})
    with pytest.raises(FileExistsError, match="take another folder"):  # at once
        PseudoVideoSampler.fit(*videos, folder=tmp_path, epochs=10**6)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]
    assert path.read_text() == text


def test_a_broken_configuration_is_replaced(folder):
    (folder / "config.json").write_text("{")
    write_checkpoint(folder, "Thing", {"size": 2}, {"w": torch.ones(2)})
    assert read(folder)[0] == {"size": 2}


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
        ({"weights": {"file": ".."}}, "missing"),
        ({"weights": {"file": "/etc/passwd"}}, "names no file"),
        ({"size": 2**63}, "not readable as JSON: the number 9223372036854775808"),
        ({"size": float("inf")}, "not readable as JSON: the number Infinity"),
    ],
)
def test_entries_that_are_not_ours(folder, entries, message):
    change(folder, **entries)
    with pytest.raises(CheckpointError, match=message):
        read(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', "[" * 100_000, "1e999", "9" * 100_000]
)
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


def test_a_configuration_too_large_to_be_one_is_not_read(folder):
    with (folder / "config.json").open("rb+") as file:
        file.truncate(10 << 30)  # takes no room on the disk
    with pytest.raises(CheckpointError, match="at most 67108864 are read"):
        read(folder)


def test_weights_too_large_to_be_any_are_not_read(folder):
    [weights] = folder.glob("*.safetensors")
    with weights.open("rb+") as file:
        file.truncate(10 << 30)
    with pytest.raises(CheckpointError, match="at most 8589934592 are read"):
        read(folder)


@pytest.mark.parametrize(
    "tensor", [torch.tensor([1.0, float("nan")]), torch.tensor([1, 2])]
)
def test_weights_that_no_model_can_have(tmp_path, tensor):
    write_checkpoint(tmp_path, "Thing", {"size": 3}, {"w": tensor})
    with pytest.raises(CheckpointError, match="w is not of finite numbers"):
        read(tmp_path)


@pytest.mark.parametrize(
    "widths",
    [
        {"hidden_dims": [10**9]},
        {"hidden_dims": [10**18, 10**18]},
        {"feature_dim": 2**62, "hidden_dims": []},
        {"hidden_dims": [16] * 1_000_000},
        {"latent_dim": 10**12},
    ],
)
def test_widths_that_the_weights_do_not_have(vae, tmp_path, widths):
    vae.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["vae"].update(widths)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="hidden layers and widths such as"):
        type(vae).from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("mean_head.bias", torch.zeros(2, dtype=torch.float64), "expected one dtype"),
        ("feature_scale", torch.zeros(()), "feature_scale: expected a finite value"),
        ("feature_scale", -torch.ones(()), "feature_scale: expected a finite value"),
        ("means.normal", torch.zeros(4), "means: expected those of 3 features"),
        ("means.abnormal", torch.zeros(()), "means: expected those of 3 features"),
        ("scorer.mlp.0.weight", torch.zeros(0, 3), "scorer fits no feature size 3"),
        ("scorer.mlp.2.weight", torch.zeros(1, 1), "scorer fits no feature size 3"),
    ],
)
def test_parts_of_a_sampler_that_do_not_fit(tmp_path, name, tensor, message):
    config = VAEConfig(3, hidden_dims=(2,), latent_dim=2, standardise=True)
    sampler = PseudoVideoSampler(
        MultiTaskVAE(config),
        scorer=Baseline(3, hidden_dims=(2,)),
        means=torch.zeros(2, 3),
    )
    sampler.save_pretrained(tmp_path)
    assert PseudoVideoSampler.from_pretrained(tmp_path).means.shape == (2, 3)
    kind = "PseudoVideoSampler"
    entries, weights = read_checkpoint(tmp_path, kind, _ENTRIES)
    assert name in weights
    write_checkpoint(tmp_path, kind, entries, {**weights, name: tensor})
    with pytest.raises(CheckpointError, match=message):
        PseudoVideoSampler.from_pretrained(tmp_path)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("call", range(1, 5))
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_writes_that_fail_leave_what_was_there(folder, monkeypatch, code, call):
    before, calls = files(folder), 0

    def fail_at(original):
        def step(path, *arguments, **options):
            nonlocal calls
            calls += 1
            if calls == call:
                if original.__name__ != "replace":
                    original(path, *arguments, **options)  # part of it is written
                raise OSError(code, "no room, no rights")
            return original(path, *arguments, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("write_bytes", "write_text", "replace"):
            original = getattr(checkpoint.Path, name)
            patch.setattr(checkpoint.Path, name, fail_at(original))
        with pytest.raises(OSError, match="not written: no room, no rights") as caught:
            write_checkpoint(folder, "Thing", {"size": 4}, NEW)
    assert caught.value.errno == code
    assert "\n" not in str(caught.value)
    assert caught.value.filename.startswith(str(folder))
    assert files(folder) == before


FULL = """
import resource, sys, torch
from vad_pseudoaug.checkpoint import write_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_checkpoint(sys.argv[1], "Thing", {"size": 4}, {"w": torch.ones(9999)})
except OSError as error:
    print(error)
"""


def test_a_file_system_that_takes_no_more(folder):
    before = files(folder)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "not written: File too large" in done.stdout
    assert files(folder) == before


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        NotADirectoryError, match=r"run: expected a folder, .*is a file"
    ):
        write_checkpoint(tmp_path / "file" / "run", "Thing", {"size": 4}, NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
