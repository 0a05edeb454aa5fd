"""The pool: what is in it decides about time, never about a batch."""

import copy
import gc
import itertools
import logging
import mmap
import os
import threading
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import theilslopes
from torch.utils.data import DataLoader, Subset, get_worker_info

import hosts
from vad_pseudoaug import (
    MultiTaskVAE,
    PseudoVideoSampler,
    VAEConfig,
    deferred,
    filling,
    pool,
)
from vad_pseudoaug.adapters import mil, rtfm, torchmil
from vad_pseudoaug.entries import Entry, read_entry, write_entry
from vad_pseudoaug.mixing import Mixing

B = 4
ENTRY = 2 * 6 * hosts.FEATURE_DIM * 4  # bytes of a pseudo video of RtfmDataset


@pytest.fixture
def twins(host_dataset):
    return host_dataset(9, 0.0), host_dataset(7, 1.0)


def loaders(twins, **options):
    return [DataLoader(dataset, batch_size=B, **options) for dataset in twins]


def batches(pair, epochs=2):
    return [b for _ in range(epochs) for loader in pair for b in loader]


def equal(first, second):
    return all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def run(twins, sampler, epochs=3, **options):
    pair = loaders(twins)
    handle = rtfm.attach(*pair, sampler, **{"seed": 3, "p": 0.6, **options})
    found = batches(pair, epochs)
    handle.detach()
    return found


def files(folder):
    return sorted(f for f in folder.iterdir() if f.name != "pool.json")


def test_what_the_pool_holds_changes_no_batch(sampler, twins, tmp_path):
    whole = run(twins, sampler, pool_bytes=16 * ENTRY)
    for num_held in (0, 1, 7):
        assert equal(run(twins, sampler, pool_bytes=num_held * ENTRY), whole)
    first = run(twins, sampler, pool=tmp_path / "kept", pool_bytes=16 * ENTRY)
    again = run(twins, sampler, pool=str(tmp_path / "kept"), pool_bytes=16 * ENTRY)
    assert equal(first, whole)
    assert equal(again, whole)
    assert len(files(tmp_path / "kept")) == 16


def test_two_variants_where_they_fit(sampler, twins, tmp_path):
    run(twins, sampler, pool=tmp_path, epochs=1)
    assert len(files(tmp_path)) == 2 * (9 + 7)
    size = sum(file.stat().st_size for file in files(tmp_path))
    assert size < 32 * (ENTRY + 500)
    assert filling.plan_pool(10, 8, 200).variants == 2
    assert filling.plan_pool(10, 8, 100) == (1, 10, 10, 8)
    assert filling.plan_pool(10, 8, 50) == (1, 6, 10, 8)


def test_entries_are_read_not_made(sampler, twins, tmp_path, monkeypatch):
    expected = run(twins, sampler, pool=tmp_path)
    monkeypatch.setattr(PseudoVideoSampler, "sample", None)
    assert equal(run(twins, sampler, pool=tmp_path), expected)


def test_a_broken_or_lost_entry_is_made_again(sampler, twins, tmp_path):
    expected = run(twins, sampler, pool=tmp_path)
    saved = {file: file.read_bytes() for file in files(tmp_path)}
    for number, file in enumerate(files(tmp_path)):
        if number % 3 == 0:
            file.write_bytes(saved[file][: 100 * number])
        elif number % 3 == 1:
            file.unlink()
    assert equal(run(twins, sampler, pool=tmp_path), expected)
    assert {file: file.read_bytes() for file in files(tmp_path)} == saved


def test_a_full_disk_costs_time_only(sampler, twins, monkeypatch, caplog):
    expected = run(twins, sampler)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pool, "write_entry", full)
    assert equal(run(twins, sampler), expected)
    found = [r for r in caplog.records if "No space left" in r.getMessage()]
    assert len(found) == 1


