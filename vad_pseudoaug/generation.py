"""The steps from a real video to a pseudo video: source, mask, translation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .vae import NORMAL, MultiTaskVAE, reparameterise

# Rows that go through the network at once: bounds memory on videos of any length.
CHUNK_ROWS = 8192


class PseudoVideo(NamedTuple):
    """One pseudo video, or a batch of them.

    Attributes:
        features: `(N, T, D)`, a batch `(B, N, T, D)`; dtype and device of the source.
        label: What the video claims to be, 0 normal or 1 abnormal.
        pseudo_mask: `(T,)` or `(B, T)` bool: which segments were generated.
        source: Number of the real video that each was made of, int64, `()` or `(B,)`:
            in the batch given to `sample`, in the set that `draw` took it from.
        lengths: True number of segments, int64, `()` or `(B,)`; the rest is padding.
    """

    features: Tensor
    label: int
    pseudo_mask: Tensor
    source: Tensor
    lengths: Tensor

    def unbind(self) -> list[PseudoVideo]:
        """Split a batch into single videos of their true lengths."""
        if self.source.ndim == 0:
            return [self]
        return [
            PseudoVideo(
                self.features[i, :, :length],
                self.label,
                self.pseudo_mask[i, :length],
                self.source[i],
                self.lengths[i],
            )
            for i, length in enumerate(self.lengths.tolist())
        ]


def count_pseudo_videos(num_sources: int, per_video: float) -> int:
    """Return how many pseudo videos `per_video` gives of a number of sources.

    Example:
        >>> [count_pseudo_videos(175, ratio) for ratio in (0.5, 1, 2)]
        [88, 175, 350]
    """
    return int(num_sources * per_video + 0.5)


def order_sources(
    num_sources: int, num_videos: int, *, generator: torch.Generator
) -> list[int]:
    """Choose a source for each pseudo video: all in turn, the rest at random.

    No source is used twice more often than another, and none twice in a last,
    incomplete round.
    """
    rounds, rest = divmod(num_videos, num_sources)
    order = torch.randperm(num_sources, generator=generator, device="cpu")
    return list(range(num_sources)) * rounds + sorted(order[:rest].tolist())


def draw_mask(
    length: int,
    label: int,
    share: float,
    *,
    generator: torch.Generator,
    placement: str = "scattered",
) -> Tensor:
    """Choose which snippets of a video to generate (section 3.2.3).

    Args:
        length: Number of snippets T.
        label: Class of the pseudo video: all snippets of a pseudo normal one, the
            share of a pseudo abnormal one, rounded down but at least one.
        share: The paper takes 1/2.
        generator: Source of the choice.
        placement: "scattered" anywhere, as in the paper, or in one "run".

    Returns:
        The snippets' numbers, ascending.
    """
    if label == NORMAL:
        return torch.arange(length, device=generator.device)
    count = max(1, int(length * share))
    if placement == "run":
        last = length - count + 1
        start = torch.randint(last, (), generator=generator, device=generator.device)
        return start + torch.arange(count, device=generator.device)
    order = torch.randperm(length, generator=generator, device=generator.device)
    return order[:count].sort().values


def translate_rows(
    vae: MultiTaskVAE,
    rows: Tensor,
    noise: Tensor,
    label: int,
    *,
    strength: Tensor | None = None,
) -> Tensor:
    """Encode, add the noise given, decode as class `label`.

    With a strength, what is returned is the row itself plus that weight times the
    difference of the two decoders at the same z: what both reconstruct badly cancels.

    Args:
        vae: Where the rows are moved to.
        rows: `(M, D)`.
        noise: `(M, latent)`, standard normal.
        label: 0 normal or 1 abnormal.
        strength: `(M,)`, or None for the decoder's output.

    Returns:
        `(M, D)`.
    """
    weight = vae.mean_head.weight
    parts = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        part = rows[chunk].to(weight)
        mean, log_var = vae.encode(part)
        z = reparameterise(mean, log_var, noise[chunk].to(weight))
        made = vae.decode(z, label)
        if strength is not None:
            difference = made - vae.decode(z, 1 - label)
            made = part + strength[chunk, None].to(weight) * difference
        parts.append(made)
    return torch.cat(parts)
