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
from .losses import (
    VAELoss,
    gaussian_loss,
    kl_by_unit,
    reparameterise,
    squared_error,
    with_free_bits,
)
from .processes import Part
from .randomness import make_generator, seeded_linear

NORMAL, ABNORMAL = 0, 1
CLASS_NAMES: Mapping[int, str] = {NORMAL: "normal", ABNORMAL: "abnormal"}
BESIDE_MODEL = ("scorer", "bank-normal", "bank-abnormal", "means")
# Standard deviations from e^-10 to e^10: no snippet of a healthy run comes near, and
# a broken one gives large losses instead of infinite ones.
LOG_VAR_BOUND = 20.0
LOG_SIGMA_BOUND = -6.0  # of a fitted decoder's standard deviation, from below
SIGMA_MEMORY = 0.99  # of its moving average, for each batch


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
        variance: "fixed", the paper's loss; "fitted" learns the variance of each
            decoder from its error (optimal sigma), so that `alpha` = 1 is the evidence
            bound and `reduction` has no part.
        free_bits: Nats that each latent unit may carry at no cost.
        shared_trunk: Whether the decoders share all layers but the last.
        standardise: Whether features are centred and scaled before the encoder, and
            back after the decoders, see `MultiTaskVAE.set_standardisation`.
    """

    feature_dim: int
    hidden_dims: tuple[int, ...] = (1024, 512)
    latent_dim: int = 256
    alpha: float = 0.01
    reduction: Literal["sum", "mean"] = "sum"
    variance: Literal["fixed", "fitted"] = "fixed"
    free_bits: float = 0.0
    shared_trunk: bool = False
    standardise: bool = False

    def __post_init__(self) -> None:
        widths = (self.feature_dim, *self.hidden_dims, self.latent_dim)
        if not all(type(width) is int and width > 0 for width in widths):
            raise ValueError(f"widths: expected positive integers, got {widths}")
        for name, value in (("alpha", self.alpha), ("free_bits", self.free_bits)):
            if not (isinstance(value, int | float) and 0 <= value < float("inf")):
                raise ValueError(f"{name}: expected a finite value >= 0, got {value!r}")
        for name, known in (
            ("reduction", ("sum", "mean")),
            ("variance", ("fixed", "fitted")),
            ("shared_trunk", (False, True)),
            ("standardise", (False, True)),
        ):
            choice = getattr(self, name)
            if choice not in known:
                raise ValueError(
                    f"{name}: expected {known[0]!r} or {known[1]!r}, got {choice!r}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON values."""
        return {**asdict(self), "hidden_dims": list(self.hidden_dims)}

    @property
    def decoder_variance(self) -> float:
        """Variance of the Gaussian decoder that the joint loss amounts to.

        Equation 6 is a negative evidence bound, up to a factor and a constant, for a
        decoder with variance alpha / 2 ("sum") or alpha D / 2 ("mean"), a feature.
        (With `variance="fitted"` it is learned instead: `MultiTaskVAE.log_sigma`.)
        """
        scale = self.feature_dim if self.reduction == "mean" else 1
        return self.alpha * scale / 2


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
        shared = config.shared_trunk
        self.trunk = _hidden_layers(widths, linear) if shared else nn.Sequential()
        self.decoders = nn.ModuleList(
            (nn.Sequential() if shared else _hidden_layers(widths, linear)).append(
                linear(widths[-1], config.feature_dim)
            )
            for _ in (NORMAL, ABNORMAL)
        )
        self.log_sigma: Tensor
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        if config.variance == "fitted":
            self.register_buffer("log_sigma", torch.zeros(2, **place))
        if config.standardise:
            self.register_buffer(
                "feature_mean", torch.zeros(config.feature_dim, **place)
            )
            self.register_buffer("feature_scale", torch.ones((), **place))
        self.to(device=device, dtype=dtype)

    def set_standardisation(self, mean: Tensor, scale: float) -> None:
        """Set what features are centred and scaled by, saved with the weights.

        Args:
            mean: `(D,)`, the mean of the training snippets.
            scale: One number for all features: directions keep their proportions.

        Raises:
            ValueError: If the configuration has no standardisation, or the scale is
                not positive.
        """
        if not self.config.standardise or not 0 < scale < float("inf"):
            raise ValueError(
                f"expected a model with standardise=True and a scale > 0, got {scale}"
            )
        self.feature_mean.copy_(mean)
        self.feature_scale.fill_(scale)

    def encode(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map snippets to Gaussians: `(M, D)` to mean and log-variance `(M, latent)`.

        The log-variance is bounded to +-20.
        """
        if self.config.standardise:
            features = (features - self.feature_mean) / self.feature_scale
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
        decoded: Tensor = self.decoders[label](self.trunk(z))
        if self.config.standardise:
            decoded = decoded * self.feature_scale + self.feature_mean
        return decoded

    def sample_latent(
        self,
        mean: Tensor,
        log_var: Tensor,
        *,
        generator: torch.Generator,
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
        self,
        features: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct each snippet by the decoder of its own class only.

        Args:
            features: `(M, D)`.
            labels: `(M,)`, 0 or 1. On the CPU, a GPU need not wait for them.
            generator: Source of the latent noise.
            noise: `(M, latent)`, standard normal, in place of a generator.

        Returns:
            Reconstruction `(M, D)`, mean and log-variance `(M, latent)`.

        Raises:
            ValueError: If the shapes are others, or a label is neither 0 nor 1.
            TypeError: If there is neither a generator nor noise, or both.
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
        if (generator is None) == (noise is None):
            raise TypeError("expected either a generator or noise")
        mean, log_var = self.encode(features)
        if noise is not None:
            z = reparameterise(mean, log_var, noise.to(mean.device))
        else:
            assert generator is not None
            z = self.sample_latent(mean, log_var, generator=generator)
        classes = _Classes.of(labels)
        parts = [
            self.decode(rows, label)
            for label, rows in enumerate(classes.split(z))
            if len(rows)
        ]
        reconstruction = parts[0] if len(parts) == 1 else torch.cat(parts or [features])
        return classes.restore(reconstruction), mean, log_var

    def loss(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
        kl_weight: float = 1.0,
        part: Part | None = None,
    ) -> VAELoss:
        """Compute the joint loss of equation 6 with the terms of equations 4 and 5.

        For each class the reconstruction error is the squared error, summed
        (`reduction="sum"`) or averaged ("mean") over the features, and the KL
        divergence is summed over the latent units; both are averaged over the
        snippets of the class. The total is the two errors plus alpha times the two
        divergences. With `variance="fitted"` an error counts as the log-likelihood of
        a Gaussian whose variance is a moving average of the decoder's own error,
        updated in training mode. Errors are of standardised features where the model
        has a standardisation.

        Args:
            features: `(M, D)`.
            labels: See `forward`, as for `generator` and `noise`.
            generator: Source of the latent noise.
            noise: In its place.
            kl_weight: Factor on alpha, for a warm-up.
            part: Of what whole these rows are, a batch that several processes share.
                The terms are then those of the whole batch, in each process, and the
                gradients those of the own rows: their sum is the whole gradient.
        """
        reconstruction, mean, log_var = self(
            features, labels, generator=generator, noise=noise
        )
        config = self.config
        reduction = "sum" if config.variance == "fitted" else config.reduction
        error = squared_error(features, reconstruction, reduction)
        if config.standardise:
            error = error / self.feature_scale.square()
        kl = kl_by_unit(mean, log_var)
        classes = _Classes.of(labels)
        counts = classes.counts if part is None else part.counts
        sums = [rows.sum() for own in (error, kl) for rows in classes.split(own)]
        if part is not None:
            sums = list(part.total(torch.stack(sums)))
        errors, divergences = (
            [total / max(count, 1) for total, count in zip(of, counts, strict=True)]
            for of in (sums[:2], sums[2:])
        )
        if config.variance == "fitted":
            total = self._fitted_loss(errors, counts)
        else:
            total = errors[0] + errors[1]
        counted = divergences
        if config.free_bits:
            by_unit = [rows.sum(dim=0) for rows in classes.split(kl)]
            if part is not None:
                by_unit = list(part.total(torch.stack(by_unit)))
            counted = [
                with_free_bits(own, count, config.free_bits)
                for own, count in zip(by_unit, counts, strict=True)
            ]
        total = total + config.alpha * kl_weight * (counted[0] + counted[1])
        return VAELoss(total, *errors, *divergences)

    def _fitted_loss(self, errors: Sequence[Tensor], counts: Sequence[int]) -> Tensor:
        """Sum the log-likelihoods of the classes that are there."""
        total = errors[0].new_zeros(())
        for label, (error, count) in enumerate(zip(errors, counts, strict=True)):
            if not count:
                continue
            if self.training:
                own = error.detach() / self.config.feature_dim
                average = torch.exp(2 * self.log_sigma[label])
                average = SIGMA_MEMORY * average + (1 - SIGMA_MEMORY) * own
                self.log_sigma[label] = 0.5 * average.log().clamp(
                    min=2 * LOG_SIGMA_BOUND
                )
            # A copy: the buffer changes before the gradient is computed.
            log_sigma = self.log_sigma[label].clone()
            total = total + gaussian_loss(error, log_sigma, self.config.feature_dim)
        return total

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
        own = split_tensors(tensors).get("", {})
        return cls.from_tensors(config["vae"], own, device=device)

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
        dtypes = sorted({str(tensor.dtype) for tensor in tensors.values()})
        if len(dtypes) > 1:
            raise CheckpointError(
                f"the checkpoint's tensors: expected one dtype, got {', '.join(dtypes)}"
            )
        model.load_state_dict(dict(tensors), assign=True)
        if known.standardise and not 0 < model.feature_scale < float("inf"):
            raise CheckpointError(
                "the checkpoint's tensor feature_scale: expected a finite value > 0, "
                f"got {model.feature_scale.item()}"
            )
        return model.to(device=device).eval()


def split_tensors(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Part the tensors of a checkpoint: under "" the model's, then others beside it.

    What a sampler keeps beside the model has names like "scorer.x" or "bank-normal.x".
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part in BESIDE_MODEL:
            parts.setdefault(part, {})[rest] = tensor
        else:
            parts.setdefault("", {})[name] = tensor
    return parts


class _Classes(NamedTuple):
    """Which rows of a batch are of which class.

    Attributes:
        counts: How many are normal and abnormal.
        order: `(M,)`, the rows' numbers, normal ones first; None where they are so.
    """

    counts: tuple[int, int]
    order: Tensor | None

    @classmethod
    def of(cls, labels: Tensor) -> _Classes:
        """Sort the rows of labels `(M,)`.

        Raises:
            ValueError: If a label is neither 0 nor 1.
        """
        is_normal, is_abnormal = labels == NORMAL, labels == ABNORMAL
        num_normal = int(is_normal.sum())
        counts = (num_normal, len(labels) - num_normal)
        if int(is_abnormal.sum()) != counts[1]:
            wrong = labels[~(is_normal | is_abnormal)][0].item()
            raise ValueError(f"labels: expected 0, normal, or 1, abnormal, got {wrong}")
        # Batches of the training are in order: nothing is copied to and fro.
        is_mixed = not bool(is_normal[:num_normal].all())
        return cls(counts, labels.argsort(stable=True) if is_mixed else None)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Part rows `(M, ...)` into normal and abnormal ones."""
        if self.order is not None:
            rows = rows[self.order]
        first, second = rows.split(self.counts)
        return first, second

    def restore(self, rows: Tensor) -> Tensor:
        """Put rows back that are in the order of their classes."""
        return rows if self.order is None else rows[self.order.argsort()]


def _hidden_layers(
    widths: Sequence[int], linear: Callable[[int, int], nn.Linear]
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for in_features, out_features in itertools.pairwise(widths):
        # In place: a linear layer needs its input for the gradient, not its output.
        layers += [linear(in_features, out_features), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
