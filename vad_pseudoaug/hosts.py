"""What adapters share: finding a host's videos, wrapping and attaching to them."""

from __future__ import annotations

import functools
import logging
import math
import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, TypeAlias

from torch.utils.data import DataLoader

from .appended import AppendedDataset
from .auto import Choice, count_mixed, settle
from .contracts import (
    ClassRule,
    Contract,
    Labelled,
    OneClass,
    Pair,
    Sources,
    class_of_label,
    indices_by_class,
)
from .deferred import Survey
from .features import Layout
from .items import ItemFormat, Length, Slot, describe, detect_format, members
from .loading import Attachment, check_attachable
from .mixer import Mixer, TargetShare
from .mixing import Mixing, PseudoVideoMaker
from .pool import Pool
from .relabelled import RelabelledDataset, find_label
from .sampler import PseudoVideoSampler
from .untouched import left_as_it_was, parts_of, read_item
from .vae import ABNORMAL, CLASS_NAMES, NORMAL
from .videos import VideoSet, check_sequence

logger = logging.getLogger("vad_pseudoaug")

SamplerLike: TypeAlias = "PseudoVideoSampler | str | os.PathLike[str]"
PerVideo: TypeAlias = "float | Literal['auto'] | None"
Found: TypeAlias = dict[int, Sources]  # the real videos of each class


def as_class(label: Any) -> int:
    """Take the number of a class.

    Raises:
        ValueError: If it is none.
    """
    if label not in (NORMAL, ABNORMAL):
        raise ValueError(f"label: expected 0 (normal) or 1 (abnormal), got {label!r}")
    return int(label)


def load_sampler(sampler: SamplerLike) -> PseudoVideoSampler:
    """Take a sampler, or the folder of its checkpoint."""
    if isinstance(sampler, PseudoVideoSampler):
        return sampler
    if not isinstance(sampler, str | os.PathLike):
        raise TypeError(
            "sampler: expected a PseudoVideoSampler or the folder of its checkpoint, "
            f"got {type(sampler).__name__}"
        )
    return PseudoVideoSampler.from_pretrained(sampler)


def dataset_of(loader: Any) -> Any:
    """Return what a loader loads.

    Raises:
        TypeError: If it is no DataLoader.
    """
    if not isinstance(loader, DataLoader):
        advice = "; for datasets there is wrap" if hasattr(loader, "__len__") else ""
        raise TypeError(f"expected a DataLoader, got {type(loader).__name__}{advice}")
    return loader.dataset


def find_one(dataset: Any, label: int, feature_dim: int | None, **form: Any) -> Sources:
    """Find the videos of a dataset that holds one class.

    Args:
        dataset: The host's.
        label: Its class.
        feature_dim: What the sampler makes, None before there is one.
        **form: See `detect_format`.
    """
    item_format = _look(CLASS_NAMES[label], dataset, feature_dim, **form)
    return Sources(dataset, OneClass(label, item_format), label=label)


def find_sources(
    own: Sources,
    sampler: PseudoVideoSampler,
    given: Any,
    *,
    slot: Slot,
    layout: Layout | None,
    dims: tuple[int, int] | None,
    length: Length,
    any_length: bool,
) -> Sources:
    """Find what pseudo videos are made of where the host does not have it.

    Args:
        own: The host's videos, of one class.
        sampler: Makes the pseudo videos.
        given: Videos of the other class: items that have the form of the host's, but
            for the slots that they do not have, or bare features; None takes those of
            the sampler.
        slot: The form of the host's items, see `detect_format`; so the others.
        layout: See there.
        dims: See there.
        length: See there.
        any_length: See there.

    Raises:
        ValueError: If they have not all features that the host's items have.
    """
    label = 1 - own.contract.views(None)[0].label
    size = own.read(0)[0].shape[-1]
    if given is None and size != sampler.feature_dim:
        raise ValueError(
            f"sources: the sampler's own videos have {sampler.feature_dim} features, "
            f"those that it makes, the items {size}: give real videos with all of them"
        )
    videos = sampler.sources(1 - label) if given is None else given
    known = dict(members(_first_item(CLASS_NAMES[label], videos)))
    found = find_one(
        videos,
        label,
        sampler.feature_dim,
        slot=slot if slot in known else None,
        layout=None if isinstance(videos, VideoSet) else layout,
        dims=dims,
        length=length if length == "nonzero" or length in known else None,
        any_length=any_length,
    )
    if (got := found.read(0)[0].shape[-1]) != size:
        raise ValueError(
            f"sources: expected videos of feature size {size} as the items, got {got}"
        )
    return found


