"""One loader of both classes: XDVioDet and its relatives, mixed CLIP hosts.

An item is `(features (T, D), label, ...)`, the features zero-padded to one length. The
class is told by the label: 0 or 1, or a class name ("A" and names that begin with
"normal" are normal, all others abnormal; see `contracts.class_of`), or by a function of
your own.

    attach(train_loader, sampler, dims=(0, 1024))  # rgb of rgb + audio
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from vad_pseudoaug.contracts import ClassRule
from vad_pseudoaug.contracts import class_of as default_rule
from vad_pseudoaug.features import Layout
from vad_pseudoaug.hosts import (
    SamplerLike,
    as_videos,
    attach_found,
    find_mixed,
    load_sampler,
    wrap_found,
)
from vad_pseudoaug.items import Length, Slot
from vad_pseudoaug.loading import Attachment
from vad_pseudoaug.mixing import AppendedDataset, Mixing, MixOptions
from vad_pseudoaug.vae import NORMAL
from vad_pseudoaug.videos import VideoSet

if TYPE_CHECKING:
    from typing_extensions import Unpack


def videos(
    dataset: Any,
    *,
    label_slot: Slot = 1,
    class_of: ClassRule = default_rule,
    labels: Sequence[Any] | None = None,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length = "nonzero",
    any_length: bool = False,
) -> tuple[VideoSet, VideoSet]:
    """Return normal and abnormal videos, for `PseudoVideoSampler.fit(*videos(...))`.

    Args:
        dataset: The host's training videos.
        label_slot: Where an item has its label.
        class_of: From the host's label to 0 (normal) or 1 (abnormal). A function of a
            module, not a lambda, where workers are spawned.
        labels: The host's label of each item; without, every item is read once.
        slot: Where the features are in an item, if that is not plain.
        layout: Order of their axes; None is `(T, D)` or `(N, T, D)`.
        dims: Start and end of the features that are generated; None is all.
        length: Slot of the true length of a padded video; "nonzero" finds the last row
            that is not zero; None where nothing is padded.
        any_length: Items may differ in length: see `items.ItemFormat`.
    """
    return as_videos(
        find_mixed(
            dataset,
            None,
            label_slot=label_slot,
            class_of=class_of,
            labels=labels,
            slot=slot,
            layout=layout,
            dims=dims,
            length=length,
            any_length=any_length,
        )
    )


def wrap(
    dataset: Any,
    sampler: SamplerLike,
    *,
    per_video: float | None = None,
    seed: int = 0,
    label_slot: Slot = 1,
    class_of: ClassRule = default_rule,
    labels: Sequence[Any] | None = None,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length = "nonzero",
    any_length: bool = False,
) -> AppendedDataset:
    """Append pseudo videos of both classes, each in a real item of its class.

    Args:
        dataset: The host's training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        per_video: Pseudo videos per real video; None is the recipe's.
        seed: Seed of the pseudo videos.
        label_slot: See `videos`.
        class_of: See `videos`.
        labels: See `videos`.
        slot: See `videos`.
        layout: See `videos`.
        dims: See `videos`.
        length: See `videos`.
        any_length: See `videos`.
    """
    sampler = load_sampler(sampler)
    found = find_mixed(
        dataset,
        sampler.feature_dim,
        label_slot=label_slot,
        class_of=class_of,
        labels=labels,
        slot=slot,
        layout=layout,
        dims=dims,
        length=length,
        any_length=any_length,
    )
    [wrapped] = wrap_found(found, sampler, per_video=per_video, seed=seed)
    return wrapped


def attach(
    loader: DataLoader[Any],
    sampler: SamplerLike,
    *,
    abnormal_share: float | None = None,
    label_slot: Slot = 1,
    class_of: ClassRule = default_rule,
    labels: Sequence[Any] | None = None,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length = "nonzero",
    any_length: bool = False,
    **options: Unpack[MixOptions],
) -> Attachment:
    """Replace videos in the loader's batches, in place.

    Args:
        loader: The host's loader of training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        abnormal_share: Share of abnormal videos among the pseudo videos; an item of
            the other class is then replaced as a whole, by a real one of the class
            with its features replaced. None keeps the class of each item.
        label_slot: See `videos`.
        class_of: See `videos`.
        labels: See `videos`.
        slot: See `videos`.
        layout: See `videos`.
        dims: See `videos`.
        length: See `videos`.
        any_length: See `videos`.
        **options: `p`, `ratio`, `seed`, ...; see `vad_pseudoaug.mixing.Mixing`.
    """
    sampler, mixing = load_sampler(sampler), Mixing(**options)
    found = find_mixed(
        loader.dataset,
        sampler.feature_dim,
        label_slot=label_slot,
        class_of=class_of,
        labels=labels,
        slot=slot,
        layout=layout,
        dims=dims,
        length=length,
        any_length=any_length,
    )
    loaders = [(loader, found[NORMAL].contract)]
    return attach_found(loaders, found, sampler, mixing, abnormal_share=abnormal_share)
