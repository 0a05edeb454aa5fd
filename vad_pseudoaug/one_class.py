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
            still, "shuffle" plays in random order, "foreign" is a run of another video,
            "tail" decodes latents far from the snippets' own, at a temperature of 2
            to 4.
        bank: Normal runs.
        vae: Its normal decoder is used.
        noise: `(M, latent)`, standard normal.
        generator: Source of what the kind draws.

    Returns:
        `(N, M, D)`, what takes the place of the run.

    Raises:
        ValueError: If the kind is not known.
    """
    last = video.shape[1] - 1
    where = where.to(video.device)
    if kind == "skip":
        return video[:, (2 * where - where[0]).clamp(max=last)]
    if kind == "repeat":
        return video[:, where[:1].expand(len(where))]
    if kind == "shuffle":
        order = torch.randperm(len(where), generator=generator, device=generator.device)
        return video[:, where[order.to(video.device)]]
    if kind == "foreign":
        number = torch.randint(
            len(bank), (), generator=generator, device=generator.device
        )
        return bank.take(int(number), len(where)).to(video)
    if kind != "tail":
        raise ValueError(
            f"unknown disturbance {kind!r}; there is {', '.join(DISTURBANCES)}"
        )
    draw = torch.rand((), generator=generator, device=generator.device).item()
    temperature = MIN_TEMPERATURE + (MAX_TEMPERATURE - MIN_TEMPERATURE) * draw
    weight = vae.mean_head.weight
    rows = video[:, where].to(weight)  # (N, M, D)
    mean, _ = vae.encode(rows.flatten(0, 1))
    # From the prior's own spread: the posterior of a good model is far too narrow.
    spread = noise.to(weight).repeat(len(rows), 1)
    far = vae.decode(mean + temperature * spread, NORMAL).view_as(rows)
    # What the model cannot describe stays the snippet's own.
    return (rows + far - vae.decode(mean, NORMAL).view_as(rows)).to(video)
