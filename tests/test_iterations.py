"""Iterations over attached loaders: endless, broken off, at once, copied, detached."""

import copy
import os
import pickle
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, RandomSampler, Sampler

import hosts
from vad_pseudoaug import pool as pools
from vad_pseudoaug.adapters import rtfm

B = 4


def twins(num_normal=9, num_abnormal=7):
    return hosts.RtfmDataset(num_normal, 0.0), hosts.RtfmDataset(num_abnormal, 1.0)


def loaders(datasets, **options):
    return [DataLoader(dataset, **{"batch_size": B, **options}) for dataset in datasets]


def features(batches):
    return [batch[0].clone() for batch in batches]


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Endless(Sampler):
    """Permutations of the items, one after the other."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        generator = torch.Generator().manual_seed(0)
        while True:
            yield from torch.randperm(self.count, generator=generator).tolist()


class Unlike(Sampler):
    """Indices of other kinds than python's integers."""

    def __init__(self, kind, times):
        self.kind, self.times = kind, times

    def __iter__(self):
        return iter([self.kind(3) for _ in range(self.times)])

    def __len__(self):
        return self.times


def with_replacement(count):
    return RandomSampler(
        range(count),
        replacement=True,
        num_samples=400,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize("make", [Endless, with_replacement])
def test_a_video_that_comes_again_in_an_epoch_is_drawn_anew(sampler, make):
    datasets = twins(10, 10)

    def run(num_workers):
        pair = [
            DataLoader(data, B, sampler=make(10), num_workers=num_workers)
            for data in datasets
        ]
        rtfm.attach(*pair, sampler, p=0.5, seed=3, pool=None)
        return [batch[0] for _, batch in zip(range(100), pair[1], strict=False)]

    expected = run(0)
    real = {video.tobytes(): i for i, video in enumerate(datasets[1].features)}
    found = [video.numpy().tobytes() for batch in expected for video in batch]
    kept = Counter(real[video] for video in found if video in real)
    assert sorted(kept) == list(range(10))
    assert max(kept.values()) < 40
    made = [video for video in found if video not in real]
    assert 150 < len(made) == len(set(made)) < 250
    for num_workers in (1, 2):
        assert equal(run(num_workers), expected)


@pytest.mark.parametrize("kind", [int, np.int64, torch.tensor])
def test_indices_of_all_kinds_are_counted(sampler, kind):
    pair = [DataLoader(data, B, sampler=Unlike(kind, 40)) for data in twins()]
    rtfm.attach(*pair, sampler, p=0.5, pool=None)
    videos = torch.cat(features(pair[1]))
    real = [torch.equal(video, torch.from_numpy(twins()[1][3][0])) for video in videos]
    assert 10 < sum(real) < 30


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_warm_up_counts_the_batches_that_the_host_took(sampler, num_workers):
    datasets = twins(24, 24)
    pair = loaders(datasets, num_workers=num_workers)
    real = features(loaders(datasets)[1])
    rtfm.attach(*pair, sampler, p=1, start_after=7, start_unit="steps", pool=None)
    replaced = []
    for num_taken in (1, 3, 1, 6, 6):  # of 6; the others are broken off
        taken = zip(real[:num_taken], pair[1], strict=False)
        replaced += [not torch.equal(old, new[0]) for old, new in taken]
    assert replaced == [False] * 7 + [True] * 10


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_iterations_at_once_do_not_disturb_each_other(sampler, num_workers):
    def epochs(at_once):
        pair = loaders(twins(24, 24), num_workers=num_workers)
        rtfm.attach(*pair, sampler, p=0.5, seed=3, pool=None)
        first = iter(pair[1])
        found = features([next(first)])
        if not at_once:
            found += features(first)
        second = features(pair[1])
        return found + features(first) + second

    assert equal(epochs(at_once=True), epochs(at_once=False))


@pytest.mark.parametrize("options", [{}, {"give_mask": True}, {"pool": None}])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_after_detach_nothing_is_replaced(sampler, num_workers, options):
    workers = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    datasets = twins(24, 24)
    pair = loaders(datasets, **workers)
    handle = rtfm.attach(*pair, sampler, **{"p": 1, **options})
    real = list(loaders(datasets)[1])
    assert not torch.equal(next(iter(pair[1]))[0], real[0][0])
    running = iter(pair[1])
    next(running)
    handle.detach()
    stats = handle.stats()
    # Two batches were made ahead by a worker.
    for found in (list(running)[3:], list(pair[1])[3:], list(pair[1])[3:]):
        assert [len(batch) for batch in found] == [2] * len(found)
        assert equal(features(found), features(real[-len(found) :]))
    assert equal(features(pair[1]), features(real))
    assert handle.stats() == stats
    handle.enabled = True
    again = rtfm.attach(*pair, sampler, p=1)
    assert not equal(features(pair[1])[:1], features(real[:1]))
    again.detach()
    assert equal(features(pair[1]), features(real))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_attached_and_detached_an_inert_run_keeps_the_hosts_states(
    sampler, num_workers
):
    def run(*, attached):
        torch.manual_seed(0)
        workers = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
        pair = loaders(twins(), shuffle=True, **workers)
        found = []
        for _ in range(2):
            if attached:
                handle = rtfm.attach(*pair, sampler, p=0)
            found += features(pair[1])
            if attached:
                handle.detach()
            found += features(pair[1])
        return [*found, torch.get_rng_state()]

    assert equal(run(attached=True), run(attached=False))


class Repeating:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        while True:
            yield from iter(self.batches)


class KeepsIterator(DataLoader):
    """Builds its iterator once, when it is made, as loaders that spare workers do."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.num_batches = len(self.batch_sampler)
        object.__setattr__(self, "batch_sampler", Repeating(self.batch_sampler))
        self.iterator = super().__iter__()

    def __len__(self):
        return self.num_batches

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_that_built_its_iterator_is_refused(sampler, num_workers):
    pair = [KeepsIterator(data, B, num_workers=num_workers) for data in twins()]
    with pytest.raises(ValueError, match=r"in \.iterator\).* wrap the datasets"):
        rtfm.attach(*pair, sampler, p=1)
    [running] = [DataLoader(twins()[1], B, num_workers=1, persistent_workers=True)]
    next(iter(running))
    with pytest.raises(ValueError, match="the loader is running"):
        rtfm.attach(loaders(twins())[0], running, sampler, p=1)


class InThePlace(DataLoader):
    """Gives its batches by a generator, as loaders that fetch ahead do."""

    def __iter__(self):
        yield from super().__iter__()


def test_a_loader_that_is_a_generator_is_told_when_items_are_drawn(sampler):
    pair = [InThePlace(data, B, sampler=Unlike(int, 40)) for data in twins()]
    rtfm.attach(*pair, sampler, p=0.5, pool=None)
    videos = torch.cat(features(pair[1]))
    real = [torch.equal(video, torch.from_numpy(twins()[1][3][0])) for video in videos]
    assert 10 < sum(real) < 30


def through_pickle(pair):
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("pool", ["auto", None])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
@pytest.mark.parametrize("epochs_before", [0, 1])
def test_a_copy_goes_on_alone(sampler, num_workers, pool, duplicate, epochs_before):
    workers = {"num_workers": num_workers, "persistent_workers": num_workers > 0}
    pair = loaders(twins(), **workers)
    handle = rtfm.attach(*pair, sampler, p=0.5, seed=3, pool=pool)
    for _ in range(epochs_before):
        features(pair[1])
    before = handle.stats()
    [_, other] = duplicate(pair)
    assert other.dataset is not pair[1].dataset
    assert isinstance(other, DataLoader)
    found = [features(other) for _ in range(3)]
    assert not equal(found[0], found[1])
    assert not equal(found[1], found[2])
    assert other.collate_fn.counts()[0] == 7 * (epochs_before + 3)
    assert handle.stats() == before
    other.collate_fn.enabled = False
    assert equal(features(other), features(loaders(twins())[1]))
    assert handle.enabled
    assert all(equal(features(pair[1]), epoch) for epoch in found)
    handle.detach()
    other.collate_fn.enabled = True  # its folder has gone with the original's
    assert not equal(features(other), features(loaders(twins())[1]))


def note_counts(rank, loader, folder):
    for batch in loader:
        assert len(batch) == 2
    counts = [rank, *loader.collate_fn.counts(), loader.collate_fn.ledger.epoch]
    np.save(f"{folder}/{rank}.npy", counts)


def test_processes_that_get_a_loader_have_counters_of_their_own(sampler, tmp_path):
    pair = loaders(twins())
    handle = rtfm.attach(*pair, sampler, p=1)
    features(pair[1])
    torch.multiprocessing.spawn(
        note_counts, args=(pair[1], str(tmp_path)), nprocs=2, join=True
    )
    found = [np.load(tmp_path / f"{rank}.npy").tolist() for rank in (0, 1)]
    assert found == [[0, 14, 14, 2], [1, 14, 14, 2]]
    assert handle.stats() == {"seen": 7, "replaced": 7}


@pytest.mark.parametrize("wait", ["start_after", "enabled"])
def test_persistent_workers_read_a_pool_that_is_filled_later(
    sampler, tmp_path, monkeypatch, wait
):
    make = pools.Pool._make

    def noted(self, *arguments):
        (tmp_path / f"{os.getpid()}").touch()
        return make(self, *arguments)

    monkeypatch.setattr(pools.Pool, "_make", noted)
    pair = loaders(
        twins(),
        num_workers=1,
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    options = {"start_after": 1} if wait == "start_after" else {"enabled": False}
    handle = rtfm.attach(*pair, sampler, p=1, **options)
    for _ in range(3):
        features(pair[1])
        handle.enabled = True
    assert handle.stats()["replaced"] == 14
    assert [file.name for file in tmp_path.iterdir()] == [str(os.getpid())]


class Item(NamedTuple):
    features: Any
    label: float


@pytest.mark.parametrize("num_workers", [0, 1])
def test_named_members_keep_their_names_beside_the_mask(sampler, num_workers):
    items = [[Item(*item) for item in dataset] for dataset in map(list_of, twins())]
    pair = loaders(items, num_workers=num_workers)
    rtfm.attach(*pair, sampler, p=1, give_mask=True)
    batch = next(iter(pair[1]))
    assert batch._fields == ("features", "label", "pseudo_mask")
    assert batch.pseudo_mask.shape == (B, 6)
    assert batch.label.tolist() == [1.0] * B
    listed = loaders([[list(item) for item in dataset] for dataset in items])
    rtfm.attach(*listed, sampler, p=1, give_mask=True)
    for name, member in zip(batch._fields, next(iter(listed[1])), strict=True):
        assert torch.equal(getattr(batch, name), member)


def list_of(dataset):
    return [dataset[index] for index in range(len(dataset))]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_a_framework_builds_of_the_parts_mixes_too(sampler, num_workers):
    pair = loaders(twins())
    rtfm.attach(*pair, sampler, p=0.5, pool=None, start_after=1, start_unit="steps")
    collate = pair[1].collate_fn
    built = DataLoader(twins()[1], B, num_workers=num_workers, collate_fn=collate)
    real = features(loaders(twins())[1])
    features(built)
    found = features(built)
    assert not equal(found, real)
    assert equal(features(built), found)
    assert collate.counts()[0] == 21
