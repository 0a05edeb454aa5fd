"""What arms gain on held-out training videos: how to choose without the test videos.

    python benchmarks/held_out.py --data FOLDER --standardise --arms none robust cutmix

For each seed the training videos are dealt into parts. Each part in turn is left out,
each arm makes videos of the others, and the hosts trained on them are judged by what
was left out, with video labels alone, as `p="auto"` does it: the AUC of all snippets of
normal videos against the highest fifth of each abnormal one. Printed are the means over
seeds and parts, and their differences from the first arm with the standard error.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import torch
from torch.utils.data import ConcatDataset

from vad_pseudoaug.arms import Training, make_extra
from vad_pseudoaug.auto import fit_batch, leave_out, separation
from vad_pseudoaug.compare import call_host
from vad_pseudoaug.experiments import parse_arm
from vad_pseudoaug.protocol import Data
from vad_pseudoaug.videos import as_pair


def judge(
    data: Data, hosts: list[str], parts: int, job: tuple[int, int, str]
) -> dict[str, float]:
    """Train the hosts with an arm, without a part, and judge them by it."""
    torch.set_num_threads(1)
    seed, part, text = job
    arm = parse_arm(text)
    split = data.split(seed)
    sets = as_pair(split.normal, split.abnormal)
    kept, left_out = list(leave_out(sets, parts, seed=seed))[part]
    training = Training(*kept, recipe=arm.recipe, seed=seed, progress=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* have no snippet that")
        extra = make_extra(arm, training)
    more = [
        ConcatDataset([real, made]) if len(made) else real
        for real, made in zip(kept, extra, strict=True)
    ]
    scores = {
        host: call_host(host, *more, seed, batch_size=fit_batch(*kept))
        for host in hosts
    }
    return {host: separation(score, *left_out) for host, score in scores.items()}


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ped2", help="as of `compare`")
    parser.add_argument("--standardise", action="store_true")
    parser.add_argument("--arms", nargs="+", default=["none", "robust"])
    parser.add_argument("--hosts", nargs="+", default=["mlp", "rtfm"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--parts", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    data = Data.named(options.data, standardise=options.standardise)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [
        (seed, part, arm)
        for seed in seeds
        for part in range(options.parts)
        for arm in options.arms
    ]
    own = partial(judge, data, options.hosts, options.parts)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        found = dict(zip(jobs, pool.map(own, jobs), strict=True))
    table = []
    for host in options.hosts:
        by_arm = {
            arm: [100 * found[job][host] for job in jobs if job[2] == arm]
            for arm in options.arms
        }
        base = by_arm[options.arms[0]]
        for arm, values in by_arm.items():
            gains = [a - b for a, b in zip(values, base, strict=True)]
            error = statistics.stdev(gains) / len(gains) ** 0.5
            mean, gain = statistics.mean(values), statistics.mean(gains)
            row = {"host": host, "arm": arm, "mean": mean, "gain": gain, "error": error}
            table.append(row)
    if options.json:
        print(json.dumps(table, indent=2))
        return
    print(f"host  AUC on held-out training videos, {len(seeds)} seeds   gain")
    for row in table:
        print(
            "{host:<6}{arm:<44}{mean:6.1f}  {gain:+6.1f} +- {error:.1f}".format(**row)
        )


if __name__ == "__main__":
    main()
