"""Pseudo videos of 10 x 32 segments a second, against their products and peers.

    python benchmarks/generation.py [--json]      # pythae: pip install pythae
    python benchmarks/generation.py --device cuda --precision tf32

In each round come, in random order, for pseudo abnormal videos (half of the segments
are generated) and for pseudo normal ones (all are): `sample` on batches of videos and
one video a call; the matrix products that these need, alone, which is the limit; a loop
that sends one snippet a call through the same model; pythae's sampler, which decodes
draws from the prior and encodes nothing; and SMOTE of imbalanced-learn on 20,480
snippets, which compares each of the smaller class with all of it. Snippets a second are
generated ones, crops included. Printed are medians of the rounds and of the ratios
within a round.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from devices import add_device, chosen, name, product_dtype, seconds
from peers import pythae_vae
from torch import Tensor

from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig
from vad_pseudoaug.randomness import make_generator

NUM_CROPS, NUM_SEGMENTS, FEATURE_DIM = 10, 32, 2048
LIMIT = "products alone"
Way = tuple[Callable[[], Any], int]  # what runs, and how many snippets it makes


def products(
    rows: int, config: VAEConfig, place: dict[str, Any], *, encode: bool = True
) -> Way:
    """Return the products that so many rows need."""
    widths = (config.feature_dim, *config.hidden_dims)
    pairs = list(itertools.pairwise((config.latent_dim, *reversed(widths))))
    if encode:
        pairs += [*itertools.pairwise(widths), *[(widths[-1], config.latent_dim)] * 2]
    calls = [
        (
            torch.rand(rows, a, **place),
            torch.rand(b, a, **place).t(),
            torch.empty(rows, b, **place),
        )
        for a, b in pairs
    ]

    def run() -> None:
        for left, right, into in calls:
            torch.mm(left, right, out=into)

    return run, rows


def snippet_loop(sampler: PseudoVideoSampler, video: Tensor, label: int) -> Way:
    """Return a loop over some snippets, as one writes it first."""
    generator = make_generator(0)
    snippets = video.flatten(0, 1)[:64]

    @torch.no_grad()
    def run() -> None:
        for snippet in snippets:
            sampler.vae.translate(snippet[None], label, generator=generator)

    return run, len(snippets)


def pythae_sampler(config: VAEConfig, rows: int, device: str) -> Way | None:
    """Return pythae's sampler of a decoder of the same widths."""
    try:
        from pythae.samplers import NormalSampler

        model = pythae_vae(config).to(device)
    except ImportError:
        return None
    sampler = NormalSampler(model=model)

    def run() -> None:
        with torch.no_grad():
            sampler.sample(num_samples=rows, batch_size=rows)

    return run, rows


def smote() -> Way | None:
    """Return SMOTE on 20,480 snippets of which a quarter is abnormal."""
    try:
        from imblearn.over_sampling import SMOTE
    except ImportError:
        return None
    rng = np.random.default_rng(0)
    rows = rng.random((20_480, FEATURE_DIM), dtype=np.float32) ** 4
    few = len(rows) // 4
    labels = np.repeat([0, 1], [len(rows) - few, few])

    def run() -> None:
        SMOTE(random_state=0).fit_resample(rows, labels)

    return run, len(rows) - 2 * few


def ways_of(options: argparse.Namespace, label: int) -> dict[str, Way]:
    """Return all ways to make snippets of a class."""
    config = VAEConfig(FEATURE_DIM)
    sampler = PseudoVideoSampler(MultiTaskVAE(config, device=options.device))
    place = {"device": options.device, "dtype": product_dtype(options)}
    shape = (options.videos, NUM_CROPS, NUM_SEGMENTS, FEATURE_DIM)
    on_cpu = torch.rand(shape, generator=make_generator(0)) ** 4
    videos = on_cpu.to(options.device)
    changed = NUM_CROPS * NUM_SEGMENTS // (1 if label == 0 else 2)
    rows = options.videos * changed
    ways: dict[str, Way | None] = {
        LIMIT: products(rows, config, place),
        f"sample, {options.videos} videos": (
            lambda: sampler.sample(videos, label=label),
            rows,
        ),
        "sample, 1 video": (lambda: sampler.sample(videos[0], label=label), changed),
        "a snippet a call": snippet_loop(sampler, videos[0], label),
        "decoding products alone": products(rows, config, place, encode=False),
        "pythae's sampler": pythae_sampler(config, rows, options.device),
        "SMOTE": smote(),
    }
    return {key: way for key, way in ways.items() if way is not None}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all rounds; return the rows of the table."""
    table = []
    for label, kind in ((1, "pseudo abnormal"), (0, "pseudo normal")):
        ways = ways_of(options, label)
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(options.rounds + 1):
            for way in random.sample(sorted(ways), len(ways)):
                run, made = ways[way]
                taken = seconds(run, options.device)
                if number:  # the first round is for warming up
                    rates[way].append(made / taken)
        ours = f"sample, {options.videos} videos"
        for way, own in rates.items():
            share = [a / b for a, b in zip(own, rates[LIMIT], strict=True)]
            faster = [a / b for a, b in zip(rates[ours], own, strict=True)]
            table.append(
                {
                    "kind": kind,
                    "way": way,
                    "snippets_per_second": statistics.median(own),
                    "share_of_limit": statistics.median(share),
                    "range": [min(share), max(share)],
                    "ours_faster": statistics.median(faster),
                }
            )
    return table


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--videos", type=int, default=16, help="in a batch")
    add_device(parser)
    options = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder, chosen(options):
        os.chdir(Path(folder))  # pythae's sampler writes where it is
        table = measure(options)
        os.chdir("/")
    if options.json:
        print(json.dumps(table, indent=2))
        return
    print(
        f"{name(options)}, {options.videos} videos a call\n"
        f"{'':<16} {'':<26}{'snippets/s':>11}{'of the limit':>14}   range"
        "         ours is faster"
    )
    for row in table:
        low, high = row["range"]
        print(
            f"{row['kind']:<16} {row['way']:<26}{row['snippets_per_second']:>11.0f}"
            f"{row['share_of_limit']:>14.2f}   {low:.2f} to {high:.2f}"
            f"{row['ours_faster']:>11.1f} x"
        )


if __name__ == "__main__":
    main()
