"""RTFM and its forks: twin loaders, items `(features, label, ...)`, batches of B + B.

One dataset and loader gives normal videos, the other abnormal ones. An item is a tuple
(or a list, a dictionary, a bare array) with features `(N, T, D)` or `(T, D)`, a label
and maybe more. A batch keeps its size, order and class: a pseudo normal video takes the
place of a normal one, a pseudo abnormal video that of an abnormal one.

The keywords that tell where the features are, for when that is not plain:

- `slot`: position in the tuple or key of the dictionary.
- `layout`: order of the axes, "TD", "NTD" (the default of three axes) or "TND".
- `dims`: start and end of the features that are generated, say `(0, 1024)` of rgb +
  audio. One more feature than the sampler makes, which is the norm of the others, is
  recognised without.
- `length`: slot of the true length of a padded video, or "nonzero".
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
    find_one,
    find_twins,
    is_nothing,
    load_sampler,
    wrap_found,
    wrap_normal,
)
from vad_pseudoaug.items import Length, Slot
from vad_pseudoaug.loading import Attachment
from vad_pseudoaug.mixing import POOL_BYTES, Mixing, MixOptions
from vad_pseudoaug.options import names_options
from vad_pseudoaug.vae import ABNORMAL, NORMAL
from vad_pseudoaug.videos import VideoSet

if TYPE_CHECKING:
    from typing_extensions import Unpack


@names_options()
def videos(
    normal_dataset: Any,
    abnormal_dataset: Any,
    *,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length = None,
) -> tuple[VideoSet, VideoSet | None]:
    """Return the videos of both datasets, for `PseudoVideoSampler.fit(*videos(...))`.

    Needed where only a part of the features is generated or videos are padded; else
    `fit` takes the datasets themselves. With None or an empty dataset as the abnormal
    one, its videos are None, and `fit` learns of normal ones alone.
    """
    form = {"slot": slot, "layout": layout, "dims": dims, "length": length}
    if is_nothing(abnormal_dataset):
        alone = find_one(normal_dataset, NORMAL, None, **form)
        return VideoSet(alone, name="normal"), None
    return as_videos(find_twins(normal_dataset, abnormal_dataset, None, **form))


@names_options()
def wrap(
    normal_dataset: Any,
    abnormal_dataset: Any,
    sampler: SamplerLike,
    *,
    per_video: PerVideo = None,
    seed: int = 0,
    pool_bytes: int = POOL_BYTES,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length = None,
    label_slot: Slot = None,
    abnormal_label: Any = None,
) -> tuple[AppendedDataset, AppendedDataset]:
    """Append pseudo videos to both datasets.

    The normal dataset grows by pseudo normal videos, made of the abnormal ones, and
    the abnormal dataset by pseudo abnormal videos, made of the normal ones: of 175 and
    63 videos the paper's setting makes 175 + 126 and 63 + 350.

    Without abnormal videos nothing is appended to the normal dataset, and the abnormal
    one is made of pseudo videos alone: normal items with features and label replaced.

    Args:
        normal_dataset: The host's normal training videos.
        abnormal_dataset: The host's abnormal training videos; None or an empty dataset
            where it has none, for a sampler of normal videos alone.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        per_video: Pseudo videos per real video; None is the recipe's; "auto"
            appends as many as training videos speak for, 0 included: see `choose_p`,
            and `choice` of what is returned.
        seed: Seed of the pseudo videos: the same one gives the same videos.
        pool_bytes: What a temporary folder may take on the disk in which pseudo videos
            are kept once they were made, of each dataset; 0 keeps none.
        slot: See the module's head.
        layout: See the module's head.
        dims: See the module's head.
        length: See the module's head.
        label_slot: Where there are no abnormal videos, the slot of the label; None
            takes 1 or "label", or the only member beside the features.
        abnormal_label: Where there are no abnormal videos, their label; None is 1 in
            the type of the normal items' 0.

    Returns:
        The two datasets, normal first, for the host's own loaders.

    Raises:
        TypeError: If the items hold no features.
        ValueError: If a dataset is in test mode, or does not fit the sampler, or the
            label of abnormal videos is needed and cannot be told.
    """
    sampler = load_sampler(sampler)
    form = {"slot": slot, "layout": layout, "dims": dims, "length": length}
    how: dict[str, Any] = {
        "per_video": per_video,
        "seed": seed,
        "pool_bytes": pool_bytes,
    }
    if is_nothing(abnormal_dataset):
        alone = find_one(normal_dataset, NORMAL, sampler.feature_dim, **form)
        normal, abnormal = wrap_normal(
            alone,
            abnormal_dataset,
            sampler,
            label_slot=label_slot,
            abnormal_label=abnormal_label,
            **how,
        )
        return normal, abnormal
    found = find_twins(normal_dataset, abnormal_dataset, sampler.feature_dim, **form)
    normal, abnormal = wrap_found(found, sampler, **how)
    return normal, abnormal


@names_options(MixOptions)
def attach(
    normal_loader: DataLoader[Any],
    abnormal_loader: DataLoader[Any],
    sampler: SamplerLike,
    *,
    slot: Slot = None,
    layout: Layout | None = None,
    dims: tuple[int, int] | None = None,
    length: Length = None,
    **options: Unpack[MixOptions],
) -> Attachment:
    """Replace videos in the batches of both loaders, in place.

    Call it before the loaders are iterated over. With `p=0` or `enabled=False` the
    host's run is, to the bit, the one without the library.

    Args:
        normal_loader: The host's loader of normal training videos.
        abnormal_loader: The host's loader of abnormal training videos.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        slot: See the module's head.
        layout: See the module's head.
        dims: See the module's head.
        length: See the module's head.
        **options: How many videos are replaced, and when: `p` (a number or "auto"; by
            the recipe `robust` p=0.5 is half of the abnormal videos, and so a quarter
            of all), `ratio`, `seed`, `enabled`, `start_after`, ...; see
            `vad_pseudoaug.mixing.Mixing`.

    Returns:
        The switch, the counters (`stats`) and the way back (`detach`).

    Raises:
        TypeError: If a loader is no DataLoader, or the items hold no features.
        ValueError: If a loader is attached already, is running, or gives test videos,
            or does not fit the sampler.
    """
    sampler, mixing = load_sampler(sampler), Mixing(**options)
    form = {"slot": slot, "layout": layout, "dims": dims, "length": length}
    found = find_twins(
        dataset_of(normal_loader),
        dataset_of(abnormal_loader),
        sampler.feature_dim,
        **form,
    )
    loaders = [
        (normal_loader, found[NORMAL].contract),
        (abnormal_loader, found[ABNORMAL].contract),
    ]
    return attach_found(loaders, found, sampler, mixing)
