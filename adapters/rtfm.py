"""RTFM and its forks: twin loaders, items `(features, label, ...)`, batches of B + B.

One dataset and loader gives normal videos, the other abnormal ones. An item is a tuple
(or a list, or a dictionary) with features `(N, T, D)`, a label and maybe more.
"""

from __future__ import annotations

import os
from typing import Any

from torch.utils.data import DataLoader

from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.features import Layout
from vad_pseudoaug.items import Slot
from vad_pseudoaug.loading import Attachment
from vad_pseudoaug.mixing import AppendedDataset
from vad_pseudoaug.twins import attach_twins, wrap_twins


def wrap(
    normal_dataset: Any,
    abnormal_dataset: Any,
    sampler: PseudoVideoSampler | str | os.PathLike[str],
    *,
    per_video: float | None = None,
    seed: int = 0,
    slot: Slot = None,
    layout: Layout | None = None,
) -> tuple[AppendedDataset, AppendedDataset]:
    """Append pseudo videos to both datasets.

    The normal dataset grows by pseudo normal videos, made of the abnormal ones, and
    the abnormal dataset by pseudo abnormal videos, made of the normal ones: of 175 and
    63 videos the paper's setting makes 175 + 126 and 63 + 350.

    Args:
        normal_dataset: The host's normal training videos.
        abnormal_dataset: The host's abnormal training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        per_video: Pseudo videos per real video; None is the recipe's.
        seed: Seed of the pseudo videos: the same one gives the same videos.
        slot: Where the features are in an item, if that is not plain.
        layout: Order of their axes; None is `(N, T, D)`.

    Returns:
        The two datasets, normal first, for the host's own loaders.

    Raises:
        TypeError: If the items hold no features.
        ValueError: If a dataset is in test mode, or does not fit the sampler.
    """
    return wrap_twins(
        normal_dataset,
        abnormal_dataset,
        sampler,
        per_video=per_video,
        seed=seed,
        slot=slot,
        layout=layout,
    )


def attach(
    normal_loader: DataLoader[Any],
    abnormal_loader: DataLoader[Any],
    sampler: PseudoVideoSampler | str | os.PathLike[str],
    *,
    p: float = 0.5,
    seed: int = 0,
    enabled: bool = True,
    slot: Slot = None,
    layout: Layout | None = None,
) -> Attachment:
    """Replace videos in the batches of both loaders, in place.

    Call it before the loaders are iterated over. With `p=0` or `enabled=False` the
    host's run is, to the bit, the one without the library.

    Args:
        normal_loader: The host's loader of normal training videos.
        abnormal_loader: The host's loader of abnormal training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        p: Probability with which a video is replaced.
        seed: Seed of the choice, the sources and the pseudo videos. The number of
            workers has no influence.
        enabled: Whether to start at once; `Attachment.enabled` switches.
        slot: Where the features are in an item, if that is not plain.
        layout: Order of their axes; None is `(N, T, D)`.

    Returns:
        The switch, the counters (`stats`) and the way back (`detach`).

    Raises:
        TypeError: If a loader is no DataLoader, or the items hold no features.
        ValueError: If a loader is attached already, is running, gives test videos, or
            does not fit the sampler.
    """
    return attach_twins(
        normal_loader,
        abnormal_loader,
        sampler,
        p=p,
        seed=seed,
        enabled=enabled,
        slot=slot,
        layout=layout,
    )