def test_room_is_left_on_the_disk(sampler, twins, tmp_path, monkeypatch, caplog):
    expected = run(twins, sampler)
    free = 2 * 32 * ENTRY - 1
    monkeypatch.setattr(
        filling.shutil,
        "disk_usage",
        lambda _: filling.shutil._ntuple_diskusage(1, 1, free),
    )
    assert equal(run(twins, sampler, pool=tmp_path), expected)
    assert "are free in" in caplog.text
    assert files(tmp_path) == []


def test_a_folder_of_another_pool_is_refused(sampler, twins, tmp_path):
    run(twins, sampler, pool=tmp_path, epochs=1)
    for options in ({"seed": 4}, {"refresh_every": 2}, {"pool_dtype": "float16"}):
        with pytest.raises(ValueError, match="holds the results of another run"):
            run(twins, sampler, pool=tmp_path, **options)
    other = PseudoVideoSampler(MultiTaskVAE(sampler.vae.config, seed=2))
    with pytest.raises(ValueError, match="holds the results of another run"):
        run(twins, other, pool=tmp_path)


def test_a_folder_of_a_pool_of_other_items_is_refused(sampler, twins, tmp_path):
    """Of as many, and the same first one."""
    normal, abnormal = twins
    for name, numbers in (("numbers", [0, 1, 2]), ("paths", None)):
        for _ in range(2):  # the same again
            if numbers is None:
                normal.list = [f"{i}.npy" for i in range(len(normal))]
            own = normal if numbers is None else Subset(normal, numbers)
            run((own, abnormal), sampler, pool=tmp_path / name, epochs=1)
        if numbers is None:
            normal.list = [*normal.list[:-1], "other.npy"]
        other = normal if numbers is None else Subset(normal, [0, 1, 3])
        with pytest.raises(ValueError, match="another run, which differs in items"):
            run((other, abnormal), sampler, pool=tmp_path / name)


def test_refreshed_pool_changes_part_by_part_and_repeats(sampler, twins, tmp_path):
    def entries():
        return {file.name: file.read_bytes() for file in files(tmp_path)}

    pair = loaders(twins)
    options = {"p": 1, "pool": tmp_path, "refresh_every": 3, "pool_bytes": 16 * ENTRY}
    rtfm.attach(*pair, sampler, **options)
    seen = []
    for _ in range(8):
        batches(pair, 1)
        seen.append(entries())
    # Replaced in place: no more files than before, and some of them new each time.
    assert {len(one) for one in seen} == {16}
    for one, other in itertools.pairwise(seen):
        changed = sum(one[name] != other[name] for name in one)
        assert changed < 12
    assert all(seen[0][name] != seen[-1][name] for name in seen[0])
    del options["pool"]
    again = run(twins, sampler, 8, **options, pool_dtype="float32")
    assert equal(again, run(twins, sampler, 8, **{**options, "pool_bytes": 0}))


def test_float16_halves_the_pool_and_norms_are_computed_anew(sampler, tmp_path):
    twins = [hosts.a_magnitude(label) for label in (0, 1)]
    for dtype in ("float32", "float16"):
        run(twins, sampler, pool=tmp_path / dtype, pool_dtype=dtype, epochs=1)
    sizes = [files(tmp_path / d)[0].stat().st_size for d in ("float32", "float16")]
    assert sizes[0] - sizes[1] == 2 * 6 * 13 * 2
    exact, rounded = (
        run(twins, sampler, p=1, pool_dtype=d) for d in ("float32", "float16")
    )
    for (one, *_), (other, *_) in zip(exact, rounded, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-6)
        assert not torch.equal(one, other)
        torch.testing.assert_close(other[..., -1], other[..., :-1].norm(dim=-1))
    huge = [hosts.RtfmDataset(9, 0.0), hosts.RtfmDataset(7, 1.0)]
    huge[0].features *= 1e6  # float16 ends at 65504: kept in float32
    for features, _ in run(huge, sampler, p=1, pool_dtype="float16"):
        assert features.isfinite().all()


