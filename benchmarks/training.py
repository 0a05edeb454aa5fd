"""Training snippets a second, against the products of its layers and pythae's trainer.

    python benchmarks/training.py [--json]        # pythae: pip install pythae
    python benchmarks/training.py --device cuda --precision tf32 --videos 480
    python benchmarks/training.py --device cuda --batching video --batch-size 5000

Videos of one crop `(T, 2048)` lie in files and are read anew in each epoch. In each
round come, in random order: an epoch of `train_vae`, reading included, in batches that
are mixed over videos of 128 snippets, or with `--batching video` of a video each;
the matrix products of as many steps, alone, at the shapes of its layers, which is the
limit; and epochs of pythae's trainer of a VAE of the same widths with one decoder, on
the same snippets in memory, in batches as large and in batches of 64, its default. A
snippet is as much work for both: ours goes through the decoder of its class alone.
Printed are medians of the rounds and of the ratios within a round.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from devices import add_device, chosen, name, product_dtype, seconds
from peers import pythae_vae
from torch import Tensor

from vad_pseudoaug import MultiTaskVAE, Recipe, VAEConfig, VideoSet
from vad_pseudoaug.feed import VIDEOS_PER_CLASS
from vad_pseudoaug.selection import select_above
from vad_pseudoaug.training import train_vae

FEATURE_DIM, LENGTH = 2048, 128  # of videos that are mixed
OURS, LIMIT, PEER = "vad_pseudoaug", "products alone", "pythae, batches of {}"


def write_videos(folder: Path, count: int, length: int = LENGTH) -> list[Path]:
    """Write videos of non-negative features, as a ReLU leaves them."""
    rng = np.random.default_rng(0)
    files = [folder / f"{number}.npy" for number in range(count)]
    for file in files:
        np.save(file, rng.random((length, FEATURE_DIM), dtype=np.float32) ** 4)
    return files


def products(
    batch_size: int, config: VAEConfig, place: dict[str, Any]
) -> Callable[[], None]:
    """Return the products of one step: forward, and the two gradients of each layer."""
    widths = (config.feature_dim, *config.hidden_dims)
    back = (config.latent_dim, *reversed(widths))
    layers = [(batch_size, *pair) for pair in itertools.pairwise(widths)]
    layers += [(batch_size, widths[-1], config.latent_dim)] * 2
    layers += [(batch_size // 2, *pair) for pair in itertools.pairwise(back)] * 2
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    for number, (rows, width, out) in enumerate(layers):
        shapes = ((rows, width), (rows, out), (out, width))
        x, y, w = (torch.rand(shape, **place) for shape in shapes)
        calls += [(x, w.t(), torch.empty_like(y)), (y.t(), x, torch.empty_like(w))]
        if number:  # nobody asks for the gradient of the features
            calls.append((y, w, torch.empty_like(x)))

    def run() -> None:
        for left, right, into in calls:
            torch.mm(left, right, out=into)

    return run


def pythae_epoch(
    snippets: Tensor, batch_size: int, config: VAEConfig, folder: Path, device: str
) -> Callable[[], None] | None:
    """Return an epoch of pythae's trainer; None where it is not installed."""
    try:
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        model = pythae_vae(config)
    except ImportError:
        return None

    trainer = BaseTrainer(
        model=model,
        train_dataset=BaseDataset(snippets, torch.ones(len(snippets))),
        training_config=BaseTrainerConfig(
            output_dir=str(folder),
            num_epochs=1,
            per_device_train_batch_size=batch_size,
            optimizer_cls="Adam",
            no_cuda=device == "cpu",
        ),
    )
    trainer.prepare_training()

    def run() -> None:
        with redirect_stderr(io.StringIO()):  # a bar is shown whatever one says
            trainer.train_step(epoch=1)

    return run


def read_bandwidth() -> float:
    """Return gigabytes a second that all threads read from memory."""
    values = torch.rand(64 << 20)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        values.sum()
        times.append(time.perf_counter() - start)
    return values.nbytes / min(times) / 1e9


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all rounds; return the figures."""
    config = VAEConfig(FEATURE_DIM)
    length = options.batch_size if options.batching == "video" else LENGTH
    files = write_videos(folder, options.videos, length)
    half = len(files) // 2
    normal, abnormal = VideoSet(files[:half]), VideoSet(files[half:])
    num_snippets = len(files) * length
    steps = num_snippets // options.batch_size
    recipe = Recipe.named(
        batching=options.batching,
        batch_size=options.batch_size,
        max_snippets=options.batch_size,
        steps_per_epoch=steps,
        epochs=1,
    )
    selection = select_above([np.ones(length)] * len(abnormal))
    model = MultiTaskVAE(config, device=options.device)
    place = {"device": options.device, "dtype": product_dtype(options)}
    step = products(options.batch_size, config, place)

    def limit() -> None:
        for _ in range(steps):
            step()

    ways: dict[str, Callable[[], Any]] = {
        OURS: lambda: train_vae(model, normal, abnormal, selection, recipe),
        LIMIT: limit,
    }
    snippets = torch.cat([torch.from_numpy(np.load(file)) for file in files])
    for size in (options.batch_size, 64):
        peer = pythae_epoch(snippets, size, config, folder, options.device)
        if peer is not None:
            ways[PEER.format(size)] = peer
    times: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(options.rounds + 1):
        for way in random.sample(sorted(ways), len(ways)):
            taken = seconds(ways[way], options.device)
            if number:  # the first round is for warming up
                times[way].append(taken)
    rows = []
    for way, own in times.items():
        share = [a / b for a, b in zip(times[LIMIT], own, strict=True)]
        faster = [a / b for a, b in zip(own, times[OURS], strict=True)]
        rows.append(
            {
                "way": way,
                "snippets_per_second": num_snippets / statistics.median(own),
                "share_of_limit": statistics.median(share),
                "range": [min(share), max(share)],
                "ours_faster": statistics.median(faster),
            }
        )
    return {
        "batch_size": options.batch_size,
        "place": name(options),
        "read_gb_s": read_bandwidth(),
        "rows": rows,
    }


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--batching", choices=("mixed", "video"), default="mixed")
    parser.add_argument("--videos", type=int, default=80)
    add_device(parser)
    options = parser.parse_args()
    most = 2 * VIDEOS_PER_CLASS * LENGTH
    if options.batching == "mixed" and options.batch_size > most:
        parser.error(f"--batch-size: {most} snippets at most are drawn of these videos")
    with tempfile.TemporaryDirectory() as folder, chosen(options):
        figures = measure(options, Path(folder))
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"batches of {figures['batch_size']}, {figures['place']}, memory is read at "
        f"{figures['read_gb_s']:.0f} GB/s\n"
        f"{'':<24}{'snippets/s':>11}{'of the limit':>14}   range         ours is faster"
    )
    for row in figures["rows"]:
        low, high = row["range"]
        print(
            f"{row['way']:<24}{row['snippets_per_second']:>11.0f}"
            f"{row['share_of_limit']:>14.2f}   {low:.2f} to {high:.2f}"
            f"{row['ours_faster']:>11.1f} x"
        )


if __name__ == "__main__":
    main()
