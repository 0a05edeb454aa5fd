"""Randomness of our own: seeded by keys, never taken from a global state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


def make_generator(*key: int) -> torch.Generator:
    """Make a CPU generator that is a function of the key alone.

    Different keys give independent streams, so work may be split over workers and
    machines, resumed or repeated in any order without a change of the result. Zeros at
    the end of a key do not count: `(7,)` and `(7, 0)` are one stream.

    Args:
        *key: Integers >= 0 and below 2**32: a seed and, say, an epoch and a video
            number.

    Example:
        >>> a, b = make_generator(0, 7), make_generator(0, 7)
        >>> torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b))
        True
    """
    low, high = np.random.SeedSequence(key).generate_state(2, np.uint32).tolist()
    generator = torch.Generator(device="cpu")
    generator.manual_seed((high << 31) ^ low)
    return generator


def seeded_linear(
    in_features: int, out_features: int, generator: torch.Generator
) -> nn.Linear:
    """Make a linear layer on the CPU, float32, with weights from `generator`.

    Weights and biases are uniform in +-1 / sqrt(in_features), as torch's own are, but
    neither torch's global random state nor its default device or dtype plays a part.
    """
    layer: nn.Linear = nn.utils.skip_init(
        nn.Linear, in_features, out_features, device="cpu", dtype=torch.float32
    )
    bound = in_features**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer


@contextmanager
def preserved_global_rng() -> Iterator[None]:
    """Give torch's, numpy's and python's global random states back as they were.

    For calls into a host's code (its datasets draw from these) that the host's own
    run would not have made.
    """
    torch_state = torch.get_rng_state()
    numpy_state = np.random.get_state()  # noqa: NPY002
    python_state = random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
