"""Pseudo videos of 10 x 32 segments a second, against their products and peers.

    python benchmarks/generation.py [--json]      # pythae: pip install pythae
    python benchmarks/generation.py --device cuda --precision tf32

In each round come, in random order, for pseudo abnormal videos (half of the segments
are generated) and for pseudo normal ones (all are): `sample` on batches of videos, with
the codes of their snippets kept from before or not, and one video a call; the matrix
products that these need, alone, which is the limit; a loop that sends one snippet a
call through the same model; pythae's sampler, which decodes draws from the prior and
encodes nothing; and SMOTE of imbalanced-learn on 20,480 snippets, which compares each
of the smaller class with all of it. Snippets a second are generated ones, crops
included; pythae generates all of a video's, so that it needs twice as many for a pseudo
abnormal video. Printed are medians of the rounds and of the ratios within a round.
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
from typing import Any, NamedTuple

import numpy as np
import torch
from devices import add_device, chosen, name, product_dtype, seconds
from peers import pythae_vae
from torch import Tensor

from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig
from vad_pseudoaug.codes import Codes
from vad_pseudoaug.randomness import make_generator

NUM_CROPS, NUM_SEGMENTS, FEATURE_DIM = 10, 32, 2048
LIMIT, DECODING = "products alone", "decoding products alone"
KEPT = "the same, codes kept"


class Way(NamedTuple):
    """A way to make snippets.

    Attributes:
        run: What runs; None where its package is not installed.
        made: How many snippets it makes.
        of_video: How many it makes for a pseudo video.
        limit: What it is compared with as the limit.
    """

    run: Callable[[], Any] | None
    made: int
    of_video: int
    limit: str = LIMIT


def products(
    rows: int, config: VAEConfig, place: dict[str, Any], *, encode: bool = True
) -> Callable[[], Any]:
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

    return run


def snippet_loop(
    sampler: PseudoVideoSampler, snippets: Tensor, label: int
) -> Callable[[], Any]:
    """Return a loop over some snippets, as one writes it first."""
    generator = make_generator(0)

    @torch.no_grad()
    def run() -> None:
        for snippet in snippets:
            sampler.vae.translate(snippet[None], label, generator=generator)

    return run


def pythae_sampler(
    config: VAEConfig, rows: int, device: str
) -> Callable[[], Any] | None:
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

    return run


def smote() -> tuple[Callable[[], Any] | None, int]:
    """Return SMOTE on 20,480 snippets, a quarter abnormal, and how many it makes."""
    try:
        from imblearn.over_sampling import SMOTE
    except ImportError:
        return None, 1
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
    codes = Codes(*(own.half() for own in sampler.encode(videos)))
    whole = NUM_CROPS * NUM_SEGMENTS
    own = whole // (1 if label == 0 else 2)
    rows = options.videos * own
    few = videos[0].flatten(0, 1)[:64]
    by_smote, made_by_smote = smote()
    ways = {
        LIMIT: Way(products(rows, config, place), rows, own),
        f"sample, {options.videos} videos": Way(
            lambda: sampler.sample(videos, label=label), rows, own
        ),
        "sample, 1 video": Way(
            lambda: sampler.sample(videos[0], label=label), own, own
        ),
        "a snippet a call": Way(snippet_loop(sampler, few, label), len(few), own),
        "SMOTE": Way(by_smote, made_by_smote, own),
        DECODING: Way(products(rows, config, place, encode=False), rows, own),
        KEPT: Way(
            lambda: sampler.sample(videos, label=label, codes=codes),
            rows,
            own,
            DECODING,
        ),
        "pythae's sampler": Way(
            pythae_sampler(config, rows, options.device), rows, whole, DECODING
        ),
    }
    return {key: way for key, way in ways.items() if way.run is not None}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run all rounds; return the rows of the table."""
    table = []
    for label, kind in ((1, "pseudo abnormal"), (0, "pseudo normal")):
        ways = ways_of(options, label)
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(options.rounds + 1):
            for way in random.sample(sorted(ways), len(ways)):
                taken = seconds(ways[way].run, options.device)
                if number:  # the first round is for warming up
                    rates[way].append(ways[way].made / taken)
        ours = f"sample, {options.videos} videos"
        for way, own in rates.items():
            limit = rates[ways[way].limit]
            share = [a / b for a, b in zip(own, limit, strict=True)]
            faster, kept_faster = (
                statistics.median(a / b for a, b in zip(rates[of], own, strict=True))
                for of in (ours, KEPT)
            )
            more = ways[way].of_video / ways[ours].of_video
            table.append(
                {
                    "kind": kind,
                    "way": way,
                    "snippets_per_second": statistics.median(own),
                    "videos_per_second": statistics.median(own) / ways[way].of_video,
                    "share_of_limit": statistics.median(share),
                    "range": [min(share), max(share)],
                    "ours_faster": faster * more,
                    "kept_faster": kept_faster * more,
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
        f"{'':<16} {'':<24}{'snippets/s':>11}{'videos/s':>10}{'of its limit':>14}"
        "   range          sample is, with codes kept: faster, in videos"
    )
    for row in table:
        low, high = row["range"]
        print(
            f"{row['kind']:<16} {row['way']:<24}{row['snippets_per_second']:>11.0f}"
            f"{row['videos_per_second']:>10.1f}"
            f"{row['share_of_limit']:>14.2f}   {low:.2f} to {high:.2f}"
            f"{row['ours_faster']:>10.1f} x{row['kept_faster']:>8.1f} x"
        )


if __name__ == "__main__":
    main()
