"""Terms of the joint loss (equations 2 to 6), each by itself."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class VAELoss(NamedTuple):
    """Terms of the joint loss, all scalars, means over the snippets of a class.

    A class without snippets has zeros.
    """

    total: Tensor
    reconstruction_normal: Tensor
    reconstruction_abnormal: Tensor
    kl_normal: Tensor
    kl_abnormal: Tensor


def reparameterise(mean: Tensor, log_var: Tensor, noise: Tensor) -> Tensor:
    """Turn standard normal noise into z ~ N(mean, exp(log_var)), all `(M, latent)`."""
    return mean + (0.5 * log_var).exp() * noise


def squared_error(
    features: Tensor, reconstruction: Tensor, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """Reconstruction error of each snippet (equation 2): `(M, D)` twice to `(M,)`.

    Args:
        features: What went in.
        reconstruction: What came out.
        reduction: "sum" is the squared norm of the difference, "mean" that over D.
    """
    squared = (features - reconstruction).square()
    return squared.sum(dim=1) if reduction == "sum" else squared.mean(dim=1)


def kl_by_unit(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)), N(0, 1)) of each unit in nats: `(M, latent)`."""
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var)


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)), N(0, 1)) of each snippet in nats (equation 3).

    Args:
        mean: `(M, latent)`.
        log_var: `(M, latent)`.

    Returns:
        `(M,)`, summed over the latent units.
    """
    return kl_by_unit(mean, log_var).sum(dim=1)


def with_free_bits(by_unit: Tensor, count: int, free_bits: float) -> Tensor:
    """Mean divergence of some snippets, a unit counted as `free_bits` at least.

    Below that a unit is not pressed further: it may stay in use.

    Args:
        by_unit: `(latent,)` in nats, summed over the snippets.
        count: Number of snippets.
        free_bits: Nats a unit; 0 changes nothing.

    Returns:
        A scalar, 0 of no snippets.
    """
    mean = by_unit / max(count, 1)  # (latent,)
    # Where there are no snippets nothing is free.
    return mean.clamp(min=free_bits if count else 0.0).sum()


def gaussian_loss(error: Tensor, log_sigma: Tensor, feature_dim: int) -> Tensor:
    """Negative log-likelihood of a snippet, up to a constant, in nats.

    Args:
        error: Squared error summed over the features.
        log_sigma: Log of the decoder's standard deviation a feature.
        feature_dim: Feature size D.
    """
    return feature_dim * log_sigma + error / (2 * torch.exp(2 * log_sigma))
