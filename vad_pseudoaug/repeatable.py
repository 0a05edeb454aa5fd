"""What makes a pseudo video a function of its key alone, whoever makes it and when."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from .randomness import preserved_global_rng


@contextmanager
def seeded_global_rng(*key: int) -> Iterator[None]:
    """Let what a host draws from the global random states be a function of the key.

    For a video that is read once and kept: which process happens to read it must play
    no part. The states are given back as they were.

    Args:
        *key: Integers >= 0.
    """
    words = np.random.SeedSequence(key).generate_state(3, np.uint32).tolist()
    with preserved_global_rng():
        torch.default_generator.manual_seed(words[0])
        np.random.seed(words[1])  # noqa: NPY002
        random.seed(words[2])
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute matrix products with one thread, as worker processes do.

    The last bits of a product may differ with the number of threads where it has few
    rows, and files and pools are compared to the bit.
    """
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)
