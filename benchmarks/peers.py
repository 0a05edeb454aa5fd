"""The same network in pythae, to measure ours against."""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn

from vad_pseudoaug import VAEConfig


def pythae_vae(config: VAEConfig) -> Any:
    """Return pythae's VAE with an encoder and a decoder of our widths.

    Raises:
        ImportError: If pythae is not installed.
    """
    from pythae.models import VAE
    from pythae.models import VAEConfig as Config
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    def hidden(widths: tuple[int, ...]) -> list[nn.Module]:
        return [
            layer
            for pair in itertools.pairwise(widths)
            for layer in (nn.Linear(*pair), nn.ReLU())
        ]

    widths = (config.feature_dim, *config.hidden_dims)

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(*hidden(widths))
            self.mean = nn.Linear(widths[-1], config.latent_dim)
            self.log_var = nn.Linear(widths[-1], config.latent_dim)

        def forward(self, x: Tensor) -> Any:
            h = self.hidden(x)
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_var(h))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            layers = hidden((config.latent_dim, *reversed(widths[1:])))
            layers.append(nn.Linear(widths[1], config.feature_dim))
            self.layers = nn.Sequential(*layers)

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    options = {"input_dim": (config.feature_dim,), "latent_dim": config.latent_dim}
    return VAE(Config(**options), encoder=Encoder(), decoder=Decoder())
