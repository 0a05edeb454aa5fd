"""Twin loaders, the most common contract: one gives normal videos, one abnormal ones.

The adapters for such hosts name the place and layout of the features; all else is the
same for them and done here. A batch keeps its size, order and class: a pseudo normal
video takes the place of a normal one, a pseudo abnormal video that of an abnormal one.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

from torch.utils.data import DataLoader

from .features import Layout
from .items import ItemFormat, Slot, describe
from .loading import Attachment, refuse_test_mode
from .mixing import AppendedDataset, Mixer, OneClass, PseudoVideoMaker, Sources
from .randomness import preserved_global_rng
from .sampler import PseudoVideoSampler
from .vae import ABNORMAL, NORMAL

logger = logging.getLogger("vad_pseudoaug")
NAMES = {NORMAL: "normal", ABNORMAL: "abnormal"}


def wrap_twins(
    normal_dataset: Any,
    abnormal_dataset: Any,
    sampler: PseudoVideoSampler | str | os.PathLike[str],
    *,
    per_video: float | None,
    seed: int,
    slot: Slot,
    layout: Layout | None,
) -> tuple[AppendedDataset, AppendedDataset]:
    """Append pseudo videos to both datasets; see `adapters.rtfm.wrap`."""
    sampler = PseudoVideoSampler.of(sampler)
    datasets = {NORMAL: normal_dataset, ABNORMAL: abnormal_dataset}
    contracts = _detect(datasets, sampler, slot, layout)
    maker = _maker(datasets, contracts, sampler)
    per_video = sampler.recipe.per_video if per_video is None else per_video
    normal, abnormal = (
        AppendedDataset(
            datasets[label], contracts[label], maker, per_video=per_video, seed=seed
        )
        for label in (NORMAL, ABNORMAL)
    )
    return normal, abnormal


def attach_twins(
    normal_loader: DataLoader[Any],
    abnormal_loader: DataLoader[Any],
    sampler: PseudoVideoSampler | str | os.PathLike[str],
    *,
    p: float,
    seed: int,
    enabled: bool,
    slot: Slot,
    layout: Layout | None,
) -> Attachment:
    """Replace videos in the batches of both loaders; see `adapters.rtfm.attach`."""
    sampler = PseudoVideoSampler.of(sampler)
    loaders = {NORMAL: normal_loader, ABNORMAL: abnormal_loader}
    if normal_loader is abnormal_loader:
        raise ValueError("expected two loaders, got the same one twice")
    datasets = {label: loader.dataset for label, loader in loaders.items()}
    contracts = _detect(datasets, sampler, slot, layout)
    maker = _maker(datasets, contracts, sampler)
    make = {
        label: functools.partial(
            Mixer,
            contract=contracts[label],
            maker=maker,
            p=p,
            seed=seed,
            enabled=enabled,
        )
        for label in loaders
    }
    return Attachment.attach([(loaders[label], make[label]) for label in loaders])


def _detect(
    datasets: dict[int, Any],
    sampler: PseudoVideoSampler,
    slot: Slot,
    layout: Layout | None,
) -> dict[int, OneClass]:
    """Find out how the items look, say so once, and check that the sampler fits."""
    contracts = {}
    for label, dataset in datasets.items():
        name = NAMES[label]
        refuse_test_mode(name, dataset)
        with preserved_global_rng():
            item = dataset[0]
        item_format = ItemFormat.detect(item, slot=slot, layout=layout)
        feature_dim = item_format.read(item, name=f"{name}[0]").shape[-1]
        if feature_dim != sampler.feature_dim:
            raise ValueError(
                f"{name}: the sampler was fitted on feature size "
                f"{sampler.feature_dim}, the dataset's items are {describe(item)}"
            )
        logger.info("%s items are %s, read as %s", name, describe(item), item_format)
        contracts[label] = OneClass(label, item_format)
    return contracts


def _maker(
    datasets: dict[int, Any],
    contracts: dict[int, OneClass],
    sampler: PseudoVideoSampler,
) -> PseudoVideoMaker:
    """Make pseudo videos of each class of the real videos of the other."""
    return PseudoVideoMaker(
        sampler,
        {
            made: Sources(datasets[of], contracts[of], label=of)
            for made, of in ((NORMAL, ABNORMAL), (ABNORMAL, NORMAL))
        },
    )
