"""CLIP-based detectors: twin loaders, items `(features, class name, length)`.

Features `(256, 512)` are zero-padded and may be float16 in one item and float32 in
the next; the true length is the third member. Everything else is as for RTFM, and all
its keywords are taken. A CLIP-based host with one mixed loader, as for XD-Violence, is
served by `mixed` with `length=2`.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from vad_pseudoaug.appended import AppendedDataset
from vad_pseudoaug.hosts import SamplerLike
from vad_pseudoaug.items import Length
from vad_pseudoaug.loading import Attachment
from vad_pseudoaug.options import names_options
from vad_pseudoaug.videos import VideoSet

from . import rtfm


@names_options(rtfm.videos)
def videos(
    normal_dataset: Any, abnormal_dataset: Any, *, length: Length = 2, **options: Any
) -> tuple[VideoSet, VideoSet | None]:
    """Return the videos, without padding, for `PseudoVideoSampler.fit(*videos(...))`.

    Args:
        normal_dataset: The host's normal training videos.
        abnormal_dataset: The host's abnormal training videos; None if there are none.
        length: Slot of the true length.
        **options: Those of `rtfm.videos`.
    """
    return rtfm.videos(normal_dataset, abnormal_dataset, length=length, **options)


@names_options(rtfm.wrap)
def wrap(
    normal_dataset: Any,
    abnormal_dataset: Any,
    sampler: SamplerLike,
    *,
    length: Length = 2,
    **options: Any,
) -> tuple[AppendedDataset, AppendedDataset]:
    """Append pseudo videos to both datasets; see `rtfm.wrap`.

    Args:
        normal_dataset: The host's normal training videos.
        abnormal_dataset: The host's abnormal training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        length: Slot of the true length.
        **options: Those of `rtfm.wrap`.
    """
    return rtfm.wrap(
        normal_dataset, abnormal_dataset, sampler, length=length, **options
    )


@names_options(rtfm.attach)
def attach(
    normal_loader: DataLoader[Any],
    abnormal_loader: DataLoader[Any],
    sampler: SamplerLike,
    *,
    length: Length = 2,
    **options: Any,
) -> Attachment:
    """Replace videos in the batches of both loaders, in place; see `rtfm.attach`.

    Args:
        normal_loader: The host's loader of normal training videos.
        abnormal_loader: The host's loader of abnormal training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        length: Slot of the true length.
        **options: Those of `rtfm.attach`.
    """
    return rtfm.attach(
        normal_loader, abnormal_loader, sampler, length=length, **options
    )
