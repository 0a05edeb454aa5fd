"""Does anything grow? Memory, file handles and threads over many attached batches.

    python benchmarks/soak.py --batches 50000

Attached loaders of small videos are read again and again, half of the videos replaced
from a pool that is refreshed as it goes. Every 1/50 of the way the resident memory is
taken; the slope over the last four fifths is given with its standard error, which
counts every sample as independent. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig
from vad_pseudoaug.adapters import rtfm

CROPS, SEGMENTS, SIZE, BATCH = 2, 8, 16, 4
SAMPLES = 50


class Videos(Dataset[tuple[np.ndarray, torch.Tensor]]):
    """A host's dataset of one class."""

    def __init__(self, count: int, label: float):
        self.label = label
        rng = np.random.default_rng(int(label))
        shape = (count, CROPS, SEGMENTS, SIZE)
        self.features = rng.random(shape, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[np.ndarray, torch.Tensor]:
        return self.features[index], torch.tensor(self.label)


def usage() -> tuple[float, int, int, int]:
    """Return resident MB, file handles, python's threads and all threads."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    rows = dict(row.split(":", 1) for row in text.splitlines() if ":" in row)
    return (
        int(rows["VmRSS"].split()[0]) / 1e3,
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        threading.active_count(),
        int(rows["Threads"]),
    )


def main() -> None:
    """Read batches, and print what was taken on the way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=50_000)
    num_batches = parser.parse_args().batches
    torch.set_num_threads(1)
    vae = MultiTaskVAE(VAEConfig(SIZE, (16,), 4))
    twins = [
        DataLoader(Videos(count, label), batch_size=BATCH)
        for count, label in ((20, 0.0), (16, 1.0))
    ]
    rtfm.attach(*twins, PseudoVideoSampler(vae), p=0.5, refresh_every=50)
    per_epoch, done = sum(map(len, twins)), 0
    taken = []
    started = time.monotonic()
    while done < num_batches:
        for loader in twins:
            for _ in loader:
                pass
        done += per_epoch
        if done * SAMPLES // num_batches > len(taken):
            gc.collect()
            taken.append((done, *usage()))
            print(*taken[-1], sep="\t", flush=True)
    late = np.array(taken[len(taken) // 5 :])
    x, y = late[:, 0] / 1e4, late[:, 1]
    slope, offset = np.polyfit(x, y, 1)
    rest = y - slope * x - offset
    error = (rest.var(ddof=2) / ((x - x.mean()) ** 2).sum()) ** 0.5
    print(
        f"{done} batches in {time.monotonic() - started:.0f} s: resident memory "
        f"{y[0]:.1f} to {y[-1]:.1f} MB, slope {1e3 * slope:.1f} +- {1e3 * error:.1f} "
        f"KB in 10,000 batches; file handles {np.unique(late[:, 2]).tolist()}, threads "
        f"{np.unique(late[:, 3]).tolist()} and {np.unique(late[:, 4]).tolist()}"
    )


if __name__ == "__main__":
    main()
