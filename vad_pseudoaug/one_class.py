"""Pseudo abnormal videos of normal ones alone: the paper's open one-class setting.

There is no abnormal video to learn from, so a run of a normal video is disturbed: what
is abnormal is its course in time, its place, or a snippet that the model of normal
ones finds far off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .bank import Bank
from .vae import NORMAL, MultiTaskVAE

DISTURBANCES = ("skip", "repeat", "shuffle", "foreign", "tail")
MIN_TEMPERATURE, MAX_TEMPERATURE = 2.0, 4.0


def disturb(
    video: Tensor,
    where: Tensor,
    kind: str,
    *,
    bank: Bank,
    vae: MultiTaskVAE,
    noise: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Disturb a run of a normal video.

    Args:
        video: `(N, T, D)`.
        where: `(M,)`, the snippets of the run, ascending.
        kind: One of `DISTURBANCES`: "skip" plays on at twice the speed, "repeat" stands
            still, "shuffle" plays in random order, "foreign" is a run of the bank,
            "tail" decodes latents far from the snippets' own, at a temperature of 2
            to 4.
        bank: Normal runs.
        vae: Its normal decoder is used.
        noise: `(M, latent)`, standard normal.
        generator: Source of what the kind draws.

    Returns:
        `(N, M, D)`, what takes the place of the run. Where that is the run itself, as
        with one snippet in any order, it is disturbed by "tail".

    Raises:
        ValueError: If the kind is not known.
    """
    if kind not in DISTURBANCES:
        raise ValueError(
            f"unknown disturbance {kind!r}; there is {', '.join(DISTURBANCES)}"
        )
    where = where.to(video.device)
    if kind == "foreign":
        made = bank.draw(video, len(where), generator)
    elif kind != "tail":
        made = video[:, _course(where, kind, video.shape[1] - 1, generator)]
    if kind == "tail" or torch.equal(made, video[:, where]):
        made = _far(video[:, where], vae, noise, generator)
    return made


def _course(where: Tensor, kind: str, last: int, generator: torch.Generator) -> Tensor:
    """Return which snippets play in place of those of a run, `(M,)`."""
    if kind == "skip":
        return (2 * where - where[0]).clamp(max=last)
    if kind == "repeat":
        return where[:1].expand(len(where))
    order = torch.randperm(len(where), generator=generator, device=generator.device)
    return where[order.to(where.device)]


def _far(
    run: Tensor, vae: MultiTaskVAE, noise: Tensor, generator: torch.Generator
) -> Tensor:
    """Move a run `(N, M, D)` to where the model of normal snippets has none."""
    draw = torch.rand((), generator=generator, device=generator.device).item()
    temperature = MIN_TEMPERATURE + (MAX_TEMPERATURE - MIN_TEMPERATURE) * draw
    weight = vae.mean_head.weight
    rows = run.to(weight)
    mean, _ = vae.encode(rows.flatten(0, 1))
    # From the prior's own spread: the posterior of a good model is far too narrow.
    spread = noise.to(weight).repeat(len(rows), 1)
    far = vae.decode(mean + temperature * spread, NORMAL).view_as(rows)
    # What the model cannot describe stays the snippet's own.
    return (rows + far - vae.decode(mean, NORMAL).view_as(rows)).to(run)
