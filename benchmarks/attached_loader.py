"""Time and memory of an attached loader, as ratios to the plain loader in one run.

    python benchmarks/attached_loader.py [--json] [--videos 238] [--rounds 7]
    python benchmarks/attached_loader.py --device cuda    # batches train a host there

The host reads each item from a `.npy` file (T, 10, 2048) and pools it to 32 segments as
RTFM does. Loaders without the library, without a pool and with one are read in rounds
of random order; the medians of the ratios of a round are printed, and beside them what
the machine itself can do. With `--device cuda` each pair of batches, pinned, goes to
the GPU and through a training step of the RTFM-style example, which a step includes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from devices import seconds
from torch import Tensor
from torch.utils.data import DataLoader

from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig
from vad_pseudoaug.adapters import rtfm
from vad_pseudoaug.examples.rtfm_style import Model

LENGTHS = (45, 200, 450)
Use = Callable[[list[Tensor]], None]  # what a host does with a pair of batches


class Videos:
    """Items as RTFM's, read and pooled when asked for."""

    def __init__(self, files: list[Path], label: float):
        self.files, self.label = files, label

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        features = np.load(self.files[index]).transpose(1, 0, 2)  # (10, T, 2048)
        edges = np.linspace(0, features.shape[1], 33, dtype=int)
        pooled = [
            features[:, a:b].mean(axis=1) if b > a else features[:, a]
            for a, b in itertools.pairwise(edges)
        ]
        return np.stack(pooled, axis=1), torch.tensor(self.label)


def write_videos(folder: Path, num_normal: int, num_abnormal: int) -> list[Videos]:
    """Write videos of three lengths; many are links to one file, to spare the disk."""
    rng = np.random.default_rng(0)
    real = []
    for number in range(12):
        shape = (LENGTHS[number % 3], 10, 2048)
        real.append(folder / f"real{number}.npy")
        np.save(real[-1], rng.random(shape, dtype=np.float32) ** 4)
    sets = []
    for label, count in ((0.0, num_normal), (1.0, num_abnormal)):
        files = [folder / f"{label:.0f}-{i}.npy" for i in range(count)]
        for number, file in enumerate(files):
            os.link(real[number % len(real)], file)
        sets.append(Videos(files, label))
    return sets


def twins(
    datasets: list[Videos], num_workers: int, options: argparse.Namespace
) -> list[DataLoader[Any]]:
    """Make the host's two loaders."""
    return [
        DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=options.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=options.device != "cpu",
        )
        for dataset in datasets
    ]


