"""The steps from a real video to a pseudo video: source, mask, translation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from scipy.special import betaincinv
from torch import Tensor

from .codes import Codes
from .losses import reparameterise
from .recipe import Recipe
from .vae import NORMAL, MultiTaskVAE

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


class Plan(NamedTuple):
    """What is random in a pseudo video.

    Attributes:
        where: `(M,)`, the numbers of the snippets that are generated, ascending.
        noise: `(K, M, latent)`, the latent noise of each of K candidates.
        strength: `(M,)`, weight of what is added or varied.
        fade: `(M,)` in (0, 1], how much of the generated snippet shows.
    """

    where: Tensor
    noise: Tensor
    strength: Tensor
    fade: Tensor

    def part(self, own: Tensor, first: int) -> Plan:
        """Return what concerns some snippets, `own` `(M,)` bool, counted from `first`.

        Example:
            >>> where, ones = torch.tensor([1, 4, 5]), torch.ones(3)
            >>> Plan(where, ones[None, :, None], ones, ones).part(where > 2, 3).where
            tensor([1, 2])
        """
        return Plan(
            self.where[own] - first,
            self.noise[:, own],
            self.strength[own],
            self.fade[own],
        )


def draw_plan(
    length: int,
    label: int,
    recipe: Recipe,
    *,
    latent_dim: int,
    generator: torch.Generator,
    correlation: float = 0.0,
    suspicious: Tensor | None = None,
) -> Plan:
    """Draw which snippets of a video are generated, and how (section 3.2.3).

    Args:
        length: Number of snippets T.
        label: Class of the pseudo video.
        recipe: Share, placement, noise and strength.
        latent_dim: Size of the latent space.
        generator: Source of all draws.
        correlation: Of the noise of a snippet and the next one, where the recipe's
            noise is correlated.
        suspicious: `(T,)` bool, which snippets of an abnormal video the recipe's scope
            replaces in a pseudo normal one; None replaces all.
    """
    where = draw_mask(
        length,
        label,
        _draw_share(recipe, generator) if label != NORMAL else 1.0,
        generator=generator,
        placement=recipe.placement,
    )
    if suspicious is not None and label == NORMAL:
        where = suspicious.nonzero().squeeze(1).to(where.device)
    options: dict[str, Any] = {"device": generator.device, "dtype": torch.float32}
    shape = (recipe.candidates, len(where), latent_dim)
    noise = torch.randn(shape, generator=generator, **options)
    if recipe.noise == "correlated":
        noise = correlate(noise, where, correlation)
    strength = torch.ones(len(where), **options)
    if recipe.translation != "swap":
        draw = torch.rand((), generator=generator, **options)
        low, high = recipe.min_strength, recipe.max_strength
        strength = strength * (low + (high - low) * draw)
    return Plan(where, noise * recipe.temperature, strength, _fade(where, recipe.taper))


def count_replaced(length: int, share: float) -> int:
    """Return how many snippets a share of a video is, rounded down but at least one.

    Example:
        >>> count_replaced(11, 0.5), count_replaced(90, 0.7)
        (5, 63)
    """
    return max(1, int(length * share + 1e-9))  # 90 * 0.7 is 62.99...


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
    count = count_replaced(length, share)
    if placement == "run":
        last = length - count + 1
        start = torch.randint(last, (), generator=generator, device=generator.device)
        return start + torch.arange(count, device=generator.device)
    order = torch.randperm(length, generator=generator, device=generator.device)
    return order[:count].sort().values


def correlate(noise: Tensor, where: Tensor, correlation: float) -> Tensor:
    """Turn independent noise into noise that goes on over time (AR(1)).

    Between snippets that are g apart the correlation is `correlation ** g`; each value
    stays standard normal.

    Args:
        noise: `(..., M, latent)`, standard normal.
        where: `(M,)`, ascending: the time of each row.
        correlation: Of neighbours, in [0, 1).
    """
    rows = [noise[..., 0, :]] if len(where) else []
    gaps = where.diff().tolist()
    for row, gap in enumerate(gaps, start=1):
        rho = correlation**gap
        rows.append(rho * rows[-1] + (1 - rho**2) ** 0.5 * noise[..., row, :])
    return torch.stack(rows, dim=-2) if rows else noise


def _draw_share(recipe: Recipe, generator: torch.Generator) -> float:
    """Draw the share of a video, from a beta distribution of that mean and spread."""
    mean, spread = recipe.share, recipe.share_spread
    if not spread or mean == 1:
        return mean
    # No spread is wider than that of all or nothing.
    total = max(mean * (1 - mean) / spread**2 - 1, 1e-3)
    options: dict[str, Any] = {"device": generator.device, "dtype": torch.float64}
    draw = torch.rand((), generator=generator, **options).item()
    return float(betaincinv(mean * total, (1 - mean) * total, draw))


def _fade(where: Tensor, taper: int) -> Tensor:
    """Weights `(M,)` that rise and fall at the ends of each run: 1/2 for taper 1."""
    fade = torch.ones(len(where), dtype=torch.float32, device=where.device)
    if not taper or not len(where):
        return fade
    starts = torch.cat((where[:1] >= 0, where.diff() > 1)).nonzero().squeeze(1).tolist()
    for start, end in zip(starts, [*starts[1:], len(where)], strict=True):
        steps = torch.arange(1, end - start + 1, device=where.device)
        depth = torch.minimum(steps, steps.flip(0)).to(fade)
        fade[start:end] = (depth / (taper + 1)).clamp(max=1)
    return fade


def snippet_rows(mask: Tensor, *, num_crops: int) -> Tensor:
    """Return where the masked snippets of a batch lie, crop by crop.

    Args:
        mask: `(B, T)` bool.
        num_crops: Number of crops N.

    Returns:
        `(M, N)` int64: rows of a batch `(B, N, T, D)` seen as `(B * N * T, D)`.

    Example:
        >>> snippet_rows(torch.tensor([[False, True], [True, True]]), num_crops=2)
        tensor([[1, 3],
                [4, 6],
                [5, 7]])
    """
    video, snippet = mask.nonzero().unbind(1)
    crops = torch.arange(num_crops, device=mask.device)
    return (video[:, None] * num_crops + crops) * mask.shape[1] + snippet[:, None]


def take_rows(rows: Tensor, where: Tensor) -> Tensor:
    """Return the rows `(..., D)` of `(R, D)` that stand at some numbers `(...)`.

    Example:
        >>> take_rows(torch.eye(2), torch.tensor([[1]]))
        tensor([[[0., 1.]]])
    """
    # Three times as fast as `rows[where]` on a CPU.
    taken = rows.index_select(0, where.flatten().to(rows.device))
    return taken.view(*where.shape, *rows.shape[1:])


def translate_rows(
    vae: MultiTaskVAE,
    rows: Tensor,
    noise: Tensor,
    label: int,
    *,
    strength: Tensor | None = None,
    against: int | None = None,
    codes: Codes | None = None,
) -> Tensor:
    """Encode, add the noise given, decode as class `label`.

    With a strength, what is returned is the row itself plus that weight times a
    difference, in which what is reconstructed badly cancels: of the two decoders at the
    same z, or (`against` is `label`) of the one decoder with the noise and without.

    Args:
        vae: Where the rows are moved to.
        rows: `(M, D)`.
        noise: `(M, latent)`, standard normal.
        label: 0 normal or 1 abnormal.
        strength: `(M,)`, or None for the decoder's output.
        against: Whose output is subtracted; None is the other class.
        codes: `(M, latent)`, what the encoder makes of the rows, where it is known.

    Returns:
        `(M, D)`.
    """
    weight = vae.mean_head.weight
    against = 1 - label if against is None else against
    parts = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        part = rows[chunk].to(weight)
        if codes is None:
            mean, log_var = vae.encode(part)
        else:
            mean, log_var = (own[chunk].to(weight) for own in codes)
        z = reparameterise(mean, log_var, noise[chunk].to(weight))
        made = vae.decode(z, label)
        if strength is not None:
            difference = made - vae.decode(mean if against == label else z, against)
            made = part + strength[chunk, None].to(weight) * difference
        parts.append(made)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
