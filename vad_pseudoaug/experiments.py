"""Which arms on which hosts: the paper's own experiments, and all of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .arms import KINDS, Arm
from .recipe import FITTED_MODEL, RANKED_SELECTION, Recipe


class Experiment(NamedTuple):
    """What a comparison compares.

    Attributes:
        arms: The first one is what the others are compared with.
        hosts: Names of hosts, see `compare.find_host`.
        against: Names of further arms to compare with.
    """

    arms: Sequence[Arm]
    hosts: Sequence[str]
    against: Sequence[str] = ()


NONE = Arm("none", "none")
PAPER = Arm("paper", "paper")
ARCHITECTURES: Mapping[str, Mapping[str, object]] = {
    "Arch1": {"hidden_dims": (1024, 512), "latent_dim": 256},
    "Arch2": {"hidden_dims": (1024, 512, 256), "latent_dim": 128},
    "Arch3": {"hidden_dims": (1024, 512, 512, 256), "latent_dim": 256},
}
# From the paper's recipe to the robust one, a choice at a time, each beside those
# before it.
STEPS: Mapping[str, Mapping[str, object]] = {
    "purer selection": RANKED_SELECTION,
    "model": FITTED_MODEL,
    "one run": {"placement": "run", "noise": "correlated"},
    "residual": {"translation": "residual"},
    "norms": {"norms": "matched"},
    "abnormal alone": {"normal_rate": 0.0},
}


def ablation() -> list[Arm]:
    """Return the arms from `none` over `paper` to `robust`, and one past it."""
    arms = [NONE, PAPER]
    choices: Mapping[str, object] = {}
    for name, own in STEPS.items():
        choices = {**choices, **own}
        arms.append(Arm(f"+ {name}", "paper", choices=choices))
    once = {"translation": "graft", "norms": "free"}  # what `robust` was before
    graft = Arm("robust, graft", "robust", choices=once)
    return [*arms, Arm("robust", "robust"), graft]


EXPERIMENTS: Mapping[str, Experiment] = {
    "all": Experiment(
        [Arm(kind, kind) for kind in KINDS], ("mlp", "rtfm"), ("cutmix", "mean-shift")
    ),
    "ablation": Experiment(ablation(), ("mlp", "rtfm")),
    # Tables 3 and 4, whose ROC curves are figure 4. Of table 4, the pair that can be
    # trained here; its other rows are published figures. On features of UCF-Crime the
    # same pair is that of table 7 and figure 5.
    "table3": Experiment([NONE, PAPER], ("mlp",)),
    "table4": Experiment([NONE, PAPER], ("rtfm",)),
    "table5": Experiment(
        [
            NONE,
            *(Arm(name, "paper", choices=own) for name, own in ARCHITECTURES.items()),
        ],
        ("mlp",),
    ),
    "table6": Experiment(
        [
            NONE,
            *(
                Arm(f"ratio {name}", "paper", per_video)
                for name, per_video in (("1/2", 0.5), ("1", 1.0), ("2", 2.0))
            ),
        ],
        ("mlp",),
    ),
}


def find_experiment(name: str) -> Experiment:
    """Find one of `EXPERIMENTS` by its name.

    Raises:
        ValueError: If there is none.
    """
    if name not in EXPERIMENTS:
        raise ValueError(
            f"unknown experiment {name!r}; there is {', '.join(EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]


def parse_arm(text: str) -> Arm:
    """Read an arm from `KIND`, or from `NAME=KIND:choice=value,choice=value`.

    The choices are those of a recipe.

    Raises:
        ValueError: If there is no such kind or choice, or a value is not readable.

    Example:
        >>> parse_arm("half=paper:per_video=0.5,latent_dim=64")
        Arm(name='half', kind='paper', per_video=0.5, choices={'latent_dim': 64})
    """
    head, _, tail = text.partition(":")
    name, _, kind = head.rpartition("=")
    return Arm(name or text, kind, choices=Recipe.parse(tail))
