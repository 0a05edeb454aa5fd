"""What reading and pooling one video costs, as ratios to RTFM's own way in one run.

    python benchmarks/reading.py

A (T, 10, 2048) float32 `.npy` is read from the warm page cache into 32 segments, the
ways in random order in each round. Ratios are taken within a round; printed are their
medians and quartiles. "reading alone" reads the file into a buffer of 1 MiB and does
nothing with it: what the machine can read, of which each way reaches a share.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vad_pseudoaug import read_features, to_segments
from vad_pseudoaug.features import open_features

READING, RTFM = "reading alone", "RTFM's way"


def by_crops(path: Path) -> Any:
    """Follow RTFM's contract: all in memory, crop by crop, bin by bin."""
    features = np.array(np.load(path), dtype=np.float32).transpose(1, 0, 2)
    segments = np.zeros((features.shape[0], 32, features.shape[2]), np.float32)
    edges = np.linspace(0, features.shape[1], 33, dtype=int)
    for crop, pooled in zip(features, segments, strict=True):
        for segment, (start, end) in enumerate(itertools.pairwise(edges)):
            pooled[segment] = (
                crop[start] if start == end else np.mean(crop[start:end], axis=0)
            )
    return segments


def read(path: Path) -> None:
    """Read the file, and that is all."""
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


WAYS: dict[str, Callable[[Path], Any]] = {
    RTFM: by_crops,
    "to_segments(open_features)": lambda path: to_segments(open_features(path)),
    "to_segments(read_features)": lambda path: to_segments(read_features(path)),
    READING: read,
}


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--snippets", type=int, nargs="+", default=[45, 450, 1000])
    options = parser.parse_args()
    rows = []
    for num_snippets in options.snippets:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "video.npy"
            rng = np.random.default_rng(0)
            np.save(path, rng.random((num_snippets, 10, 2048), dtype=np.float32))
            oracle = by_crops(path)
            for way in list(WAYS)[1:3]:
                if not np.array_equal(WAYS[way](path), oracle):
                    raise RuntimeError(f"{way} differs from {RTFM}")
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way in random.sample(sorted(WAYS), len(WAYS)):
                    start = time.perf_counter()
                    WAYS[way](path)
                    times[way].append(time.perf_counter() - start)
        for way in WAYS:
            faster = [a / b for a, b in zip(times[RTFM], times[way], strict=True)]
            share = [a / b for a, b in zip(times[READING], times[way], strict=True)]
            quartiles = statistics.quantiles(faster, n=4)
            rows.append(
                {
                    "snippets": num_snippets,
                    "way": way,
                    "milliseconds": 1000 * statistics.median(times[way]),
                    "faster": statistics.median(faster),
                    "quartiles": [quartiles[0], quartiles[2]],
                    "share": statistics.median(share),
                }
            )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(
        f"{'snippets':>8}  {'way':<27}{'ms':>7}{'x RTFM':>8}   quartiles      "
        f"{'share of reading':>16}"
    )
    for row in rows:
        low, high = row["quartiles"]
        print(
            f"{row['snippets']:>8}  {row['way']:<27}{row['milliseconds']:>7.1f}"
            f"{row['faster']:>8.2f}   {low:.2f} to {high:.2f}   {row['share']:>12.2f}"
        )


if __name__ == "__main__":
    main()
