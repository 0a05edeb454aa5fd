"""A normal and an abnormal video in one item, as WSAL's: `(abnormal, normal, labels)`.

Which comes first differs from host to host and is never guessed: `normal_slot` and
`abnormal_slot` say it. Each of the two videos may be replaced, by one of its own class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from vad_pseudoaug.appended import AppendedDataset
from vad_pseudoaug.features import Layout
from vad_pseudoaug.hosts import (
    PerVideo,
    SamplerLike,
    as_videos,
    attach_found,
    dataset_of,
    find_pairs,
    load_sampler,
    wrap_found,
)
from vad_pseudoaug.items import Slot
from vad_pseudoaug.loading import Attachment
from vad_pseudoaug.mixing import POOL_BYTES, Mixing, MixOptions
from vad_pseudoaug.options import names_options
from vad_pseudoaug.vae import NORMAL
from vad_pseudoaug.videos import VideoSet

if TYPE_CHECKING:
    from typing_extensions import Unpack


@names_options()
def videos(
    dataset: Any,
    *,
    normal_slot: Slot,
    abnormal_slot: Slot,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
) -> tuple[VideoSet, VideoSet]:
    """Return normal and abnormal videos, for `PseudoVideoSampler.fit(*videos(...))`.

    Args:
        dataset: The host's training pairs.
        normal_slot: Where an item has its normal video.
        abnormal_slot: Where it has its abnormal video.
        layout: Order of the axes of the features; None is `(T, D)` or `(N, T, D)`.
        dims: Start and end of the features that are generated; None is all.
    """
    slots = (normal_slot, abnormal_slot)
    return as_videos(find_pairs(dataset, None, slots=slots, layout=layout, dims=dims))


@names_options()
def wrap(
    dataset: Any,
    sampler: SamplerLike,
    *,
    normal_slot: Slot,
    abnormal_slot: Slot,
    per_video: PerVideo = None,
    seed: int = 0,
    pool_bytes: int = POOL_BYTES,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
) -> AppendedDataset:
    """Append pairs of a pseudo normal and a pseudo abnormal video.

    Args:
        dataset: The host's training pairs.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        normal_slot: See `videos`.
        abnormal_slot: See `videos`.
        per_video: Pseudo pairs per real pair; None is the recipe's; "auto"
            appends as many as training videos speak for, 0 included: see `choose_p`,
            and `choice` of what is returned.
        seed: Seed of the pseudo videos.
        pool_bytes: What a temporary folder may take on the disk in which pseudo videos
            are kept once they were made, of each dataset; 0 keeps none.
        layout: See `videos`.
        dims: See `videos`.
    """
    sampler = load_sampler(sampler)
    slots = (normal_slot, abnormal_slot)
    found = find_pairs(
        dataset, sampler.feature_dim, slots=slots, layout=layout, dims=dims
    )
    [wrapped] = wrap_found(
        found, sampler, per_video=per_video, seed=seed, pool_bytes=pool_bytes
    )
    return wrapped


@names_options(MixOptions)
def attach(
    loader: DataLoader[Any],
    sampler: SamplerLike,
    *,
    normal_slot: Slot,
    abnormal_slot: Slot,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    **options: Unpack[MixOptions],
) -> Attachment:
    """Replace videos in the loader's batches, in place.

    Args:
        loader: The host's loader of training pairs.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        normal_slot: See `videos`.
        abnormal_slot: See `videos`.
        layout: See `videos`.
        dims: See `videos`.
        **options: `p`, `ratio`, `seed`, ...; see `vad_pseudoaug.mixing.Mixing`.
    """
    sampler, mixing = load_sampler(sampler), Mixing(**options)
    slots = (normal_slot, abnormal_slot)
    found = find_pairs(
        dataset_of(loader), sampler.feature_dim, slots=slots, layout=layout, dims=dims
    )
    return attach_found([(loader, found[NORMAL].contract)], found, sampler, mixing)
