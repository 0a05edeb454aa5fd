"""A detector from normal videos alone, against two that need no pseudo videos.

    python benchmarks/one_class.py                     # UCSD Ped2, ten draws
    python benchmarks/one_class.py --data synthetic --seeds 3
    python benchmarks/one_class.py --gates             # are they any good?

Each draw of UCSD Ped2 trains on 10 normal videos and tests on the other 18. The
detector is the library's MIL baseline, whose abnormal videos are 240 pseudo ones of the
recipe "one-class", one row for each of the `--disturbances`; kNN is the mean distance
to the 5 nearest normal training snippets, Mahalanobis that to their mean, by a shrunk
covariance. Frame-level AUC in percent, with paired differences of the first row from
the others and their 95 % intervals over draws and test videos.

With `--gates` a sampler is fitted on half of the normal videos of the first seed, of
UCSD Ped2 on half of all, and its pseudo videos of the other half are judged.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from vad_pseudoaug import Baseline, PseudoVideoSampler, Recipe, VideoSet, read_list
from vad_pseudoaug.baseline import stratified_split
from vad_pseudoaug.check import check_sampler
from vad_pseudoaug.data import ped2
from vad_pseudoaug.intervals import hierarchical_bootstrap, resample
from vad_pseudoaug.metrics import Ranking
from vad_pseudoaug.protocol import Split, label_videos
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.report import format_gates
from vad_pseudoaug.synthetic import synthetic_set

Score = Callable[[Any], Any]
Train = Callable[[VideoSet, int], Score]
NUM_TRAIN = 10
NUM_PSEUDO = 240  # a training loop that makes them as it goes sees many more


def ped2_one_class(draw: int) -> Split:
    """Draw 10 normal videos to train; the other 6 and all 12 abnormal ones test."""
    folder = ped2()
    normal, abnormal = (read_list(folder / f"{n}.list") for n in ("normal", "abnormal"))
    order = torch.randperm(len(normal), generator=make_generator(draw)).tolist()
    test: list[Path] = [normal[i] for i in sorted(order[NUM_TRAIN:])] + abnormal
    train = [normal[i] for i in sorted(order[:NUM_TRAIN])]
    return Split(train, [], label_videos(test, folder / "frame_labels"))


def train_pseudo(sampler: PseudoVideoSampler, normal: VideoSet, seed: int) -> Score:
    """Train the baseline on normal videos and on pseudo abnormal ones of them."""
    made = sampler.draw(NUM_PSEUDO, label=1).unbind()
    recipe = Recipe.named("robust")
    model = Baseline.fit(
        normal,
        [video.features.numpy() for video in made],
        recipe=recipe,
        validation_share=0,
        seed=seed,
        progress=False,
    )
    return lambda features: model.score([features])[0]


def train_knn(normal: VideoSet, seed: int) -> Score:
    """Score by the mean distance to the 5 nearest training snippets, crops averaged."""
    index = NearestNeighbors(n_neighbors=5).fit(snippets(normal))
    return lambda f: index.kneighbors(f.mean(axis=0))[0].mean(axis=1)


def train_mahalanobis(normal: VideoSet, seed: int) -> Score:
    """Score by the distance to the mean, crops averaged."""
    fitted = LedoitWolf().fit(snippets(normal))
    return lambda f: fitted.mahalanobis(f.mean(axis=0)) ** 0.5


def snippets(videos: VideoSet) -> Any:
    """All snippets, crops averaged: `(M, D)`."""
    return np.concatenate([video.mean(axis=0) for video in videos])


def print_gates(data: str, seed: int, disturbances: Sequence[str]) -> None:
    """Print what `check` would of each disturbance."""
    videos = read_list(ped2() / "normal.list")
    normal = VideoSet(videos if data == "ped2" else synthetic_set(seed).split.normal)
    halves = stratified_split(len(normal), 0, share=0.5, seed=seed)
    known = normal.part(halves.train_normal)
    sampler = PseudoVideoSampler.fit(known, seed=seed, progress=False)
    for kind in disturbances:
        found = check_sampler(
            sampler.with_choices(disturbance=kind),
            normal.part(halves.validation_normal),
            progress=False,
        )
        print(f"{kind}\n\n{format_gates(found)}\n", flush=True)


OTHERS = {"kNN": train_knn, "Mahalanobis": train_mahalanobis}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=("ped2", "synthetic"), default="ped2")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    of_recipe = Recipe.named("one-class").disturbance
    parser.add_argument("--disturbances", nargs="+", default=[of_recipe])
    parser.add_argument("--gates", action="store_true", help="judge, and do not train")
    options = parser.parse_args()
    if options.gates:
        print_gates(options.data, options.first_seed, options.disturbances)
        return
    runs: dict[str, list[tuple[list[str], Ranking]]] = defaultdict(list)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        if options.data == "ped2":
            split = ped2_one_class(seed)
        else:
            split = synthetic_set(seed).split
        normal = VideoSet(split.normal, name="normal")
        sampler = PseudoVideoSampler.fit(normal, seed=seed, progress=False)
        arms: dict[str, Train] = {
            kind: partial(train_pseudo, sampler.with_choices(disturbance=kind))
            for kind in options.disturbances
        }
        for name, train in {**arms, **OTHERS}.items():
            scores = split.frame_scores(train(normal, seed))
            names = [video.name for video in split.test]
            runs[name].append((names, Ranking(split.labels, scores)))
    resampled = {name: resample(own, num_resamples=500) for name, own in runs.items()}
    first = options.disturbances[0]
    print(f"{'detector':<14}{'AUC':>16}   {first} - it [95 % interval]")
    for name, own in resampled.items():
        values = 100 * own.values
        row = f"{name:<14}{values.mean():>7.2f} +- {values.std(ddof=1):.2f}"
        if name != first:
            found = hierarchical_bootstrap(resampled[first], own)
            mean, low, high = (100 * value for value in found)
            row += f"   {mean:+.2f} [{low:+.2f}, {high:+.2f}]"
        print(row)


if __name__ == "__main__":
    main()
