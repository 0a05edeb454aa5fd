"""What each step from the paper's recipe to the robust one does to the quality gates.

    python benchmarks/ablation_gates.py                     # UCSD Ped2, as a table
    python benchmarks/ablation_gates.py --data synthetic
    python benchmarks/ablation_gates.py --data FOLDER --standardise --json
    python benchmarks/ablation_gates.py --arms robust --whole   # every gate

Each recipe is fitted on half of the training videos and judged on the others, once. The
table has the figures of pseudo abnormal videos, with what real ones have in brackets,
and how many gates pass, those of pseudo normal videos and of the model included. The
steps' effect on hosts: `vad-pseudoaug compare --experiment ablation`.
"""

from __future__ import annotations

import argparse
import json
import warnings
from typing import Any

from vad_pseudoaug import Recipe, VideoSet
from vad_pseudoaug.arms import Training
from vad_pseudoaug.baseline import stratified_split
from vad_pseudoaug.check import Check, check_sampler
from vad_pseudoaug.data import ped2
from vad_pseudoaug.experiments import ablation
from vad_pseudoaug.protocol import Data
from vad_pseudoaug.report import format_gates
from vad_pseudoaug.videos import as_pair

COLUMNS = {
    "norm ratio": "norm",
    "variance ratio": "variance",
    "coverage": "coverage",
    "told from real": "told",
    "label validity": "valid",
    "lag-1 correlation": "lag-1",
    "novelty": "novelty",
    "largest norms": "largest",
}
PART = "pseudo abnormal videos"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="ped2", help="ped2, synthetic or a folder")
    parser.add_argument("--standardise", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", help="some of them")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--whole", action="store_true", help="print every gate")
    form.add_argument("--json", action="store_true")
    options = parser.parse_args()
    videos = read(options.data, options.seed, standardise=options.standardise)
    training, held_out = halve(*videos, options.seed)
    recipes = {arm.name: arm.recipe for arm in ablation() if arm.kind != "none"}
    recipes["mean-shift"] = Recipe.named("mean-shift")
    found: dict[str, Any] = {}
    for name, recipe in recipes.items():
        if options.arms and name not in options.arms:
            continue
        judged = check(training, held_out, recipe)
        found[name] = figures(judged)
        if options.whole:
            print(f"{name}\n\n{format_gates(judged)}\n", flush=True)
        elif not options.json:
            if len(found) == 1:
                print(f"{'recipe':<18}" + "".join(f"{c:>13}" for c in COLUMNS.values()))
            print(row(name, found[name]), flush=True)
    if options.json:
        print(json.dumps(found, indent=2))


def read(data: str, seed: int, *, standardise: bool) -> tuple[VideoSet, VideoSet]:
    """Read normal and abnormal training videos; of Ped2, which has no split, all."""
    if data == "ped2":
        return as_pair(ped2() / "normal.list", ped2() / "abnormal.list")
    split = Data.named(data, standardise=standardise).split(seed)
    return as_pair(split.normal, split.abnormal)


def halve(
    normal: VideoSet, abnormal: VideoSet, seed: int
) -> tuple[Training, tuple[VideoSet, VideoSet]]:
    """Deal the training videos into those to learn of and those to judge on."""
    halves = stratified_split(len(normal), len(abnormal), share=0.5, seed=seed)
    training = Training(
        normal.part(halves.train_normal),
        abnormal.part(halves.train_abnormal),
        recipe=Recipe(),
        seed=seed,
    )
    held_out = (
        normal.part(halves.validation_normal),
        abnormal.part(halves.validation_abnormal),
    )
    return training, held_out


def check(
    training: Training, held_out: tuple[VideoSet, VideoSet], recipe: Recipe
) -> Check:
    """Judge a recipe; those that learn the same share a fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # videos without a selected snippet
        sampler = training.sampler(recipe)
        return check_sampler(sampler, *held_out, seed=training.seed)


def figures(found: Check) -> dict[str, Any]:
    """Return value, floor and verdict of each column, and the counts."""
    gates = {gate.name: gate for gate in found.gates[PART]}
    every = [gate for part in found.gates.values() for gate in part]
    own = {
        name: (gates[name].value, gates[name].floor, gates[name].passed)
        for name in COLUMNS
    }
    return {**own, "passed": (sum(gate.passed for gate in every), len(every))}


def row(name: str, found: dict[str, Any]) -> str:
    """Lay one recipe out."""
    cells = []
    for column in COLUMNS:
        value, floor, passed = found[column]
        real = "" if floor is None else f" ({floor:.2f})"
        cells.append(f"{value:.2f}{' ' if passed else '!'}{real}")
    passed, count = found["passed"]
    return (
        f"{name:<18}" + "".join(f"{c:>13}" for c in cells) + f"   {passed} of {count}"
    )


if __name__ == "__main__":
    main()
