"""What was learned and mixed, as CSV and for TensorBoard."""

import csv
import sys

import pytest
from torch.utils.data import DataLoader

from hosts import RtfmDataset
from vad_pseudoaug.adapters import rtfm
from vad_pseudoaug.logs import Log


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Writer:
    def __init__(self):
        self.scalars, self.closed = [], False

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def close(self):
        self.closed = True


HISTORY = [{"lr": 0.1, "total": 2.0}, {"lr": 0.1, "total": 1.5, "validation": 1.75}]


def test_the_history_is_one_row_an_epoch(tmp_path):
    writer = Writer()
    with Log(tmp_path / "logs", tensorboard=writer) as log:
        log.history(HISTORY[:1])
        log.history(HISTORY)
    assert rows(tmp_path / "logs" / "vae.csv") == [
        {"epoch": "1", "lr": "0.1", "total": "2.0", "validation": ""},
        {"epoch": "2", "lr": "0.1", "total": "1.5", "validation": "1.75"},
    ]
    assert writer.scalars[2:][-1] == ("vae/validation", 1.75, 2)
    assert not writer.closed  # it was given


def test_the_counters_are_one_row_an_epoch(sampler, tmp_path):
    loaders = [
        DataLoader(RtfmDataset(6, label), batch_size=3, shuffle=True)
        for label in (0.0, 1.0)
    ]
    handle = rtfm.attach(*loaders, sampler, p=1, pool=None)
    writer = Writer()
    log = Log(tmp_path, tensorboard=writer)
    for epoch in (1, 2):
        handle.enabled = epoch == 1
        for loader in loaders:
            list(loader)
        log.mix(handle, epoch)
    assert [list(row.values()) for row in rows(tmp_path / "mix.csv")] == [
        ["1", "12", "12", "1.0", "1"],
        ["2", "24", "12", "0.0", "0"],
    ]
    assert ("mix/rate", 0.0, 2) in writer.scalars
    handle.detach()
    handle = rtfm.attach(*loaders, sampler, p=0)
    Log(tmp_path).mix(handle, 3)  # goes on in the same file
    log.mix(handle, 4)
    assert [row["step"] for row in rows(tmp_path / "mix.csv")] == ["1", "2", "3", "4"]


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    with Log(tensorboard=tmp_path / "events") as log:
        log.history(HISTORY)
    events = accumulator.EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("vae/total")] == [
        (1, 2.0),
        (2, 1.5),
    ]
    assert not list(tmp_path.glob("*.csv"))


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"vad-pseudoaug\[tensorboard\]"):
        Log(tensorboard=tmp_path)
    with pytest.raises(ValueError, match="got none"):
        Log()
