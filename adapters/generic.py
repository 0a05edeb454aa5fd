"""Hosts that no other module fits: one loader or dataset of one class, sources given.

Pseudo videos of a class are made of real videos of the other one. Where a host has
them in no dataset that the adapter could be shown, any list of videos serves, and so do
the sampler's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from vad_pseudoaug.appended import AppendedDataset
from vad_pseudoaug.features import Layout
from vad_pseudoaug.hosts import (
    Found,
    PerVideo,
    SamplerLike,
    as_class,
    attach_found,
    dataset_of,
    find_one,
    find_sources,
    load_sampler,
    wrap_found,
)
from vad_pseudoaug.items import Length, Slot
from vad_pseudoaug.loading import Attachment
from vad_pseudoaug.mixing import POOL_BYTES, Mixing, MixOptions
from vad_pseudoaug.options import names_options
from vad_pseudoaug.sampler import PseudoVideoSampler

if TYPE_CHECKING:
    from typing_extensions import Unpack


@names_options()
def wrap(
    dataset: Any,
    sampler: SamplerLike,
    *,
    label: int,
    sources: Any = None,
    per_video: PerVideo = None,
    seed: int = 0,
    pool_bytes: int = POOL_BYTES,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length = None,
    any_length: bool = False,
) -> AppendedDataset:
    """Append pseudo videos of class `label` to a dataset of that class.

    Args:
        dataset: The host's training videos of one class.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        label: That class, 0 normal or 1 abnormal.
        sources: Real videos of the other class: items in the form of the dataset's, to
            which `slot`, `layout`, `dims` and `length` apply too, or bare features.
            None takes the sampler's own, where it makes all features of an item.
        per_video: Pseudo videos per source; None is the recipe's; "auto"
            appends as many as training videos speak for, 0 included: see `choose_p`,
            and `choice` of what is returned.
        seed: Seed of the pseudo videos.
        pool_bytes: What a temporary folder may take on the disk in which pseudo videos
            are kept once they were made, of each dataset; 0 keeps none.
        slot: Where the features are in an item; None finds them.
        layout: Order of their axes; None is `(T, D)` or `(N, T, D)`.
        dims: Start and end of the features that are generated; None is all.
        length: Slot of the true length, or "nonzero", where items are padded.
        any_length: Items may differ in length: see `items.ItemFormat`.
    """
    sampler, label = load_sampler(sampler), as_class(label)
    form = {"layout": layout, "dims": dims, "length": length, "any_length": any_length}
    found = _find(dataset, sampler, label, sources, slot=slot, **form)
    return wrap_found(
        found, sampler, per_video=per_video, seed=seed, pool_bytes=pool_bytes
    )[label]


@names_options(MixOptions)
def attach(
    loader: DataLoader[Any],
    sampler: SamplerLike,
    *,
    label: int,
    sources: Any = None,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length = None,
    any_length: bool = False,
    **options: Unpack[MixOptions],
) -> Attachment:
    """Replace videos in the batches of a loader of one class, in place.

    Args:
        loader: The host's loader of training videos of one class.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        label: See `wrap`.
        sources: See `wrap`.
        slot: See `wrap`.
        layout: See `wrap`.
        dims: See `wrap`.
        length: See `wrap`.
        any_length: See `wrap`.
        **options: `p`, `ratio`, `seed`, ...; see `vad_pseudoaug.mixing.Mixing`.
    """
    sampler, label, mixing = load_sampler(sampler), as_class(label), Mixing(**options)
    form = {"layout": layout, "dims": dims, "length": length, "any_length": any_length}
    dataset = dataset_of(loader)
    found = _find(dataset, sampler, label, sources, slot=slot, **form)
    return attach_found([(loader, found[label].contract)], found, sampler, mixing)


def _find(
    dataset: Any, sampler: PseudoVideoSampler, label: int, sources: Any, **form: Any
) -> Found:
    """Find the host's videos of class `label`, and those of the other class given."""
    own = find_one(dataset, label, sampler.feature_dim, **form)
    return {label: own, 1 - label: find_sources(own, sampler, sources, **form)}
