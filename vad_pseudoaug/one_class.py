"""Pseudo abnormal videos of normal ones alone: the paper's open one-class setting.

There is no abnormal video to learn from, so a run of a normal video is disturbed: what
is abnormal is its course in time, its place, or snippets far off from normal ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .bank import Bank
from .vae import NORMAL, MultiTaskVAE

DISTURBANCES = ("skip", "repeat", "shuffle", "foreign", "tail", "offset")
GROUPS: Mapping[str, tuple[str, ...]] = {
    "any": DISTURBANCES,
    "course": ("skip", "repeat", "shuffle"),  # seen only over several snippets
    "far": ("tail", "offset"),  # seen in one snippet
}
TAIL = 2.0  # spreads of the prior that "tail" moves codes by, times the strength


def draw_kind(choice: str, generator: torch.Generator) -> str:
    """Draw a disturbance of a group; one of `DISTURBANCES` is itself."""
    kinds = GROUPS.get(choice, (choice,))
    draw = torch.randint(len(kinds), (), generator=generator, device=generator.device)
    return kinds[int(draw)]


def disturb(
    video: Tensor,
    where: Tensor,
    kind: str,
    *,
    bank: Bank,
    vae: MultiTaskVAE,
    spread: Tensor,
    noise: Tensor,
    strength: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Disturb a run of a normal video.

    Args:
        video: `(N, T, D)`.
        where: `(M,)`, the snippets of the run, ascending.
        kind: One of `DISTURBANCES`: "skip" plays on at twice the speed, "repeat" stands
            still, "shuffle" plays in random order, "foreign" is a run of the bank,
            "tail" decodes latents far from the snippets' own, "offset" adds one random
            vector to all, in which each feature goes its own way.
        bank: Normal runs.
        vae: Its normal decoder is used.
        spread: `(D,)`, the standard deviation of each feature of normal snippets.
        noise: `(M, latent)`, standard normal.
        strength: `(M,)`, how far off a snippet is: in spreads of a feature for
            "offset", in twice the spread of the prior for "tail".
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
    run, last = video[:, where], video.shape[1] - 1
    made = same = run
    if kind == "foreign":
        made = bank.draw(video, len(where), generator)
        same = run.to(bank.runs.dtype).to(run)  # as the bank would have it
    elif kind == "offset":
        made = run + _offset(run, spread, generator) * strength.to(run)[:, None]
    elif kind in GROUPS["course"]:
        made = video[:, _course(where, kind, last, generator)]
    return _far(run, vae, noise, strength) if torch.equal(made, same) else made


def _course(where: Tensor, kind: str, last: int, generator: torch.Generator) -> Tensor:
    """Return which snippets play in place of those of a run, `(M,)`."""
    if kind == "skip":
        return (2 * where - where[0]).clamp(max=last)
    if kind == "repeat":
        return where[:1].expand(len(where))
    order = torch.randperm(len(where), generator=generator, device=generator.device)
    return where[order.to(where.device)]


def _offset(run: Tensor, spread: Tensor, generator: torch.Generator) -> Tensor:
    """Draw what is added to all snippets of a run `(N, M, D)`: `(D,)`.

    Normal snippets vary along few directions: this leaves them by all others. It is one
    for the run, as what an anomaly looks like goes on while it lasts.
    """
    draw = torch.randn(run.shape[-1:], generator=generator, device=generator.device)
    return draw.to(run) * spread.to(run)


def _far(run: Tensor, vae: MultiTaskVAE, noise: Tensor, strength: Tensor) -> Tensor:
    """Move a run `(N, M, D)` to where the model of normal snippets has none."""
    weight = vae.mean_head.weight
    rows = run.to(weight)
    mean, _ = vae.encode(rows.flatten(0, 1))
    # From the prior's own spread: the posterior of a good model is far too narrow.
    moved = TAIL * strength.to(weight)[:, None] * noise.to(weight)
    far = vae.decode(mean + moved.repeat(len(rows), 1), NORMAL).view_as(rows)
    # What the model cannot describe stays the snippet's own.
    return (rows + far - vae.decode(mean, NORMAL).view_as(rows)).to(run)
