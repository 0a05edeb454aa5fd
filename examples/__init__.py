"""Runnable stand-ins for hosts, each with the adapter behind one flag."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.protocol import ped2_split


def run_on_ped2(
    train: Callable[..., Any],
    score: Callable[[Any, Any], Any],
    arguments: Sequence[str] | None = None,
) -> float:
    """Train a host on a part of UCSD Ped2; print and return the AUC on the rest.

    Args:
        train: `train(normal, abnormal, sampler=..., seed=...)` gives a model.
        score: `score(model, features)` gives each snippet of a video a score.
        arguments: The command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(description="Train a host on UCSD Ped2.")
    parser.add_argument("--pseudo", action="store_true", help="with pseudo videos")
    parser.add_argument("--seed", type=int, default=0, help="seed, and number of draw")
    options = parser.parse_args(arguments)
    seed = options.seed
    split = ped2_split(seed)
    sampler = None
    if options.pseudo:
        sampler = PseudoVideoSampler.fit(split.normal, split.abnormal, seed=seed)
    model = train(split.normal, split.abnormal, sampler=sampler, seed=seed)
    auc = split.evaluate(lambda features: score(model, features)).auc
    with_or_without = "with" if options.pseudo else "without"
    print(f"frame-level AUC {with_or_without} pseudo videos: {auc:.4f}")
    return auc