def host_on(options: argparse.Namespace) -> Use:
    """Return the training step of a host on a GPU; on the CPU nothing is trained."""
    if options.device == "cpu":
        return lambda batches: None
    model = Model(2048, options.batch_size).to(options.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def train(batches: list[Tensor]) -> None:
        moved = [batch.to(options.device, non_blocking=True) for batch in batches]
        scores, magnitudes = model(torch.cat(moved))
        optimiser.zero_grad()
        (scores.mean() + magnitudes.mean()).backward()
        optimiser.step()

    return train


def read(loaders: list[DataLoader[Any]], steps: int, use: Use) -> None:
    """Read and use so many pairs of batches."""
    streams: list[Any] = [iter(loader) for loader in loaders]
    for _ in range(steps):
        batches = []
        for number, loader in enumerate(loaders):
            try:
                batch = next(streams[number])
            except StopIteration:
                streams[number] = iter(loader)
                batch = next(streams[number])
            batches.append(batch[0])
        use(batches)


def resident() -> tuple[float, float]:
    """Return megabytes in use by this process: all, and those that are no file's."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    rows = dict(row.split(":", 1) for row in text.splitlines() if ":" in row)
    total, anonymous = (int(rows[k].split()[0]) / 1e3 for k in ("VmRSS", "RssAnon"))
    return total, anonymous


def machine(file: Path) -> dict[str, float]:
    """Measure products at the shapes of a video's snippets, and reading from files."""
    rows, best = 320, {"gflops": 0.0, "read_gb_s": 0.0}
    shapes = [(2048, 1024), (1024, 512), (512, 1024), (1024, 2048)]
    pairs = [(torch.rand(rows, a), torch.rand(a, b)) for a, b in shapes]
    work = sum(2 * rows * a * b for a, b in shapes)
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(5):
            for left, right in pairs:
                torch.mm(left, right)
        rate = 5 * work / (time.perf_counter() - start) / 1e9
        best["gflops"] = max(best["gflops"], rate)
        start = time.perf_counter()
        size = np.load(file).nbytes
        rate = size / (time.perf_counter() - start) / 1e9
        best["read_gb_s"] = max(best["read_gb_s"], rate)
    return best


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run everything; return the figures."""
    num_abnormal = max(options.batch_size, options.videos * 63 // 238)
    datasets = write_videos(folder, options.videos - num_abnormal, num_abnormal)
    sampler = PseudoVideoSampler(MultiTaskVAE(VAEConfig(2048)))
    use = host_on(options)
    figures: dict[str, Any] = {
        "videos": options.videos,
        "batch_size": options.batch_size,
        "machine": machine(datasets[0].files[2]),
        "rows": [],
    }
    for num_workers in (0, 2):
        kinds = {
            "plain": None,
            "same again": None,
            "no pool": {"pool": None},
            "pool": {"pool": folder / "float32"},
            "pool, float16": {"pool": folder / "float16", "pool_dtype": "float16"},
        }
        loaders = {}
        for kind, how in kinds.items():
            loaders[kind] = twins(datasets, num_workers, options)
            if how is not None:
                before = resident()
                start = time.perf_counter()
                rtfm.attach(*loaders[kind], sampler, p=0.5, **how)
                for loader in loaders[kind]:
                    next(iter(loader))
                added = [b - a for a, b in zip(before, resident(), strict=True)]
                row = {"seconds": time.perf_counter() - start, "added_mb": added}
                if kind.startswith("pool") and not num_workers:
                    files = [f.stat().st_size for f in how["pool"].iterdir()]
                    row["disk_mb"] = sum(files) / 1e6
                    figures[f"building, {kind}"] = row
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for number in range(options.rounds + 1):
            for kind in random.sample(sorted(kinds), len(kinds)):
                run = functools.partial(read, loaders[kind], options.steps, use)
                taken = seconds(run, options.device)
                if number:  # the first round is for warming up
                    times[kind].append(taken / options.steps)
        for kind, taken in times.items():
            ratios = [a / b for a, b in zip(taken, times["plain"], strict=True)]
            row = {"workers": num_workers, "loader": kind}
            row["ms_per_step"] = 1e3 * statistics.median(taken)
            row["ratio"] = statistics.median(ratios)
            row["range"] = [min(ratios), max(ratios)]
            figures["rows"].append(row)
        del loaders
    figures["resident_mb_at_the_end"] = resident()
    return figures


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", default="cpu", help="of the host: cpu or cuda")
    parser.add_argument("--videos", type=int, default=238)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of 2 batches, a round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    limit = figures["machine"]
    print(
        f"machine: {limit['gflops']:.0f} GF/s in products of one thread, "
        f"{limit['read_gb_s']:.1f} GB/s from files in memory"
    )
    for kind in ("pool", "pool, float16"):
        row = figures[f"building, {kind}"]
        print(
            f"building the {kind}: {row['seconds']:.0f} s, {row['disk_mb']:.0f} MB of "
            f"files; resident memory {row['added_mb'][0]:+.0f} MB, of which "
            f"{row['added_mb'][1]:+.0f} MB no file's"
        )
    print(f"{'workers':>8}  {'loader':<15}{'ms / step':>10}{'ratio':>8}   range")
    for row in figures["rows"]:
        low, high = row["range"]
        print(
            f"{row['workers']:>8}  {row['loader']:<15}{row['ms_per_step']:>10.0f}"
            f"{row['ratio']:>8.2f}   {low:.2f} to {high:.2f}"
        )


if __name__ == "__main__":
    main()
