"""Quality gates of pseudo abnormal videos where no abnormal video is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from . import gates
from .gate_samples import Clip, Draw, Material, Rows, meant_rows
from .gates import Gate, largest_norms, norms_and_spread, told_apart


def judge_disturbed(
    pseudo: Sequence[Clip],
    normal: Sequence[Clip],
    training: Sequence[Clip],
    *,
    seed: int = 0,
) -> list[Gate]:
    """Compute the gates of pseudo abnormal videos where no abnormal video is known.

    What is abnormal is not known then. What can be asked is that disturbed snippets
    look like features of the same extractor, and yet are no normal ones.

    Args:
        pseudo: Pseudo videos; meant are the disturbed snippets.
        normal: The held-out normal videos that they were made of, in the same order.
        training: Normal videos that the model was fitted on.
        seed: Seed of the draws.

    Raises:
        ImportError: If scikit-learn is not installed; it names the extra.
    """
    material = Material(pseudo, normal, normal, training, training, seed, paired=True)
    draws = [Draw(material, repeat) for repeat in range(gates.REPEATS)]
    return [
        *(gate._replace(contrast=None) for gate in norms_and_spread(draws)),
        _differs(material, draws[: gates.CLASSIFIER_REPEATS]),
        *largest_norms(material),
    ]


def _differs(material: Material, draws: Sequence[Draw]) -> Gate:
    """Ask whether disturbed snippets are, or follow each other, as no normal ones."""
    centre = meant_rows(material.training).mean(axis=0)

    def far(features: Rows) -> Rows:  # in whatever direction
        squares: Rows = np.square(features - centre)
        return squares

    def change(features: Rows) -> Rows:
        return np.abs(np.diff(features, axis=0, prepend=features[:1]))

    found = []
    for view in (None, far, change):
        own = draws
        if view is not None:
            seen = _view(material, view)
            own = [Draw(seen, repeat) for repeat in range(len(draws))]
        values = np.array(
            [[told_apart(x, d.again) for x in (d.pseudo, d.real)] for d in own]
        )
        least = max(0.6, float(np.quantile(values[:, 1], 0.95)))
        found.append((*values.mean(axis=0).tolist(), least))
    value, floor, least = max(found, key=lambda one: one[0] - one[2])
    return Gate(
        "differs from normal",
        value,
        floor,
        None,
        f"above {least:.2f}",
        value > least,
        "AUC of a linear classifier that tells disturbed from normal snippets, on "
        "other videos: by their features, by how far those are from the mean normal "
        "ones, or by how far from the snippet before, the best one; near 0.5 there is "
        "nothing to learn",
    )


def _view(material: Material, view: Callable[[Rows], Rows]) -> Material:
    """Put in place of the features `(T, D)` of each video what is seen of them."""

    def seen(clips: Sequence[Clip]) -> list[Clip]:
        return [Clip(view(clip.features), clip.mask) for clip in clips]

    return Material(
        seen(material.pseudo),
        seen(material.real),
        seen(material.other),
        seen(material.training),
        seen(material.training_other),
        seed=material.seed,
        paired=material.paired,
    )