def test_temporary_folder_is_made_late_and_removed(
    sampler, twins, tmp_path, monkeypatch
):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(filling.tempfile, "tempdir", str(tmp_path))
    pair = loaders(twins)
    handle = rtfm.attach(*pair, sampler, p=0.5)
    assert list(tmp_path.iterdir()) == []
    batches(pair, 1)
    assert len(list(tmp_path.iterdir())) == 1
    handle.detach()
    assert list(tmp_path.iterdir()) == []
    pair = loaders(twins)
    handle = rtfm.attach(*pair, sampler, p=0.5)
    batches(pair, 1)
    del handle, pair
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    for options in ({"p": 0}, {"enabled": False}, {"start_after": 5}, {"pool": None}):
        pair = loaders(twins)
        rtfm.attach(*pair, sampler, **{"p": 0.5, **options})
        batches(pair, 1)
        assert list(tmp_path.iterdir()) == []


def test_items_of_any_length_get_no_pool_and_the_log_says_so(sampler, caplog, tmp_path):
    loader = DataLoader(hosts.g_bags(), batch_size=B, collate_fn=hosts.collate_bags)
    with caplog.at_level(logging.INFO, "vad_pseudoaug"):
        torchmil.attach(loader, sampler, p=0.5, pool=tmp_path)
        batches([loader])
    assert "may differ in length" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_progress_and_a_small_budget_are_logged(sampler, twins, caplog, monkeypatch):
    monkeypatch.setattr(filling, "PATIENCE", -1.0)
    with caplog.at_level(logging.INFO, "vad_pseudoaug"):
        run(twins, sampler, epochs=1, pool_bytes=5 * ENTRY)
    assert "pool of pseudo videos: 1 of 16 done" in caplog.text
    assert "pool: 5 pseudo videos" in caplog.text
    assert f"11 more are made whenever they are drawn; pool_bytes={16 * ENTRY}" in (
        caplog.text
    )


def test_several_threads_fill_the_same_pool(sampler, twins, tmp_path):
    expected = run(twins, sampler, pool=tmp_path / "1")
    torch.set_num_threads(3)
    try:
        assert equal(run(twins, sampler, pool=tmp_path / "3"), expected)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    one, three = (files(tmp_path / name) for name in "13")
    assert [f.name for f in one] == [f.name for f in three]
    assert all(
        a.read_bytes() == b.read_bytes() for a, b in zip(one, three, strict=True)
    )


def test_an_error_of_the_hosts_dataset_is_its_own(sampler, twins):
    pair = loaders((Broken(9, 0.0), twins[1]))
    rtfm.attach(*pair, sampler, p=0.5)
    with pytest.raises(FileNotFoundError, match="video 5"):
        next(iter(pair[0]))


class Broken(hosts.RtfmDataset):
    def __getitem__(self, index):
        if index == 5:
            raise FileNotFoundError("video 5")
        return super().__getitem__(index)


def test_bad_options_are_refused():
    for options, message in (
        ({"pool_bytes": -1}, "pool_bytes and refresh_every: expected values >= 0"),
        ({"refresh_every": -1}, "pool_bytes and refresh_every"),
        ({"pool_dtype": "int8"}, "pool_dtype: expected 'float32' or 'float16'"),
    ):
        with pytest.raises(ValueError, match=message):
            Mixing(**options)
    with pytest.raises(TypeError, match="pool: expected 'auto', a folder or None"):
        Mixing(pool=True)


class Counted(hosts.RtfmDataset):
    """Counts what is loaded."""

    def __getitem__(self, index):
        self.__dict__.setdefault("loaded", []).append(index)
        return super().__getitem__(index)


def test_an_item_that_is_replaced_is_not_loaded(sampler, monkeypatch):
    twins = Counted(9, 0.0), Counted(7, 1.0)
    pair = loaders(twins)
    handle = rtfm.attach(*pair, sampler, p=0.5, seed=3)
    assert pair[0].dataset is twins[0]
    lazy = batches(pair, 1)
    assert pair[0].dataset is twins[0]
    for dataset in twins:
        dataset.loaded.clear()
    before = handle.stats()["replaced"]
    lazy += batches(pair, 1)
    kept = 16 - (handle.stats()["replaced"] - before)
    assert 0 < len(twins[0].loaded + twins[1].loaded) == kept < 16
    handle.enabled = False
    assert equal(batches(pair, 1), batches(loaders(twins), 1))
    monkeypatch.setattr(deferred.Survey, "useful", False)
    assert equal(run(twins, sampler, 2, p=0.5), lazy)


