"""torchmil: one loader of bags `{X (n, D), Y (1), ...}` of any length, padded later.

A pseudo video is interpolated to the length of the bag whose place it takes, so that
members with one row an instance (`y_inst`, `coords`, `adj`) keep their shape. Items may
be dictionaries or TensorDicts; nothing of torchmil is imported.
"""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader

from vad_pseudoaug.appended import AppendedDataset
from vad_pseudoaug.hosts import SamplerLike
from vad_pseudoaug.loading import Attachment
from vad_pseudoaug.options import names_options
from vad_pseudoaug.videos import VideoSet

from . import mixed

FORM: dict[str, Any] = {
    "slot": "X",
    "label_slot": "Y",
    "length": None,
    "any_length": True,
}


@names_options(mixed.videos)
def videos(dataset: Any, **options: Any) -> tuple[VideoSet, VideoSet]:
    """Return normal and abnormal bags, for `PseudoVideoSampler.fit(*videos(...))`.

    Args:
        dataset: The host's training bags.
        **options: Those of `mixed.videos`.
    """
    return mixed.videos(dataset, **{**FORM, **options})


@names_options(mixed.wrap)
def wrap(dataset: Any, sampler: SamplerLike, **options: Any) -> AppendedDataset:
    """Append pseudo bags of both classes; see `mixed.wrap`.

    Args:
        dataset: The host's training bags.
        sampler: Fitted on features like those of the bags; or its checkpoint's folder.
        **options: Those of `mixed.wrap`.
    """
    return mixed.wrap(dataset, sampler, **{**FORM, **options})


@names_options(mixed.attach)
def attach(loader: DataLoader[Any], sampler: SamplerLike, **options: Any) -> Attachment:
    """Replace bags in the loader's batches, in place; see `mixed.attach`.

    Args:
        loader: The host's loader of training bags.
        sampler: Fitted on features like those of the bags; or its checkpoint's folder.
        **options: Those of `mixed.attach`.
    """
    return mixed.attach(loader, sampler, **{**FORM, **options})
