"""How time and memory of fit and generate grow with the number and length of videos.

    python benchmarks/growth.py [--json] [--gpus 8]

Sets of small videos `(T, 1, 128)` in files are fitted and generated, each in a process
of its own. Printed are seconds and peak memory and the exponents that a straight line
through their logarithms has: 1 is proportional, 0 not at all. At the end stands what a
million videos of UCF-Crime's shape take on paper, from the work of a snippet and from
rates of products and of reading, the former measured here if it is not given.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

PROGRAM = """
import json, resource, sys, time
from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.export import export_videos

folder = sys.argv[1]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
begin, start = peak(), time.perf_counter()
sampler = PseudoVideoSampler.fit(
    f"{folder}/normal.list", f"{folder}/abnormal.list", recipe="paper", epochs=2,
    baseline_epochs=2, hidden_dims=(64,), latent_dim=16, baseline_hidden_dims=(32,),
    threshold=0.1, folder=f"{folder}/run", progress=False)
fitted, memory = time.perf_counter() - start, peak()
start = time.perf_counter()
export_videos(sampler, f"{folder}/out", per_video=1, progress=False)
print(json.dumps({"fit_seconds": fitted, "fit_mib": memory - begin,
    "generate_seconds": time.perf_counter() - start,
    "generate_mib": peak() - begin}))
"""
FIGURES = ("fit_seconds", "generate_seconds", "fit_mib", "generate_mib")
# Multiply-adds of the paper's Arch1 on 2,048 features: encoder and one decoder.
MULTIPLY_ADDS = 2 * (2048 * 1024 + 1024 * 512 + 512 * 256) + 512 * 256
SNIPPETS, CROPS = 540, 10  # a video of UCF-Crime's training set, on average


def measure(num_videos: int, length: int) -> dict[str, float]:
    """Fit and generate a set in a process of its own."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, shift in (("normal", 0), ("abnormal", 1)):
            rows = []
            for number in range(num_videos // 2):
                rows.append(f"{kind}{number}.npy\n")
                video = rng.random((length, 1, 128), dtype=np.float32) + shift
                np.save(folder / rows[-1].strip(), video)
            (folder / f"{kind}.list").write_text("".join(rows), encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, name],
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, float] = json.loads(ended.stdout)
    return {"videos": num_videos, "snippets": length, **found}


def exponents(rows: list[dict[str, float]], over: str) -> dict[str, float]:
    """Fit a power to each figure."""
    sizes = np.log([row[over] for row in rows])
    return {
        name: float(np.polyfit(sizes, np.log([max(r[name], 1e-3) for r in rows]), 1)[0])
        for name in FIGURES
    }


def product_rate() -> float:
    """Return multiply-adds a second of products of 4,096 rows, 2,048 to 1,024."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left = torch.rand(4096, 2048, device=device)
    right = torch.rand(2048, 1024, device=device)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        (left @ right).sum().item()
        best = min(best, time.perf_counter() - start)
    return 4096 * 2048 * 1024 / best


def main() -> None:
    """Print the tables, or JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--videos", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument(
        "--rate", type=float, help="multiply-adds a second of a GPU [measured here]"
    )
    parser.add_argument(
        "--share", type=float, default=0.85, help="of the rate that training reaches"
    )
    parser.add_argument("--read", type=float, default=2e9, help="bytes/s of a GPU")
    options = parser.parse_args()
    by_number = [measure(count, 50) for count in options.videos]
    by_length = [measure(40, length) for length in options.lengths]
    rate = options.rate or product_rate()
    snippets = 1_000_000 * SNIPPETS * CROPS
    usable = options.share * rate * options.gpus
    projection = {
        "rate": rate,
        "gpus": options.gpus,
        "terabytes": snippets * 2048 * 4 / 1e12,
        # One file, whatever the number of processes.
        "baseline_terabytes": 1_000_000 * CROPS * 32 * 2048 * 4 / 1e12,
        "hours_to_read": snippets * 2048 * 4 / options.read / options.gpus / 3600,
        "hours_to_train_an_epoch": 3 * MULTIPLY_ADDS * snippets / usable / 3600,
        "hours_to_generate_one_each": MULTIPLY_ADDS * snippets / usable / 3600,
    }
    figures: dict[str, Any] = {
        "by_number": by_number,
        "by_number_exponents": exponents(by_number, "videos"),
        "by_length": by_length,
        "by_length_exponents": exponents(by_length, "snippets"),
        "a_million_videos": projection,
    }
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{'videos':>8}{'snippets':>10}" + "".join(f"{n:>18}" for n in FIGURES))
    for rows, over in ((by_number, "videos"), (by_length, "snippets")):
        for row in rows:
            print(
                f"{row['videos']:>8.0f}{row['snippets']:>10.0f}"
                + "".join(f"{row[name]:>18.1f}" for name in FIGURES)
            )
        found = exponents(rows, over)
        print(
            f"{'exponent of ' + over:>18}"
            + "".join(f"{found[name]:>18.2f}" for name in FIGURES)
        )
    print(
        f"\nOn paper: a million videos of {SNIPPETS} snippets and {CROPS} crops, "
        f"{projection['terabytes']:.0f} TB in float32, on {options.gpus} devices of "
        f"{rate / 1e9:.0f} thousand million multiply-adds a second each, of which "
        f"{options.share:.0%} are reached:\n"
        f"an epoch over all snippets {projection['hours_to_train_an_epoch']:.1f} h, "
        f"one pseudo video of each {projection['hours_to_generate_one_each']:.1f} h, "
        f"reading all {projection['hours_to_read']:.1f} h at "
        f"{options.read / 1e9:.0f} GB/s "
        f"each;\nthe baseline's pooled videos take "
        f"{projection['baseline_terabytes']:.1f} TB of temporary files"
    )


if __name__ == "__main__":
    main()
