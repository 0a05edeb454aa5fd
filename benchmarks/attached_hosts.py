"""What the one call of an adapter does to a host, with its defaults left on.

    python benchmarks/attached_hosts.py                          # UCSD Ped2, ten draws
    python benchmarks/attached_hosts.py --data synthetic --seeds 3
    python benchmarks/attached_hosts.py --data FOLDER --standardise --processes 2

For each seed a sampler is fitted and the two hosts of `examples/` are trained three
times: without it, attached with the p that `attach` chooses where none is given, and
attached with p=0.5, given and so not tried. Unlike `vad-pseudoaug compare`, which adds
videos and tries the host itself, an adapter replaces some of each batch and tries the
built-in detector. Printed are frame-level figures in percent, the paired differences
from the host alone with their 95 % intervals over seeds and test videos, and how often
each p was chosen.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import ModuleType
from typing import Any

import torch

from vad_pseudoaug import PseudoVideoSampler, VideoSet, to_segments
from vad_pseudoaug.arms import Arm
from vad_pseudoaug.auto import choose_p, fit_batch
from vad_pseudoaug.compare import RTFM_STEPS, Comparison, Run
from vad_pseudoaug.examples import mil_style, rtfm_style
from vad_pseudoaug.metrics import frame_figures
from vad_pseudoaug.protocol import Data
from vad_pseudoaug.summary import format_tables, summarise
from vad_pseudoaug.videos import as_pair

HOSTS: dict[str, ModuleType] = {"rtfm": rtfm_style, "mil": mil_style}
ALONE, CHOSEN, GIVEN = "alone", "attached", "attached, p=0.5"


def run_seed(
    data: Data, hosts: list[str], threads: int, seed: int
) -> tuple[list[Run], float]:
    """Train the hosts of one seed; and the p that was chosen for them."""
    torch.set_num_threads(threads)
    split = data.split(seed)
    normal, abnormal = as_pair(split.normal, split.abnormal)
    sampler = PseudoVideoSampler.fit(normal, abnormal, seed=seed, progress=False)
    # As `attach` does, on the items of the hosts, which both have 32 segments a video.
    items = [
        VideoSet([to_segments(video, rtfm_style.NUM_SEGMENTS) for video in videos])
        for videos in (normal, abnormal)
    ]
    chosen = choose_p(*items, recipe=sampler.recipe, seed=seed, progress=False).p
    options: dict[str, dict[str, Any]] = {
        "rtfm": {"steps": RTFM_STEPS, "batch_size": fit_batch(normal, abnormal)}
    }
    runs = []
    for name in hosts:
        for arm, p in ((ALONE, None), (CHOSEN, chosen), (GIVEN, 0.5)):
            more = {} if p is None else {"sampler": sampler, "p": p}
            started = time.monotonic()
            model = HOSTS[name].train(
                normal, abnormal, seed=seed, **more, **options.get(name, {})
            )
            seconds = time.monotonic() - started
            scores = split.snippet_scores(partial(HOSTS[name].score, model))
            figures = frame_figures(split.labels, split.to_frames(scores))
            runs.append(Run(name, arm, seed, figures, None, (0, 0), seconds, scores))
    return runs, chosen


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ped2", help="as of `compare`")
    parser.add_argument("--standardise", action="store_true")
    parser.add_argument("--hosts", nargs="+", choices=tuple(HOSTS), default=list(HOSTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    data = Data.named(options.data, standardise=options.standardise)
    comparison = Comparison(
        data,
        [Arm(ALONE, "none"), Arm(CHOSEN, "robust"), Arm(GIVEN, "robust")],
        options.hosts,
        options.seeds,
    )
    threads = max(1, torch.get_num_threads() // options.processes)
    work = partial(run_seed, data, options.hosts, threads)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        found = list(pool.map(work, comparison.seeds))
    runs = [run for own, _ in found for run in own]
    print(format_tables(summarise(comparison, runs)))
    chosen = Counter(p for _, p in found)
    times = ", ".join(f"p={p:g} {count} times" for p, count in sorted(chosen.items()))
    print(f"\nchosen: {times}")


if __name__ == "__main__":
    main()
