"""What an attached loader with p=0 costs, as a ratio to the plain loader in one run.

    python benchmarks/inert_overhead.py

Loaders of RTFM-shaped items, attached and plain, are read in rounds of random order;
the ratio of the readings of a round is taken; printed are its median and quartiles.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig
from vad_pseudoaug.adapters import rtfm


class Videos:
    """Items `(10, 32, 2048)` and a label, from memory: the cheapest of hosts."""

    def __init__(self, num_videos: int, label: float):
        self.features = np.ones((10, 32, 2048), np.float32)
        self.num_videos, self.label = num_videos, label

    def __len__(self) -> int:
        return self.num_videos

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        return self.features, torch.tensor(self.label)


def read(loader: DataLoader[Any]) -> float:
    """Read all batches; return the seconds."""
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sampler = PseudoVideoSampler(MultiTaskVAE(VAEConfig(2048)))
    rows = []
    datasets = Videos(64, 0.0), Videos(64, 1.0)
    for num_workers in (0, 2):
        kinds = {}
        for kind in ("plain", "same again", "p=0"):
            twins = [
                DataLoader(dataset, batch_size=32, num_workers=num_workers)
                for dataset in datasets
            ]
            if kind == "p=0":
                rtfm.attach(*twins, sampler, p=0)
            kinds[kind] = twins[0]
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(options.rounds):
            for kind in random.sample(sorted(kinds), len(kinds)):
                times[kind].append(read(kinds[kind]))
        for kind in ("same again", "p=0"):
            ratios = [a / b for a, b in zip(times[kind], times["plain"], strict=True)]
            quartiles = statistics.quantiles(ratios, n=4)
            rows.append(
                {
                    "workers": num_workers,
                    "loader": kind,
                    "ratio": statistics.median(ratios),
                    "quartiles": [quartiles[0], quartiles[2]],
                }
            )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'workers':>8}  {'loader':<12}{'time / plain':>14}   quartiles")
    for row in rows:
        low, high = row["quartiles"]
        print(
            f"{row['workers']:>8}  {row['loader']:<12}{row['ratio']:>14.3f}"
            f"   {low:.3f} to {high:.3f}"
        )


if __name__ == "__main__":
    main()