def find_twins(
    normal: Any, abnormal: Any, feature_dim: int | None, **form: Any
) -> Found:
    """Find the videos of two datasets, one of each class; see `find_one`."""
    if normal is abnormal:
        raise ValueError(
            "normal and abnormal videos are the same dataset: expected two"
        )
    found = {
        label: find_one(dataset, label, feature_dim, **form)
        for label, dataset in ((NORMAL, normal), (ABNORMAL, abnormal))
    }
    labels = [_own_label(sources) for sources in found.values()]
    # Not refused: there are hosts whose labels mean the reverse.
    if [_class_or_none(label) for label in labels] == [ABNORMAL, NORMAL]:
        logger.warning(
            "normal and abnormal videos seem to be swapped: the first item given as "
            "normal has the label %r, the first one given as abnormal %r; swap them, "
            "unless the host's labels mean the reverse",
            *labels,
        )
    return found


def _own_label(sources: Sources) -> Any:
    """Return the label that the first item carries, None where none is found."""
    item, [view] = sources.item(0), sources.contract.views(None)
    try:
        slot = find_label(item, (view.item_format.slot, view.item_format.length))
    except ValueError:
        return None
    return None if slot is None else item[slot]


def _class_or_none(label: Any) -> int | None:
    """Tell the class of a label that may mean anything."""
    try:
        return class_of_label(label)
    except (TypeError, ValueError, RuntimeError):  # a tensor that cannot be read
        return None


def find_mixed(
    dataset: Any,
    feature_dim: int | None,
    *,
    label_slot: Slot = 1,
    class_of: ClassRule = class_of_label,
    labels: Sequence[Any] | None = None,
    length: Length = "nonzero",
    **form: Any,
) -> Found:
    """Find the videos of a dataset of both classes, told by a member of the items.

    Raises:
        ValueError: If the items have no such member.
    """
    item_format = _look("training", dataset, feature_dim, length=length, **form)
    _check_label_slot(read_item(dataset, 0), label_slot, item_format.slot)
    contract = Labelled(item_format, label_slot, class_of)
    indices = indices_by_class(dataset, contract, labels, class_of)
    logger.info(
        "%d normal and %d abnormal videos", len(indices[NORMAL]), len(indices[ABNORMAL])
    )
    return {
        label: Sources(dataset, contract, label=label, indices=indices[label])
        for label in (NORMAL, ABNORMAL)
    }


def _check_label_slot(item: Any, label_slot: Slot, features: Slot) -> None:
    others = [slot for slot, _ in members(item) if slot != features]
    if not others:
        raise ValueError(
            f"expected items with a label beside the features, got {describe(item)}"
        )
    try:
        item[label_slot]
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(
            f"label_slot={label_slot!r}: there is no such member in an item "
            f"{describe(item)}; pass label_slot=, one of {others}"
        ) from error


def find_pairs(
    dataset: Any, feature_dim: int | None, *, slots: tuple[Slot, Slot], **form: Any
) -> Found:
    """Find the videos of a dataset whose items hold a normal and an abnormal one.

    Args:
        dataset: The host's.
        feature_dim: What the sampler makes, None before there is one.
        slots: Where the normal and the abnormal video are.
        **form: See `detect_format`.

    Raises:
        ValueError: If both are in the same place.
    """
    if slots[0] == slots[1]:
        raise ValueError(
            f"normal_slot and abnormal_slot: expected two different ones, got "
            f"{slots[0]!r} twice"
        )
    normal, abnormal = (
        _look(CLASS_NAMES[label], dataset, feature_dim, slot=slot, **form)
        for label, slot in enumerate(slots)
    )
    contract = Pair(normal, abnormal)
    return {
        label: Sources(dataset, contract, label=label) for label in (NORMAL, ABNORMAL)
    }


def is_nothing(dataset: Any) -> bool:
    """Tell whether a host has no videos of a class: None, or a dataset without any."""
    return dataset is None or (hasattr(dataset, "__len__") and len(dataset) == 0)


def as_videos(found: Mapping[int, Sources]) -> tuple[VideoSet, VideoSet]:
    """Return normal and abnormal videos for `PseudoVideoSampler.fit`."""
    return (
        VideoSet(found[NORMAL], name="normal"),
        VideoSet(found[ABNORMAL], name="abnormal"),
    )


