"""Several processes on one folder: no corruption, no deadlock, the same results."""

import multiprocessing

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vad_pseudoaug.adapters import rtfm
from vad_pseudoaug.checkpoint import claim_folder

B = 4
PATIENCE = 120  # seconds, after which a process counts as locked


def batches(sampler, twins, epochs=2, num_workers=0, **options):
    pair = [DataLoader(d, batch_size=B, num_workers=num_workers) for d in twins]
    handle = rtfm.attach(*pair, sampler, p=0.6, seed=3, **options)
    found = [
        np.concatenate([np.asarray(member).ravel() for member in batch])
        for _ in range(epochs)
        for loader in pair
        for batch in loader
    ]
    handle.detach()
    return found


def equal(first, second):
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    return True


def host(barrier, results, number, *arguments, **options):
    torch.set_num_threads(1)
    barrier.wait(PATIENCE)
    results[number] = batches(*arguments, **options)


@pytest.fixture
def twins(host_dataset):
    return host_dataset(9, 0.0), host_dataset(7, 1.0)


@pytest.mark.parametrize("refresh_every", [0, 2])
def test_hosts_that_share_a_pool_get_what_each_gets_alone(
    sampler, twins, tmp_path, refresh_every
):
    options = {"refresh_every": refresh_every} if refresh_every else {}
    alone = batches(sampler, twins, 4, **options)
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        results, barrier = manager.dict(), context.Barrier(3)
        processes = [
            context.Process(
                target=host,
                args=(barrier, results, number, sampler, twins, 4),
                kwargs={"pool": tmp_path / "pool", **options},
            )
            for number in range(3)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE)
        assert [process.exitcode for process in processes] == [0, 0, 0]
        assert all(equal(results[number], alone) for number in range(3))
    left = [path.name for path in (tmp_path / "pool").iterdir()]
    assert not [name for name in left if name.startswith(".")]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_eight_workers_give_the_batches_of_none(sampler, twins, tmp_path):
    alone = batches(sampler, twins)
    assert equal(batches(sampler, twins, num_workers=8, pool=tmp_path), alone)
    assert equal(batches(sampler, twins, num_workers=8), alone)


def claim(barrier, results, number, folder, record):
    barrier.wait(PATIENCE)
    try:
        claim_folder(folder, "pool.json", record)
    except ValueError:
        results[number] = False
    else:
        results[number] = True


def test_a_folder_that_many_claim_at_once_is_whole(tmp_path):
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        for turn in range(5):
            results, barrier = manager.dict(), context.Barrier(8)
            folder, record = tmp_path / str(turn), {"seed": 1, "of": ["x"] * 999}
            processes = [
                context.Process(
                    target=claim, args=(barrier, results, number, folder, record)
                )
                for number in range(8)
            ]
            for process in processes:
                process.start()
            for process in processes:
                process.join(PATIENCE)
            assert dict(results) == dict.fromkeys(range(8), True)
            assert [path.name for path in folder.iterdir()] == ["pool.json"]
