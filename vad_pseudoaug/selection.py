"""Which snippets of abnormal videos count as abnormal (section 3.2.4)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Selection:
    """The snippets that train the abnormal decoder.

    Attributes:
        masks: For each abnormal video a bool array `(T,)`, True where selected.
        empty: Numbers of the videos of which no snippet was selected.
    """

    masks: tuple[NDArray[np.bool_], ...]
    empty: tuple[int, ...]

    @property
    def num_selected(self) -> int:
        """Number of selected snippets in all."""
        return int(sum(mask.sum() for mask in self.masks))

    @property
    def num_snippets(self) -> int:
        """Number of snippets in all."""
        return sum(len(mask) for mask in self.masks)

    def to_dict(self) -> dict[str, Any]:
        """Return what was selected as JSON values."""
        return {
            "num_selected": self.num_selected,
            "num_snippets": self.num_snippets,
            "selected_per_video": [int(mask.sum()) for mask in self.masks],
            "videos_without_selection": list(self.empty),
        }


def select_above(
    scores: Sequence[NDArray[np.floating[Any]]],
    *,
    threshold: float = 0.5,
    titles: Sequence[str] | None = None,
) -> Selection:
    """Select the snippets of abnormal videos that score above a threshold.

    Args:
        scores: For each abnormal video `(T,)`, in [0, 1].
        threshold: The paper takes 0.5; a score must be higher.
        titles: Names of the videos for the warning.

    Returns:
        The selection. Videos without a selected snippet are listed in it and named in
        a warning: they train no decoder, but pseudo normal videos are made of them.

    Raises:
        ValueError: If no snippet of any video is selected.
    """
    masks = tuple(np.asarray(score) > threshold for score in scores)
    empty = tuple(i for i, mask in enumerate(masks) if not mask.any())
    if len(empty) == len(masks):
        highest = max(float(np.max(score)) for score in scores)
        raise ValueError(
            f"no snippet of the {len(masks)} abnormal videos scores above "
            f"{threshold}, the highest is {highest:.3f}: lower the threshold or train "
            "the baseline for longer"
        )
    if empty:
        names = [titles[i] if titles else f"abnormal[{i}]" for i in empty]
        warnings.warn(
            f"{len(empty)} of {len(masks)} abnormal videos have no snippet that "
            f"scores above {threshold} and do not train the abnormal decoder: "
            f"{', '.join(names)}",
            stacklevel=4,  # who called fit
        )
    return Selection(masks, empty)
