"""A fit that processes share: the losses of one process, and no death loses any."""

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from list_files import list_options, write_lists
from vad_pseudoaug import (
    MultiTaskVAE,
    PseudoVideoSampler,
    VAEConfig,
    VideoSet,
    processes,
)
from vad_pseudoaug.processes import Processes
from vad_pseudoaug.recipe import Recipe
from vad_pseudoaug.selection import select_above
from vad_pseudoaug.training import train_vae

FITTED = {"variance": "fitted", "free_bits": 0.1, "validation_share": 0.3}
CASES = {
    "paper": {},
    "few snippets": {"max_snippets": 1},
    "mixed": {"batching": "mixed", "batch_size": 20, "steps_per_epoch": 4},
    "fitted": {**FITTED, "batching": "mixed", "steps_per_epoch": 4},
    "standardised": {**FITTED, "standardise": True, "shared_trunk": True},
}


def make_videos():
    rng = np.random.default_rng(0)
    return [
        [
            rng.random((2, int(rng.integers(3, 9)), 12), dtype=np.float32) + shift
            for _ in range(count)
        ]
        for count, shift in ((7, 0.0), (5, 0.5))
    ]


def train(name, state_path=None, processes=None):
    normal, abnormal = map(VideoSet, make_videos())
    selection = select_above([np.linspace(0, 1, v.shape[1]) for v in abnormal])
    recipe = Recipe.named(epochs=3, lr=1e-3, **CASES[name])
    config = {
        key: getattr(recipe, key)
        for key in ("variance", "free_bits", "standardise", "shared_trunk")
    }
    model = MultiTaskVAE(VAEConfig(12, (16,), 4, **config))
    if recipe.standardise:
        model.set_standardisation(torch.full((12,), 0.5), 0.3)
    sets = (model, normal, abnormal, selection, recipe)
    return model, train_vae(*sets, state_path=state_path, processes=processes)


def work(rank, folder):
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    processes = Processes()
    with pytest.raises(ValueError, match="expected a folder that all of them share"):
        PseudoVideoSampler.fit(*make_videos(), processes=processes)
    found = {}
    for name in CASES:
        state = folder / f"{name}.{rank}.safetensors"
        model, history = train(name, state, processes)
        found[name] = history
        torch.save(model.state_dict(), folder / f"{name}.{rank}.pt")
    # All epochs are done: the second one, which has no file, is told so.
    _, again = train("paper", folder / f"paper.{rank}.safetensors", processes)
    assert again == found["paper"]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    shared = processes.share({"a": torch.full((3,), float(rank))})
    assert shared["a"].tolist() == [0, 0, 0]
    processes.wait()
    group = distributed.group.WORLD
    distributed.destroy_process_group()
    assert sys.getrefcount(group) <= 2  # held to the end, it may abort the exit


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(rank, folder)) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_losses_of_one(shared, name):
    model, history = train(name)
    first, second = (json.loads((shared / f"{r}.json").read_text()) for r in (0, 1))
    assert first[name] == second[name]
    for alone, together in zip(history, first[name], strict=True):
        assert together == pytest.approx(alone, rel=1e-5)
    states = [torch.load(shared / f"{name}.{rank}.pt") for rank in (0, 1)]
    for key, value in model.state_dict().items():
        assert torch.equal(states[0][key], states[1][key])
        torch.testing.assert_close(states[0][key], value, rtol=1e-4, atol=1e-6)


def test_the_first_process_alone_writes(shared):
    written = {path.name for path in shared.glob("*.safetensors")}
    assert written == {f"{name}.0.safetensors" for name in CASES}


def test_a_restart_reads_no_address_of_those_who_died(monkeypatch):
    class JoinedError(Exception):
        pass

    def join(backend, *, store, rank, world_size, timeout):
        store.set(f"address-{rank}", "mine")
        raise JoinedError

    shared = distributed.HashStore()
    monkeypatch.setattr(
        processes, "rendezvous", lambda *_, **__: iter([(shared, 1, 2)])
    )
    monkeypatch.setattr(distributed, "init_process_group", join)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for attempt in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
        with pytest.raises(JoinedError), processes.joined("cpu"):
            pass
        assert shared.num_keys() == 1 + int(attempt)


# A worker that kills itself once, in the midst of the second epoch.
DYING = """
import os, signal, sys
from pathlib import Path
import vad_pseudoaug.training as training
from vad_pseudoaug.cli import main
from vad_pseudoaug.processes import Processes

training.SECONDS_BETWEEN_SAVES = -1.0
marker, original, calls = Path(sys.argv[1]), Processes.add_gradients, []

def add_gradients(self, parameters):
    calls.append(1)
    if len(calls) == 12 + 5 and self.rank == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, parameters)

Processes.add_gradients = add_gradients
sys.exit(main(sys.argv[2:]))
"""


def torchrun(*arguments, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    return ended


@pytest.mark.slow
def test_torchrun_and_a_worker_that_dies(tmp_path):
    write_lists(tmp_path, make_videos())
    choices = ["--epochs", 3, "--hidden-dims", 16, "--latent-dim", 4]
    choices += ["--baseline-epochs", 40, "--baseline-hidden-dims", 16]
    choices += ["--baseline-lr", 0.01]
    fit = ["fit", "--recipe", "paper", *list_options(tmp_path), *choices, "-o"]
    ended = torchrun("-m", "vad_pseudoaug", *fit, tmp_path / "whole")
    assert ended.stdout.count("wrote ") == 1
    script, marker = tmp_path / "dying.py", tmp_path / "died"
    script.write_text(DYING)
    torchrun("--max-restarts", 1, script, marker, *fit, tmp_path / "mended")
    assert marker.exists()
    whole, mended = (
        load_file(next(Path(tmp_path / run).glob("*.safetensors")))
        for run in ("whole", "mended")
    )
    assert whole.keys() == mended.keys()
    assert all(torch.equal(whole[key], mended[key]) for key in whole)
    # What is not shared, one process does.
    torchrun("-m", "vad_pseudoaug", "inspect", tmp_path / "normal0.npy")