def wrap_found(
    found: Found,
    sampler: PseudoVideoSampler,
    *,
    per_video: PerVideo,
    seed: int,
    pool_bytes: int,
) -> list[AppendedDataset]:
    """Append pseudo videos to the dataset, or the two datasets, that were found."""
    maker, choice = _maker(found, sampler), None
    if per_video == "auto":
        mixing, choice = _settle(Mixing(p="auto", seed=seed), sampler, found)
        assert isinstance(mixing.p, float)
        share = mixing.p
        rates = {
            label: count_mixed(len(own), share * sampler.recipe.rate(label))
            / len(found[1 - label])
            for label, own in found.items()
        }
    else:
        number = _number_per_video(per_video, sampler)
        rates = {label: number * sampler.recipe.rate(label) for label in found}
    normal, abnormal = found[NORMAL], found[ABNORMAL]
    if normal.dataset is abnormal.dataset:
        groups: list[dict[int, Sources]] = [found]
    else:
        groups = [{NORMAL: normal}, {ABNORMAL: abnormal}]
    return [
        AppendedDataset(
            next(iter(group.values())).dataset,
            next(iter(group.values())).contract,
            maker,
            templates={label: videos.indices for label, videos in group.items()},
            per_video=rates,
            seed=seed,
            together=isinstance(normal.contract, Pair),
            pool_bytes=pool_bytes,
            choice=choice,
        )
        for group in groups
    ]


def wrap_normal(
    normal: Sources,
    empty: Any,
    sampler: PseudoVideoSampler,
    *,
    per_video: PerVideo,
    seed: int,
    pool_bytes: int,
    label_slot: Slot,
    abnormal_label: Any,
) -> list[AppendedDataset]:
    """Make a dataset of pseudo abnormal videos where the host has no abnormal one.

    Args:
        normal: The host's normal videos.
        empty: Its empty dataset of abnormal videos, or None.
        sampler: Makes the pseudo videos.
        per_video: Pseudo abnormal videos per normal one; None is the recipe's.
        seed: See `AppendedDataset`.
        pool_bytes: See `AppendedDataset`.
        label_slot: See `RelabelledDataset`.
        abnormal_label: See `RelabelledDataset`.

    Returns:
        The normal dataset, to which nothing is appended, and that of pseudo videos.
    """
    if per_video == "auto":
        raise ValueError(
            "per_video='auto' tries pseudo videos on real ones of both classes, and "
            "there are no abnormal ones: give a number"
        )
    logger.info("no abnormal videos: pseudo abnormal ones stand in for them")
    contract = OneClass(ABNORMAL, normal.contract.views(None)[0].item_format)
    maker = _maker({NORMAL: normal}, sampler)
    templates = RelabelledDataset(
        normal.dataset,
        beside=(contract.item_format.slot, contract.item_format.length),
        label_slot=label_slot,
        abnormal_label=abnormal_label,
        like=empty,
    )
    number = _number_per_video(per_video, sampler)
    options: dict[str, Any] = {"seed": seed, "pool_bytes": pool_bytes}
    return [
        AppendedDataset(
            normal.dataset,
            normal.contract,
            maker,
            templates={},
            per_video={},
            **options,
        ),
        AppendedDataset(
            templates,
            contract,
            maker,
            templates={ABNORMAL: normal.indices},
            per_video={ABNORMAL: number},
            alone=True,
            **options,
        ),
    ]


def _number_per_video(
    per_video: float | str | None, sampler: PseudoVideoSampler
) -> float:
    """Take the number of pseudo videos per real one; None is the recipe's.

    Raises:
        ValueError: If it is no finite number >= 0.
    """
    if per_video is None:
        return sampler.recipe.per_video
    if not isinstance(per_video, Real) or not 0 <= per_video < math.inf:
        raise ValueError(
            f"per_video: expected a number >= 0, 'auto' or None, got {per_video!r}"
        )
    return float(per_video)


