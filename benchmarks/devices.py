"""Where the benchmarks compute, at which precision, and how that is timed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISIONS = ("float32", "tf32", "bfloat16")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`, `--precision` and `--threads`."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda [cpu]")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--threads", type=int, help="of torch [all cores]")


@contextmanager
def chosen(options: argparse.Namespace) -> Iterator[None]:
    """Set threads, and the precision of what is multiplied: by autocast if bfloat16."""
    torch.set_num_threads(options.threads or torch.get_num_threads())
    kind = "high" if options.precision == "tf32" else "highest"
    torch.set_float32_matmul_precision(kind)
    with torch.autocast(
        torch.device(options.device).type,
        dtype=torch.bfloat16,
        enabled=options.precision == "bfloat16",
    ):
        yield


def product_dtype(options: argparse.Namespace) -> torch.dtype:
    """Return the dtype of operands of products at the precision."""
    return torch.bfloat16 if options.precision == "bfloat16" else torch.float32


def seconds(run: Callable[[], Any], device: str) -> float:
    """Return the seconds that a call takes, its work on a GPU included."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def name(options: argparse.Namespace) -> str:
    """Return where it ran, for the head of a table."""
    if options.device == "cpu":
        return f"{torch.get_num_threads()} threads, {options.precision}"
    return f"{torch.cuda.get_device_name()}, {options.precision}"
