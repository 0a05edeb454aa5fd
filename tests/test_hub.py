"""Checkpoints on the Hub: a stand-in for it is a folder."""

import inspect
import json
import sys

import numpy as np
import pytest
import torch

from vad_pseudoaug import CheckpointError, PseudoVideoSampler
from vad_pseudoaug.hub import format_card
from vad_pseudoaug.writing import write_json

GATES = {
    "passed": False,
    "gates": {
        "the model": [
            {"name": "units in use", "value": 3.0, "accept": ">= 2", "passed": True},
            {"name": "share", "value": 0.123456, "accept": "<= 0.1", "passed": False},
        ]
    },
}


@pytest.fixture
def fitted(videos, small):
    return PseudoVideoSampler.fit(*videos, **small, threshold=0.0, progress=False)


def test_what_was_pushed_is_pulled(hub, fitted, videos):
    url = fitted.push_to_hub("user/name", private=True)
    assert url == "hub/user/name/commit/1"
    again = PseudoVideoSampler.from_hub("user/name", revision="v1", normal=videos[0])
    assert again.fingerprint() == fitted.fingerprint()
    assert again.history == fitted.history
    assert again.selection == fitted.selection
    assert (len(again.normal), again.abnormal) == (8, None)
    for name, options in hub.calls:
        if name == "create_repo":
            assert options["private"] is True
        elif name == "snapshot_download":
            assert options["revision"] == "v1"


def test_a_second_push_leaves_no_old_weights(hub, fitted):
    fitted.push_to_hub("user/name")
    with torch.no_grad():
        fitted.vae.mean_head.weight.add_(1)
    fitted.push_to_hub("user/name")
    names = sorted(p.name for p in (hub.root / "user" / "name").iterdir())
    assert len(names) == 3
    again = PseudoVideoSampler.from_hub("user/name")
    assert again.fingerprint() == fitted.fingerprint()


def test_no_path_of_this_machine_is_pushed(hub, videos, small, tmp_path):
    lists = []
    for kind, group in zip(("normal", "abnormal"), videos, strict=True):
        lists.append([tmp_path / f"{kind}{i}.npy" for i in range(len(group))])
        for path, video in zip(lists[-1], group, strict=True):
            np.save(path, video.transpose(1, 0, 2))
    PseudoVideoSampler.fit(*lists, **small, threshold=0.0).push_to_hub("user/name")
    for file in (hub.root / "user" / "name").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()


def test_only_what_a_checkpoint_has_is_pulled(hub, fitted, tmp_path):
    fitted.push_to_hub("user/name")
    (hub.root / "user" / "name" / "payload.pkl").write_bytes(b"cos\nsystem")
    PseudoVideoSampler.from_hub("user/name")
    assert {p.suffix for p in (tmp_path / "cache").iterdir()} == {
        ".json",
        ".safetensors",
    }


@pytest.mark.parametrize(
    "sources", [{"normal": {"files": ["/etc/passwd"]}, "abnormal": None}, None, []]
)
def test_a_checkpoint_that_names_files_is_refused(hub, fitted, sources):
    fitted.push_to_hub("user/name")
    path = hub.root / "user" / "name" / "config.json"
    write_json(path, {**json.loads(path.read_text()), "sources": sources})
    with pytest.raises(CheckpointError, match="which names no videos"):
        PseudoVideoSampler.from_hub("user/name")
    path.write_text("[")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        PseudoVideoSampler.from_hub("user/name")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="user/name: holds no checkpoint"):
        PseudoVideoSampler.from_hub("user/name")


def test_the_card_says_what_it_is(hub, fitted, tmp_path):
    write_json(tmp_path / "run" / "report" / "gates.json", GATES)
    fitted.push_to_hub("user/name", run=tmp_path / "run", licence="mit")
    card = (hub.root / "user" / "name" / "README.md").read_text()
    head, _, text = card.removeprefix("---\n").partition("\n---\n")
    assert head.splitlines()[:2] == ["library_name: vad-pseudoaug", "license: mit"]
    for part in (
        'from_hub("user/name"',
        "- 8 normal videos",
        "- 6 abnormal videos",
        "snippets were selected as abnormal",
        "- 3 epochs; the last one: ",
        "`epochs=3`",
        "## Gates: not all passed",
        "| the model | share | 0.123 | <= 0.1 | FAIL |",
        "This model: mit.",
        "holds weights, and no training snippet",
    ):
        assert part in text
    assert "{" not in text.replace("{...}", "")


def test_a_card_without_gates_and_licence(fitted, many_videos, small):
    card = format_card(fitted, "user/name")
    assert "## Gates" not in card
    assert "license:" not in card
    assert "No licence was named." in card
    choices = {**small, "recipe": None}
    one_class = PseudoVideoSampler.fit(many_videos[0], **choices, progress=False)
    card = format_card(one_class, "user/name")
    assert "holds real training snippets" in card
    assert "abnormal videos" not in card.partition("## Recipe")[0].partition("## W")[2]


def test_broken_gates_are_refused(hub, fitted, tmp_path):
    write_json(tmp_path / "gates.json", {"gates": 1})
    with pytest.raises(ValueError, match="not readable as gates"):
        fitted.push_to_hub("user/name", run=tmp_path)
    assert not hub.root.exists()
    fitted.push_to_hub("user/name", run=tmp_path / "nothing")  # never checked


def test_the_extra_is_named(sampler, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"vad-pseudoaug\[hub\]"):
        sampler.push_to_hub("user/name")
    with pytest.raises(ImportError, match=r"vad-pseudoaug\[hub\]"):
        PseudoVideoSampler.from_hub("user/name")


def test_the_real_functions_take_what_is_asked_of_them(hub, fitted, monkeypatch):
    fitted.push_to_hub("user/name")
    PseudoVideoSampler.from_hub("user/name")
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    real = pytest.importorskip("huggingface_hub")
    for name, options in hub.calls:
        found = getattr(real, name)
        inspect.signature(found).bind(**options)
