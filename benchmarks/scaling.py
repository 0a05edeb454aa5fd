"""What a second process brings: seconds of a training epoch by 1, 2, ... processes.

    python benchmarks/scaling.py [--json] [--processes 1 2]

`torchrun -m vad_pseudoaug fit` trains the paper's layers on batches of 1,024 snippets,
with one thread a process, once for few epochs and once for more: the difference is what
epochs cost, without the start, the baseline and the selection. In each round every
number of processes has its turn. Efficiency is the time of one process over that of n,
divided by n: 1.00 would be n times as fast. On a machine with fewer free cores than
processes it says nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training import write_videos

NUM_VIDEOS = 16
CHOICES = "--recipe paper --threshold 0 --baseline-epochs 1 --batching mixed "
CHOICES += "--batch-size 1024"


def write_lists(folder: Path) -> list[str]:
    """Write videos and lists; return the options that name the lists."""
    files = write_videos(folder, NUM_VIDEOS)
    options = []
    for first, kind in enumerate(("normal", "abnormal")):
        rows = "".join(f"{file.name}\n" for file in files[first::2])
        (folder / f"{kind}.list").write_text(rows, encoding="utf-8")
        options += [f"--{kind}", str(folder / f"{kind}.list")]
    return options


def seconds(processes: int, *arguments: str) -> float:
    """Return how long a fit takes, started by torchrun."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(processes), "-m", "vad_pseudoaug", "fit"),
        *arguments,
    ]
    start = time.perf_counter()
    subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=10, help="of an epoch [10]")
    parser.add_argument("--epochs", type=int, default=8, help="beyond the first [8]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    times: dict[int, list[float]] = {count: [] for count in options.processes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = write_lists(folder)
        common = [*videos, *CHOICES.split(), f"--steps-per-epoch={options.steps}"]
        for turn in range(options.rounds):
            for count, own in times.items():
                found = [
                    seconds(
                        count,
                        *common,
                        f"--epochs={epochs}",
                        f"--output={folder / f'{turn}-{count}-{epochs}'}",
                    )
                    for epochs in (1, 1 + options.epochs)
                ]
                own.append((found[1] - found[0]) / options.epochs)
    first = times[options.processes[0]]
    rows: list[dict[str, Any]] = []
    for count, own in times.items():
        share = [
            a / b * options.processes[0] / count
            for a, b in zip(first, own, strict=True)
        ]
        rows.append(
            {
                "processes": count,
                "seconds_an_epoch": statistics.median(own),
                "efficiency": statistics.median(share),
                "range": (min(share), max(share)),
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'processes':<11}{'seconds an epoch':>17}{'efficiency':>12}   range")
    for row in rows:
        low, high = row["range"]
        print(
            f"{row['processes']:<11}{row['seconds_an_epoch']:>17.2f}"
            f"{row['efficiency']:>12.2f}   {low:.2f} to {high:.2f}"
        )


if __name__ == "__main__":
    main()
