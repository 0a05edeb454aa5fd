"""Kill commands in the middle, again and again; the same command must then finish.

    python tests/crashes.py 200

Each trial starts a command in a fresh folder and ends it by SIGKILL: half of them after
a random time, half at a random step on the disk (a file opened to be written, made,
renamed or removed). What is there under its final name must then be readable as a
whole, and the command repeated must end with the files that an undisturbed run leaves,
byte for byte; of a comparison, the seconds that a run took are left out.

The commands run in forks of this process, which has imported all that they need, so
that a trial does not spend its time on imports. They fork before torch has computed
anything, so there are no threads that a fork would lose.
"""

from __future__ import annotations

import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.ensemble
import sklearn.linear_model
import sklearn.neighbors
import torch
import torch._dynamo

from vad_pseudoaug import (
    check,
    cli,
    compare,
    export,
    gates,
    plots,
    report,
    summary,
    training,
)
from vad_pseudoaug.checkpoint import read_tensors
from vad_pseudoaug.data import ped2
from vad_pseudoaug.readers import read_npy
from vad_pseudoaug.writing import read_json

# Imported before the fork; torch imports its compiler at an optimiser's first step.
NEEDED = (sklearn, check, compare, export, plots, report, summary, torch._dynamo)
LISTS = [f"--{n}={ped2() / n}.list" for n in ("normal", "abnormal")]
TINY = (
    "hidden_dims=16,latent_dim=4,epochs=8,threshold=0.3,baseline_epochs=20,"
    "baseline_hidden_dims=8"
)
CHOICES = ["--recipe=paper"] + [f"--{c.replace('_', '-')}" for c in TINY.split(",")]
COMMANDS = {
    "fit": ["fit", *LISTS, *CHOICES, "-o", "run"],
    "generate": ["generate", "run", "--per-video=4", "--relative", "-o", "pseudo"],
    "check": ["check", "run"],
    "compare": [
        *(
            "compare",
            "-o",
            "compare",
            "--seeds=2",
            "--hosts",
            "hosts.means:train",
            "--set",
            TINY,
        ),
        *("--arms", "none", "jitter", "mixup"),
    ],
}
SHARES = {"fit": 0.3, "generate": 0.3, "check": 0.1, "compare": 0.3}  # of the kills
KILLS = 4  # of one run, one after the other
STEPS = ("os.rename", "os.remove", "os.mkdir", "os.link", "os.chmod")


def start(
    arguments: list[str], folder: Path, kill_at: float = math.inf, tell: int = -1
) -> int:
    """Fork a command that works in a folder, and dies at a step on the disk.

    Args:
        arguments: The command.
        folder: Where.
        kill_at: Number of the step; infinity lets it live.
        tell: A file handle that the number of steps is written to in the end.
    """
    pid = os.fork()
    if pid:
        return pid
    code, steps = 99, 0

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal steps
        writes = event == "open" and isinstance(details[2], int) and details[2] & 3
        if writes or event in STEPS:
            steps += 1
            if steps >= kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        os.chdir(folder)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        sys.addaudithook(count)
        code = cli.main(arguments)
        if tell >= 0:
            os.write(tell, str(steps).encode())
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """Return the exit code of a command, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def content(path: Path) -> bytes:
    """Return what must be equal in two runs."""
    data = path.read_bytes()
    if path.parent.parent.parent.name == "runs" and path.suffix == ".json":
        return json.dumps({**json.loads(data), "seconds": None}).encode()
    if path.name == "runs.csv":
        return re.sub(rb",[^,\n]*$", b"", data, flags=re.MULTILINE)
    return data


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder; hidden ones are what a killed write leaves."""
    return {
        str(path.relative_to(folder)): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def look(folder: Path) -> int:
    """Read every file that a killed command left; raise where one is not whole."""
    hidden = 0
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        if path.name.startswith("."):
            hidden += 1
        elif path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".npy":
            np.array(read_npy(path, None))
        elif path.suffix == ".safetensors":
            read_tensors(path)
        elif path.suffix == ".png":
            assert path.read_bytes()[-8:-4] == b"IEND"
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
        else:
            assert path.read_bytes().endswith(b"\n"), path
    return hidden


def crash(
    name: str, before: Path, expected: dict[str, bytes], how: dict[str, Any]
) -> tuple[int, int]:
    """Kill a command until it has finished; return kills and hidden files left."""
    folder = Path(tempfile.mkdtemp(dir=before.parent))
    shutil.copytree(before, folder, dirs_exist_ok=True)
    rng, kills, hidden = how["rng"], 0, 0
    for _ in range(KILLS):
        by_step = rng.random() < 0.5
        kill_at = rng.randint(1, how["steps"]) if by_step else math.inf
        pid = start(COMMANDS[name], folder, kill_at)
        if not by_step:
            time.sleep(rng.random() * how["seconds"])
            os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        kills += code == -signal.SIGKILL
        assert code in (*how["codes"], -signal.SIGKILL), f"{name}: exit code {code}"
        hidden = look(folder)
    code = wait(start(COMMANDS[name], folder))
    assert code in how["codes"], f"{name} after {kills} kills: exit code {code}"
    found = snapshot(folder)
    assert found.keys() == expected.keys(), f"{name}: {found.keys() ^ expected.keys()}"
    other = [file for file in found if found[file] != expected[file]]
    assert not other, f"{name}: other content in {other}"
    shutil.rmtree(folder)
    return kills, hidden


def main(total: int, names: list[str]) -> None:
    """Kill commands, at least so many times in all."""
    torch.set_num_threads(1)
    training.SECONDS_BETWEEN_SAVES = 0.05  # many saves, that many may be hit
    for quantity, few in (("REPEATS", 4), ("CLASSIFIER_REPEATS", 1), ("TREES", 10)):
        assert hasattr(gates, quantity)
        setattr(gates, quantity, few)
    memory = Path("/dev/shm")  # a killed process loses nothing that it wrote
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as place:
        before = Path(place) / "before"
        before.mkdir()
        seed = random.randrange(2**32)
        rng = random.Random(seed)
        print(f"seed {seed}", flush=True)
        for name in COMMANDS:
            after = Path(place) / f"after-{name}"
            shutil.copytree(before, after)
            told, tell = os.pipe()
            started = time.monotonic()
            code = wait(start(COMMANDS[name], after, tell=tell))
            seconds = time.monotonic() - started
            steps = int(os.read(told, 20))
            assert code in (0, 1), f"{name}: exit code {code}"
            kills = hidden = trials = 0
            if name in names:
                how = {"rng": rng, "seconds": seconds, "steps": steps, "codes": (code,)}
                quota = total * SHARES[name] / sum(SHARES[n] for n in names)
                while kills < quota:
                    one, left = crash(name, before, snapshot(after), how)
                    kills, hidden, trials = kills + one, hidden + left, trials + 1
                    print(f"{name}: {kills} kills", file=sys.stderr)
            print(
                f"{name}: {seconds:.1f} s, {steps} steps on the disk; {kills} kills in "
                f"{trials} trials, all equal in the end; {hidden} hidden files left by "
                "killed writes",
                flush=True,
            )
            if name == "fit":  # what the others start from
                shutil.rmtree(before)
                shutil.copytree(after, before)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:] or list(COMMANDS))
