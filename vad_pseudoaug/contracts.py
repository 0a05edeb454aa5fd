"""What a host's items mean: which videos of which class are in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from .extras import track
from .items import ItemFormat, Slot, to_numpy
from .randomness import preserved_global_rng
from .untouched import left_as_it_was, read_item
from .vae import ABNORMAL, NORMAL

ClassRule = Callable[[Any], int]


class View(NamedTuple):
    """A video in an item: its class and how it lies there."""

    label: int
    item_format: ItemFormat


class Contract(Protocol):
    """What a host's items look like."""

    def views(self, item: Any) -> Sequence[View]:
        """Return the videos in an item."""


class OneClass(NamedTuple):
    """Items of one class: told by the loader or dataset, never by the item."""

    label: int
    item_format: ItemFormat

    def views(self, item: Any) -> Sequence[View]:
        """Return the one video of the item."""
        return (View(self.label, self.item_format),)


class Labelled(NamedTuple):
    """Items of both classes: told by a member of the item."""

    item_format: ItemFormat
    label_slot: Slot
    rule: ClassRule

    def views(self, item: Any) -> Sequence[View]:
        """Return the one video of the item."""
        return (View(self.rule(item[self.label_slot]), self.item_format),)


class Pair(NamedTuple):
    """Items that hold a normal and an abnormal video."""

    normal: ItemFormat
    abnormal: ItemFormat

    def views(self, item: Any) -> Sequence[View]:
        """Return the two videos of the item."""
        return (View(NORMAL, self.normal), View(ABNORMAL, self.abnormal))


def class_of_label(label: Any) -> int:
    """Tell the class of a video from a host's label: the default rule.

    A number or array of one element: 0 is normal, 1 abnormal. A string: "A" (XD-
    Violence's own) and all that begin with "normal" are normal, whatever the case; any
    other one, as "B2-0-0" or "Fighting", is abnormal.

    Raises:
        ValueError: For anything else; give the adapter a rule of your own.

    Example:
        >>> [class_of_label(label) for label in ("A", "Normal", "B2-0-0", 1.0)]
        [0, 0, 1, 1]
    """
    if isinstance(label, str):
        word = label.strip().lower()
        return NORMAL if word == "a" or word.startswith("normal") else ABNORMAL
    values = np.asarray(to_numpy(label)).ravel()
    if values.dtype.kind in "biuf" and len(values) == 1 and values[0] in (0, 1):
        return int(values[0])
    raise ValueError(
        f"label {label!r}: expected 0, 1 or a class name; pass class_of=, a function "
        "from the host's label to 0 (normal) or 1 (abnormal)"
    )


class Sources(Sequence[Any]):
    """The real videos of one class in a host's dataset.

    A sequence of the features that are generated, `(N, T, D)` float32 arrays. Reading
    leaves the dataset and the global random states as they were.

    Args:
        dataset: The host's.
        contract: What its items look like.
        label: The class.
        indices: Numbers of the items with a video of the class; None is all.
    """

    def __init__(
        self,
        dataset: Any,
        contract: Contract,
        *,
        label: int,
        indices: Sequence[int] | None = None,
    ):
        self.dataset = dataset
        self.contract = contract
        self.label = label
        self.indices = range(len(dataset)) if indices is None else indices
        if len(self.indices) == 0:
            name = "abnormal" if label == ABNORMAL else "normal"
            raise ValueError(f"the dataset has no {name} video")

    def __len__(self) -> int:
        return len(self.indices)

    def item(self, number: int) -> Any:
        """Return the item that holds video `number`, as the host gives it."""
        return read_item(self.dataset, self.indices[number])

    def read(self, number: int) -> tuple[Tensor, ItemFormat]:
        """Return all features of video `number`, `(N, T, D)`, and how they lay."""
        return self.features_of(self.item(number), number)

    def features_of(self, item: Any, number: int) -> tuple[Tensor, ItemFormat]:
        """Return what `read` does, of the item loaded already."""
        for label, item_format in self.contract.views(item):
            if label == self.label:
                name = f"item {self.indices[number]} of the dataset"
                return item_format.read(item, name=name), item_format
        raise ValueError(
            f"item {self.indices[number]} of the dataset has no video of class "
            f"{self.label} any more"
        )

    def __getitem__(self, number: Any) -> Any:
        features, item_format = self.read(number)
        return features[..., item_format.generated].numpy()


def indices_by_class(
    dataset: Any, contract: Contract, labels: Sequence[Any] | None, rule: ClassRule
) -> dict[int, list[int]]:
    """List the items of each class.

    Args:
        dataset: The host's. Without `labels`, every item is read once.
        contract: What its items look like.
        labels: The host's label of each item, to spare that.
        rule: From a host's label to 0 or 1.

    Raises:
        ValueError: If there are not as many labels as items.
    """
    if labels is not None and len(labels) != len(dataset):
        raise ValueError(f"labels: expected {len(dataset)}, got {len(labels)}")
    found: dict[int, list[int]] = {NORMAL: [], ABNORMAL: []}
    with preserved_global_rng(), left_as_it_was(dataset):
        # Labels that are given take no time.
        show = None if labels is None else False
        for index in track(range(len(dataset)), "labels of items", show=show):
            if labels is not None:
                found[rule(labels[index])].append(index)
            else:
                for label, _ in contract.views(dataset[index]):
                    found[label].append(index)
    return found