def test_switched_off_within_an_epoch_pending_items_are_loaded(sampler, twins):
    pair = loaders(twins)
    handle = rtfm.attach(*pair, sampler, p=1)
    stream = iter(pair[0])
    next(stream)
    handle.enabled = False
    plain = list(loaders(twins)[0])
    assert equal([next(stream)], plain[1:2])


class Drawing(Counted):
    def __getitem__(self, index):
        np.random.rand()  # noqa: NPY002
        return super().__getitem__(index)


class Changing(Counted):
    def __getitem__(self, index):
        features, label = super().__getitem__(index)
        return features + len(self.loaded), label


class Large(Counted):
    def __getitem__(self, index):
        return (*super().__getitem__(index), np.ones(1000, np.float32))


@pytest.mark.parametrize("kind", [Drawing, Changing, Large])
def test_items_are_loaded_where_they_cannot_be_done_without(sampler, kind):
    twins = kind(9, 0.0), kind(7, 1.0)
    pair = loaders(twins)
    rtfm.attach(*pair, sampler, p=1, slot=0)
    batches(pair, 1)
    twins[0].loaded.clear()
    for batch in pair[0]:
        assert torch.equal(batch[1], torch.zeros(len(batch[1])))
    assert twins[0].loaded == list(range(9))


class Batched(Counted):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


def test_a_dataset_that_gives_several_items_at_once(sampler):
    expected = run((Counted(9, 0.0), Counted(7, 1.0)), sampler)
    assert equal(run((Batched(9, 0.0), Batched(7, 1.0)), sampler), expected)


def open_handle(worker):
    info = get_worker_info()
    assert info.dataset.get_num_frames() == 96
    assert len(info.dataset) == 9
    info.dataset.handle = worker
    features, label = info.dataset[0]  # the host's item, as without the library
    assert features.ndim == 3
    assert label in (0, 1)


class NeedsHandle(hosts.RtfmDataset):
    handle = None

    def __getitem__(self, index):
        if get_worker_info() is not None:
            assert self.handle is not None
        return super().__getitem__(index)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_find_the_hosts_dataset(sampler, context):
    options = {"num_workers": 2, "multiprocessing_context": context}
    pair = [
        DataLoader(
            NeedsHandle(9, label), batch_size=B, worker_init_fn=open_handle, **options
        )
        for label in (0.0, 1.0)
    ]
    rtfm.attach(*pair, sampler, p=0.5)
    plain = [NeedsHandle(9, label) for label in (0.0, 1.0)]
    expected = run(plain, sampler, 1, p=0.5, seed=0)
    assert equal(batches(pair, 1), expected)


def test_a_copied_loader_goes_on_alone(sampler, twins):
    pair = loaders(twins)
    rtfm.attach(*pair, sampler, p=0.5, seed=3)
    batches(pair, 1)
    copies = copy.deepcopy(pair)
    assert equal(batches(copies, 2), batches(pair, 2))


def test_what_travels_to_spawned_workers_is_small(twins):
    # 2.2 MB of weights, and 200 videos of 2.3 kB.
    sampler = PseudoVideoSampler(MultiTaskVAE(VAEConfig(hosts.FEATURE_DIM, (512,))))
    paths = [Files([f"/data/video_{i}.npy" for i in range(100)], k) for k in (0.0, 1.0)]
    pair = loaders(paths)
    rtfm.attach(*pair, sampler, p=0.5)
    next(iter(pair[0]))
    mixer = pair[0].collate_fn
    assert mixer.defers
    # The weights travel as shared memory, and of a video what is small.
    sizes = [len(ForkingPickler.dumps(value)) for value in (mixer, mixer._pool)]
    assert max(sizes) < 60_000


class Files:
    """A host that knows its videos by their paths."""

    def __init__(self, paths, label):
        self.paths, self.label = paths, label

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        features = np.full((2, 24, hosts.FEATURE_DIM), index + 1, np.float32)
        return features, torch.tensor(self.label)


