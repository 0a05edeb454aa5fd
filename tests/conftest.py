"""Small models, videos and hosts, shared by the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hosts import FEATURE_DIM, RtfmDataset
from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig

# Tiny products: threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture
def vae() -> MultiTaskVAE:
    return MultiTaskVAE(VAEConfig(FEATURE_DIM, hidden_dims=(16,), latent_dim=4), seed=1)


@pytest.fixture
def sampler(vae: MultiTaskVAE) -> PseudoVideoSampler:
    return PseudoVideoSampler(vae)


@pytest.fixture
def host_dataset() -> Callable[..., RtfmDataset]:
    return RtfmDataset


@pytest.fixture
def videos() -> tuple[list[Any], list[Any]]:
    """Normal and abnormal videos `(N, T, D)` of several lengths, easy to tell apart."""
    rng = np.random.default_rng(0)

    def make(count: int, shift: float) -> list[Any]:
        return [
            rng.random((2, int(rng.integers(3, 9)), FEATURE_DIM), dtype=np.float32)
            + shift
            for _ in range(count)
        ]

    return make(8, 0.0), make(6, 0.5)


SMALL = {
    "hidden_dims": (16,),
    "latent_dim": 4,
    "epochs": 3,
    "baseline_epochs": 40,
    "baseline_hidden_dims": (16,),
}


@pytest.fixture
def small() -> dict[str, Any]:
    return dict(SMALL)