def attach_found(
    loaders: Sequence[tuple[DataLoader[Any], Contract]],
    found: Mapping[int, Sources],
    sampler: PseudoVideoSampler,
    mixing: Mixing,
    *,
    abnormal_share: float | None = None,
) -> Attachment:
    """Replace videos in the batches of loaders.

    Args:
        loaders: Each with what its items look like.
        found: For each class the real videos, sources for the other class.
        sampler: Makes the pseudo videos.
        mixing: How many, and when.
        abnormal_share: See `TargetShare`; None keeps the class of each item.
    """
    if abnormal_share is not None and not 0 <= abnormal_share <= 1:
        raise ValueError(
            f"abnormal_share: expected a value in [0, 1], got {abnormal_share}"
        )
    for loader, _ in loaders:
        check_attachable(loader, allow_single=mixing.allow_single)
    mixing, choice = _settle(mixing, sampler, found)
    maker = _maker(found, sampler)
    retarget = None if abnormal_share is None else TargetShare(abnormal_share, found)
    contracts = [contract for _, contract in loaders]
    surveys: list[Survey | None] = [None] * len(loaders)
    pool = None
    wanted = _made(contracts)
    labels = {
        label for label in wanted if retarget is not None or sampler.recipe.rate(label)
    }
    if not labels and not mixing.inert:
        logger.warning(
            "nothing is replaced: the recipe %r makes no pseudo %s videos; "
            "normal_rate and abnormal_rate say how many",
            sampler.recipe.name,
            " or ".join(CLASS_NAMES[label] for label in sorted(wanted)),
        )
    if labels and mixing.fills and _one_length(contracts):
        kept = [Survey(loader.dataset, contract) for loader, contract in loaders]
        pool = Pool(maker, mixing, labels=labels, surveys=kept)
        surveys = [*kept]
    handle = Attachment.attach(
        [
            (
                loader,
                functools.partial(
                    Mixer,
                    contract=contract,
                    maker=maker,
                    mixing=mixing,
                    pool=pool,
                    survey=survey,
                    retarget=retarget,
                ),
            )
            for (loader, contract), survey in zip(loaders, surveys, strict=True)
        ],
        pool=pool,
        allow_single=mixing.allow_single,
    )
    handle.choice = choice
    logger.info("attached, %s", mixing.amount)
    return handle


def _settle(
    mixing: Mixing, sampler: PseudoVideoSampler, found: Mapping[int, Sources]
) -> tuple[Mixing, Choice | None]:
    """Choose p, where it is open, by the host's training videos."""
    if not mixing.is_open:
        return mixing, None
    with left_as_it_was(*(sources.dataset for sources in found.values())):
        normal, abnormal = (
            VideoSet(found[label], name=name) if label in found else None
            for label, name in CLASS_NAMES.items()
        )
        return settle(mixing, sampler, normal, abnormal)


def _made(contracts: Sequence[Contract]) -> set[int]:
    """Return the classes of which pseudo videos are made."""
    made: set[int] = set()
    for contract in contracts:
        made |= {contract.label} if isinstance(contract, OneClass) else {0, 1}
    return made


def _one_length(contracts: Sequence[Contract]) -> bool:
    """Tell whether pseudo videos can be ready: not where items set their length."""
    formats = [
        getattr(contract, name)
        for contract in contracts
        for name in ("item_format", "normal", "abnormal")
        if hasattr(contract, name)
    ]
    if any(item_format.any_length for item_format in formats):
        logger.info("items may differ in length: pseudo videos are made one by one")
        return False
    return True


def _maker(
    found: Mapping[int, Sources], sampler: PseudoVideoSampler
) -> PseudoVideoMaker:
    """Make pseudo videos of each class of the real videos of the other."""
    return PseudoVideoMaker(
        sampler,
        {
            made: found[of]
            for made, of in ((NORMAL, ABNORMAL), (ABNORMAL, NORMAL))
            if of in found
        },
    )


def _look(name: str, dataset: Any, feature_dim: int | None, **form: Any) -> ItemFormat:
    """Find out how the items look, and say so once."""
    item = _first_item(name, dataset)
    try:
        item_format = detect_format(item, feature_dim=feature_dim, **form)
        item_format.read(item, name="item 0")
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} videos: {error}") from error
    logger.info("%s videos: %s, read as %s", name, describe(item), item_format)
    return item_format


def _first_item(name: str, dataset: Any) -> Any:
    """Return the first item of a dataset that pseudo videos may be mixed into."""
    check_sequence(dataset, name=f"{name} videos")
    if len(dataset) == 0:
        advice = "; without any, wrap(normal, None, sampler) makes some"
        raise ValueError(
            f"{name} videos: the dataset is empty{advice if name == 'abnormal' else ''}"
        )
    parts = parts_of(dataset)
    if any(getattr(part, "test_mode", False) for part in parts):
        raise ValueError(
            f"{name}: the dataset is in test mode; pseudo videos are for training only"
        )
    return read_item(dataset, 0)