def usage():
    text = Path("/proc/self/status").read_text(encoding="ascii")
    rows = dict(row.split(":", 1) for row in text.splitlines() if ":" in row)
    return (
        int(rows["VmRSS"].split()[0]) / 1e3,
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        threading.active_count(),
        int(rows["Threads"]),
    )


def soak(pair, num_batches, after_batch=lambda: None):
    """Return how much memory grows over the batches, in MB.

    It is the median slope of the second half: memory that is taken once, in a step,
    is no slope, and what is kept of each batch is. Handles and threads must stay.
    """
    per_epoch = sum(len(loader) for loader in pair)
    used = []
    for _ in range(50):
        for _ in range(num_batches // 50 // per_epoch):
            for loader in pair:
                for _ in loader:
                    after_batch()
        used.append(usage())
    memory, *counts = zip(*used[25:], strict=True)
    assert all(len(set(own)) == 1 for own in counts)
    return theilslopes(memory).slope * len(used)


@pytest.mark.parametrize(
    ("num_batches", "most"),
    [(1_000, 2.0), pytest.param(50_000, 0.5, marks=pytest.mark.slow)],
)
def test_memory_handles_and_threads_stay(sampler, twins, num_batches, most):
    pair = loaders(twins)
    rtfm.attach(*pair, sampler, p=0.5, refresh_every=50)
    assert soak(pair, num_batches) < most


def test_what_is_kept_of_each_batch_is_seen(twins):
    kept = []

    def keep():  # pages of their own, which no memory freed before can serve for
        kept.append(mmap.mmap(-1, 40_000))
        kept[-1].write(bytes(40_000))

    grown = soak(loaders(twins), 1_000, keep)
    assert grown == pytest.approx(40, rel=0.5)


def test_nothing_waits_for_the_garbage_collector(sampler, twins):
    pair = loaders(twins)
    rtfm.attach(*pair, sampler, p=0.5, refresh_every=5)
    batches(pair)
    gc.collect()
    gc.disable()
    try:
        batches(pair, 20)
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_appended_videos_are_made_once(sampler, twins, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(filling.tempfile, "tempdir", str(tmp_path))
    fresh = rtfm.wrap(*twins, sampler, pool_bytes=0)
    assert list(tmp_path.iterdir()) == []
    small = rtfm.wrap(*twins, sampler, pool_bytes=3 * ENTRY)
    kept = rtfm.wrap(*twins, sampler)
    expected = [dataset[i] for dataset in fresh for i in range(len(dataset))]
    for group in (small, kept):
        for _ in range(2):
            found = [dataset[i] for dataset in group for i in range(len(dataset))]
            assert equal(found, expected)
    for group, counts in ((small, [3, 3]), (kept, [14, 18])):
        folders = [dataset._folder for dataset in group]
        assert [len(list(folder.iterdir())) for folder in folders] == counts
    monkeypatch.setattr(PseudoVideoSampler, "sample", None)
    assert equal([kept[1][-1]], [expected[-1]])
    del small, kept, group
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_mixed_list_of_halves_takes_the_pool_too(sampler):
    twins = [hosts.b_halves(label) for label in (0, 1)]
    pair = loaders(twins)
    mil.attach(*pair, sampler, p=1)
    batches(pair, 1)
    for loader, label in zip(pair, (0, 1), strict=True):
        assert loader.collate_fn.defers
        for _, labels in loader:
            assert labels.dtype == torch.int64
            assert (labels == label).all()


def test_an_entry_keeps_what_it_holds_whatever_the_order_in_memory(tmp_path):
    features = torch.arange(24.0).view(2, 3, 4)
    mask = torch.tensor([True, False, True])
    turned = features.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    for number, one in enumerate((features, turned)):
        write_entry(tmp_path / str(number), Entry(one, mask, False), 5, keep=False)
        again = read_entry(tmp_path / str(number), 5)
        assert torch.equal(again.features, features)
        assert torch.equal(again.mask, mask)
