"""The Multi-Task VAE: one encoder, a normal and an abnormal decoder (section 3.2)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from .checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from .randomness import make_generator, seeded_linear

NORMAL, ABNORMAL = 0, 1
# Standard deviations from e^-10 to e^10: no snippet of a healthy run comes near, and
# a broken one gives large losses instead of infinite ones.
LOG_VAR_BOUND = 20.0


@dataclass(frozen=True)
class VAEConfig:
    """Shape and loss of a `MultiTaskVAE`.

    The defaults are the paper's Arch1, [1024, 512, 256]. Table 5's others:
    `hidden_dims=(1024, 512, 256), latent_dim=128` is Arch2 and
    `hidden_dims=(1024, 512, 512, 256), latent_dim=256` is Arch3.

    Attributes:
        feature_dim: Feature size D.
        hidden_dims: Widths of the encoder's hidden layers; both decoders have the
            reverse.
        latent_dim: Size of the latent space.
        alpha: Weight of the KL divergence in equation 6.
        reduction: How the squared error of equation 2 is reduced over the D features,
            which the paper does not tell. "sum" is the squared norm as it is printed,
            "mean" divides it by D.
    """

    feature_dim: int
    hidden_dims: tuple[int, ...] = (1024, 512)
    latent_dim: int = 256
    alpha: float = 0.01
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        widths = (self.feature_dim, *self.hidden_dims, self.latent_dim)
        if not all(type(width) is int and width > 0 for width in widths):
            raise ValueError(f"widths: expected positive integers, got {widths}")
        if not (isinstance(self.alpha, int | float) and 0 <= self.alpha < float("inf")):
            raise ValueError(f"alpha: expected a finite value >= 0, got {self.alpha!r}")
        if self.reduction not in ("sum", "mean"):
            raise ValueError(
                f"reduction: expected 'sum' or 'mean', got {self.reduction!r}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {**asdict(self), "hidden_dims": list(self.hidden_dims)}

    @property
    def decoder_variance(self) -> float:
        """Variance of the Gaussian decoder that the joint loss amounts to.

        Equation 6 is a negative evidence bound, up to a factor and a constant, for a
        decoder with variance alpha / 2 ("sum") or alpha D / 2 ("mean"), a feature.
        """
        scale = self.feature_dim if self.reduction == "mean" else 1
        return self.alpha * scale / 2


class VAELoss(NamedTuple):
    """Terms of the joint loss, all scalars, means over the snippets of a class.

    A class without snippets has zeros.
    """

    total: Tensor
    reconstruction_normal: Tensor
    reconstruction_abnormal: Tensor
    kl_normal: Tensor
    kl_abnormal: Tensor


class MultiTaskVAE(nn.Module):
    """One encoder for all snippets, and a decoder for each class.

    Args:
        config: Shape and loss.
        seed: Seed of the initial weights.
        device: Where the weights live.
        dtype: Dtype of the weights.

    Example:
        >>> vae = MultiTaskVAE(VAEConfig(feature_dim=64, hidden_dims=(32,)))
        >>> normal = torch.zeros(5, 64)
        >>> vae.translate(normal, 1, generator=torch.Generator()).shape
        torch.Size([5, 64])
    """

    def __init__(
        self,
        config: VAEConfig,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        generator = make_generator(seed, 0)
        widths = (config.feature_dim, *config.hidden_dims)

        def linear(in_features: int, out_features: int) -> nn.Linear:
            if torch.device(device).type == "meta":  # shapes only
                return nn.Linear(in_features, out_features, device=device, dtype=dtype)
            return seeded_linear(in_features, out_features, generator)

        self.config = config
        self.encoder = _hidden_layers(widths, linear)
        self.mean_head = linear(widths[-1], config.latent_dim)
        self.log_var_head = linear(widths[-1], config.latent_dim)
        widths = (config.latent_dim, *reversed(config.hidden_dims))
        self.decoders = nn.ModuleList(
            _hidden_layers(widths, linear).append(
                linear(widths[-1], config.feature_dim)
            )
            for _ in (NORMAL, ABNORMAL)
        )
        self.to(device=device, dtype=dtype)

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map snippets to Gaussians: `(M, D)` to mean and log-variance `(M, latent)`.

        The log-variance is bounded to +-20.
        """
        hidden = self.encoder(features)
        log_var = self.log_var_head(hidden).clamp(-LOG_VAR_BOUND, LOG_VAR_BOUND)
        return self.mean_head(hidden), log_var

    def decode(self, z: Tensor, label: int) -> Tensor:
        """Map latent vectors `(M, latent)` to features `(M, D)` of class `label`.

        Raises:
            ValueError: If `label` is neither 0 (normal) nor 1 (abnormal).
        """
        if label not in (NORMAL, ABNORMAL):
            raise ValueError(f"label: expected 0 or 1, got {label!r}")
        decoded: Tensor = self.decoders[label](z)
        return decoded

    def sample_latent(
        self, mean: Tensor, log_var: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Draw z from N(mean, exp(log_var)): `(M, latent)`.

        The noise is drawn where `generator` lives and moved to the weights' device.
        """
        noise = torch.randn(
            mean.shape, generator=generator, device=generator.device, dtype=mean.dtype
        )
        return reparameterise(mean, log_var, noise.to(mean.device))

    def translate(
        self, features: Tensor, to_label: int, *, generator: torch.Generator
    ) -> Tensor:
        """Encode, draw z, and decode as the other class (section 3.2.3).

        Args:
            features: `(M, D)`, snippets of any class.
            to_label: Whose decoder is used, 0 normal or 1 abnormal.
            generator: Source of the latent noise.

        Returns:
            `(M, D)`, row by row in the order of `features`.
        """
        mean, log_var = self.encode(features)
        return self.decode(
            self.sample_latent(mean, log_var, generator=generator), to_label
        )

    def forward(
        self, features: Tensor, labels: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct each snippet by the decoder of its own class only.

        Args:
            features: `(M, D)`.
            labels: `(M,)`, 0 or 1.
            generator: Source of the latent noise.

        Returns:
            Reconstruction `(M, D)`, mean and log-variance `(M, latent)`.

        Raises:
            ValueError: If the shapes are others.
        """
        if features.ndim != 2 or features.shape[1] != self.config.feature_dim:
            raise ValueError(
                f"features: expected (M, {self.config.feature_dim}), got shape "
                f"{tuple(features.shape)}"
            )
        if labels.shape != features.shape[:1]:
            raise ValueError(
                f"labels: expected shape ({len(features)},), got {tuple(labels.shape)}"
            )
        mean, log_var = self.encode(features)
        z = self.sample_latent(mean, log_var, generator=generator)
        reconstruction = torch.empty_like(features)
        for label in (NORMAL, ABNORMAL):
            rows = (labels == label).nonzero().squeeze(1)
            if len(rows):
                decoded = self.decode(z[rows], label)
                reconstruction = reconstruction.index_copy(0, rows, decoded)
        return reconstruction, mean, log_var

    def loss(
        self, features: Tensor, labels: Tensor, *, generator: torch.Generator
    ) -> VAELoss:
        """Compute the joint loss of equation 6 with the terms of equations 4 and 5.

        For each class the reconstruction error is the squared error, summed
        (`reduction="sum"`) or averaged ("mean") over the features, and the KL
        divergence is summed over the latent units; both are averaged over the
        snippets of the class. The total is the two errors plus alpha times the two
        divergences. Arguments are those of `forward`.
        """
        reconstruction, mean, log_var = self(features, labels, generator=generator)
        error = squared_error(features, reconstruction, self.config.reduction)
        kl = kl_divergence(mean, log_var)
        terms = [
            values[labels == label].sum() / (labels == label).sum().clamp(min=1)
            for values in (error, kl)
            for label in (NORMAL, ABNORMAL)
        ]
        total = terms[0] + terms[1] + self.config.alpha * (terms[2] + terms[3])
        return VAELoss(total, *terms)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write configuration and weights to a folder, replacing them in one step."""
        write_checkpoint(
            folder, "MultiTaskVAE", {"vae": self.config.to_dict()}, self.state_dict()
        )

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, device: torch.device | str = "cpu"
    ) -> MultiTaskVAE:
        """Read a model that `save_pretrained` wrote, of this class or of a sampler.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            CheckpointError: If it is broken, of another kind or of a newer version.
        """
        config, tensors = read_checkpoint(folder, "MultiTaskVAE", ("vae",))
        return cls.from_tensors(config["vae"], tensors, device=device)

    @classmethod
    def from_tensors(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        device: torch.device | str = "cpu",
    ) -> MultiTaskVAE:
        """Build a model from the entries of a checkpoint.

        Raises:
            CheckpointError: If the configuration is no `VAEConfig`, or the tensors
                are not those that it implies.
        """
        try:
            hidden_dims = tuple(config["hidden_dims"])
            known = VAEConfig(**{**config, "hidden_dims": hidden_dims})
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"the checkpoint's 'vae' entry: {error}") from error
        # On "meta" nothing is allocated, however large the configuration claims to be.
        model = cls(known, device="meta")
        expected = {k: tuple(v.shape) for k, v in model.state_dict().items()}
        found = {k: tuple(v.shape) for k, v in tensors.items()}
        for key in sorted(expected.keys() | found.keys()):
            if expected.get(key) != found.get(key):
                raise CheckpointError(
                    f"the checkpoint's tensor {key}: expected shape "
                    f"{expected.get(key)}, got {found.get(key)}"
                )
        model.load_state_dict(dict(tensors), assign=True)
        return model.to(device=device).eval()


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


def kl_divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)), N(0, 1)) of each snippet in nats (equation 3).

    Args:
        mean: `(M, latent)`.
        log_var: `(M, latent)`.

    Returns:
        `(M,)`, summed over the latent units.
    """
    return 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum(dim=1)


def _hidden_layers(
    widths: Sequence[int], linear: Callable[[int, int], nn.Linear]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for in_features, out_features in itertools.pairwise(widths):
        layers += [linear(in_features, out_features), nn.ReLU()]
    return nn.Sequential(*layers)
