"""One loader of both classes: XDVioDet and its relatives, mixed CLIP hosts.

An item is `(features (T, D), label, ...)`, the features zero-padded to one length. The
class is told by the label: 0 or 1, or a class name ("A" and names that begin with
"normal" are normal, all others abnormal), or by a function of your own; see
`vad_pseudoaug.contracts.class_of_label`.

    attach(train_loader, sampler, dims=(0, 1024))  # rgb of rgb + audio
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from torch.utils.data import DataLoader

from vad_pseudoaug.appended import AppendedDataset
from vad_pseudoaug.contracts import ClassRule
from vad_pseudoaug.features import Layout
from vad_pseudoaug.hosts import (
    PerVideo,
    SamplerLike,
    as_videos,
    attach_found,
    dataset_of,
    find_mixed,
    load_sampler,
    wrap_found,
)
from vad_pseudoaug.items import Length, Slot
from vad_pseudoaug.loading import Attachment
from vad_pseudoaug.mixing import POOL_BYTES, Mixing, MixOptions
from vad_pseudoaug.options import names_options
from vad_pseudoaug.vae import NORMAL
from vad_pseudoaug.videos import VideoSet

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Form(TypedDict, total=False):
    """How the items look: keywords of every function here.

    - `label_slot`: where an item has its label; 1.
    - `class_of`: from the host's label to 0 (normal) or 1 (abnormal). A function of a
      module, not a lambda, where workers are spawned.
    - `labels`: the host's label of each item; without, every item is read once.
    - `slot`: where the features are, if that is not plain.
    - `layout`: order of their axes; `(T, D)` or `(N, T, D)`.
    - `dims`: start and end of the features that are generated; all.
    - `length`: slot of the true length of a padded video; "nonzero", the default, finds
      the last row that is not zero; None where nothing is padded.
    - `any_length`: items may differ in length, see `items.ItemFormat`; false.
    """

    label_slot: Slot
    class_of: ClassRule
    labels: Sequence[Any] | None
    slot: Slot
    layout: Layout | None
    dims: tuple[int, int] | None
    length: Length
    any_length: bool


class AttachOptions(Form, MixOptions, total=False):
    """The keywords of `attach`: those of `Form` and of `mixing.Mixing`."""


@names_options(Form)
def videos(dataset: Any, **form: Unpack[Form]) -> tuple[VideoSet, VideoSet]:
    """Return normal and abnormal videos, for `PseudoVideoSampler.fit(*videos(...))`.

    Args:
        dataset: The host's training videos.
        **form: How its items look, see `Form`.
    """
    return as_videos(find_mixed(dataset, None, **form))


@names_options(Form)
def wrap(
    dataset: Any,
    sampler: SamplerLike,
    *,
    per_video: PerVideo = None,
    seed: int = 0,
    pool_bytes: int = POOL_BYTES,
    **form: Unpack[Form],
) -> AppendedDataset:
    """Append pseudo videos of both classes, each in a real item of its class.

    Args:
        dataset: The host's training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        per_video: Pseudo videos per real video; None is the recipe's; "auto"
            appends as many as training videos speak for, 0 included: see `choose_p`,
            and `choice` of what is returned.
        seed: Seed of the pseudo videos.
        pool_bytes: What a temporary folder may take on the disk in which pseudo videos
            are kept once they were made, of each dataset; 0 keeps none.
        **form: How the items look, see `Form`.
    """
    sampler = load_sampler(sampler)
    found = find_mixed(dataset, sampler.feature_dim, **form)
    [wrapped] = wrap_found(
        found, sampler, per_video=per_video, seed=seed, pool_bytes=pool_bytes
    )
    return wrapped


@names_options(AttachOptions)
def attach(
    loader: DataLoader[Any],
    sampler: SamplerLike,
    *,
    abnormal_share: float | None = None,
    **options: Unpack[AttachOptions],
) -> Attachment:
    """Replace videos in the loader's batches, in place.

    Args:
        loader: The host's loader of training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        abnormal_share: Share of abnormal videos among the pseudo videos; an item of
            the other class is then replaced as a whole, by a real one of the class
            with its features replaced. None keeps the class of each item.
        **options: `p` (by the recipe `robust` a share of the abnormal videos alone),
            `ratio`, `seed`, ..., see `vad_pseudoaug.mixing.Mixing`, and how the items
            look, see `Form`.
    """
    sampler = load_sampler(sampler)
    mixing, form = Mixing.split(options)
    found = find_mixed(dataset_of(loader), sampler.feature_dim, **form)
    loaders = [(loader, found[NORMAL].contract)]
    return attach_found(loaders, found, sampler, mixing, abnormal_share=abnormal_share)
