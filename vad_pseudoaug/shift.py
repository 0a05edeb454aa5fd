"""The difference of the class means: a swap without a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .extras import track
from .selection import Selection
from .videos import VideoSet


def class_means(
    normal: VideoSet,
    abnormal: VideoSet,
    selection: Selection,
    *,
    progress: bool | None = False,
) -> Tensor:
    """Return the mean normal and the mean selected abnormal snippet, `(2, D)`.

    In one pass, some snippets at a time.

    Raises:
        ValueError: If no snippet is selected.
    """
    means = []
    for videos, masks in ((normal, None), (abnormal, selection.masks)):
        count, total = 0, np.zeros(videos.feature_dim)
        for number in track(range(len(videos)), "class means", show=progress):
            for first, block in videos.blocks(number):
                rows = block
                if masks is not None:
                    rows = block[:, masks[number][first : first + block.shape[1]]]
                total += rows.mean(axis=0, dtype=np.float64).sum(axis=0)
                count += rows.shape[1]
        if not count:
            raise ValueError("no snippet is selected that a mean could be taken of")
        means.append(total / count)
    return torch.from_numpy(np.stack(means).astype(np.float32))
