"""The arms of a comparison: ways to make more training videos, pseudo or simpler.

The simple ones are controls: what a claim for pseudo videos must beat. Unless an arm
says otherwise, each adds as many videos as the paper does, so that what is compared is
what the videos are, not how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .auto import Choice, Train, choose_for_hosts, count_mixed, train_baseline
from .baseline import Baseline
from .extras import require
from .features import to_segments
from .generation import count_pseudo_videos, count_replaced, order_sources
from .randomness import make_generator
from .recipe import RECIPES, Recipe
from .sampler import PseudoVideoSampler
from .selection import Selection, select_above
from .shift import class_means
from .vae import ABNORMAL, NORMAL
from .videos import VideoSet

Video: TypeAlias = NDArray[np.float32]
SMOTE_POOL = 20_000  # snippets of a class that SMOTE looks for neighbours among
JITTER = 0.1  # spread of the noise of `jitter`, in spreads of each feature
SELECTING = ("mean-shift", "cutmix", "smote")  # kinds that take selected snippets
SELECTING_BY = ("num_segments", "threshold", "share")  # and what the baseline has
PSEUDO_BAGS = 8  # parts in time that `psemix` cuts a video into


@dataclass(frozen=True)
class Arm:
    """One way to make more videos.

    Attributes:
        name: What tables call it.
        kind: One of `KINDS`.
        per_video: Videos added to a class per real video of the other one; None takes
            that of the recipe of this name, and 2, the paper's, for other kinds.
        choices: Choices of the recipe, for the kinds that have one.
    """

    name: str
    kind: str
    per_video: float | None = None
    choices: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown arm {self.kind!r}; there is {', '.join(KINDS)}")
        choices, per_video = dict(self.choices), self.per_video
        # One of the choices of a recipe, but other arms have it too.
        chosen = choices.pop("per_video", None)
        if idle := [name for name in choices if not self.takes(name)]:
            raise ValueError(
                f"arm {self.name!r}: {', '.join(idle)} would change nothing in "
                f"{self.kind!r}"
            )
        if per_video is None:
            of_recipe = RECIPES.get(self.kind, Recipe()).per_video
            per_video = of_recipe if chosen is None else chosen
        object.__setattr__(self, "per_video", per_video)
        object.__setattr__(self, "choices", choices)

    @property
    def tries_hosts(self) -> bool:
        """Whether it makes videos for one host, which is tried before."""
        return self.kind == "auto"

    def takes(self, choice: str) -> bool:
        """Tell whether what the arm makes depends on a choice of the recipe."""
        if self.kind in SELECTING:
            return choice in SELECTING_BY or choice.startswith("baseline_")
        return self.tries_hosts or KINDS[self.kind] is _recipe

    def beside(self, choices: Mapping[str, Any]) -> Arm:
        """Return the arm with choices of all arms, if it takes them; its own go before.

        Args:
            choices: Of the recipe.
        """
        taken = {name: value for name, value in choices.items() if self.takes(name)}
        return replace(self, choices={**taken, **self.choices})

    @property
    def recipe(self) -> Recipe:
        """The recipe that the arm follows; the paper's where it only selects by it."""
        base = self.kind if KINDS[self.kind] is _recipe else "paper"
        return Recipe.named("robust" if self.tries_hosts else base, **self.choices)


class Extra(NamedTuple):
    """Videos to add to the normal and to the abnormal training videos."""

    normal: Sequence[Video]
    abnormal: Sequence[Video]


class Maker(NamedTuple):
    """Makes videos of one class: of source `i` of so many, as the `number`-th one.

    So many are made as `number` says, else as the arm's `per_video`.
    """

    num_sources: int
    make: Callable[[int, int], Video]
    number: int | None = None


Makers: TypeAlias = dict[int, Maker]  # for each class that is made


class MadeVideos(Sequence[Video]):
    """Videos made when asked for, each a function of its number."""

    def __init__(self, maker: Maker, order: Sequence[int]):
        self._maker = maker
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: Any) -> Any:
        number = range(len(self))[number]
        return self._maker.make(self._order[number], number)


class Training:
    """Training videos, and what several arms learn of them, once.

    Args:
        normal: Normal training videos.
        abnormal: Abnormal training videos.
        recipe: Of arms that learn no model: how they select snippets, and how many of
            a video they replace.
        seed: Seed of everything that an arm draws.
        progress: Show bars.
        hosts: Those that are to be trained, for arms that try them; see `choose_p`.
            None takes the built-in baseline.

    Attributes:
        host: Name of the one that videos are made for, at first the first one. May be
            set anew.
    """

    def __init__(
        self,
        normal: VideoSet,
        abnormal: VideoSet,
        *,
        recipe: Recipe,
        seed: int,
        progress: bool | None = None,
        hosts: Mapping[str, Train] | None = None,
    ):
        self.sets = {NORMAL: normal, ABNORMAL: abnormal}
        self.recipe = recipe
        self.seed = seed
        self.progress = progress
        self.hosts = dict(hosts or {"baseline": train_baseline})
        self.host = next(iter(self.hosts))
        self._choices: dict[Recipe, dict[str, Choice]] = {}
        self._samplers: dict[Hashable, PseudoVideoSampler] = {}

    def rng(self, label: int, number: int) -> np.random.Generator:
        """Return the stream of the `number`-th video of a class."""
        return np.random.default_rng([self.seed, label, number])

    @cached_property
    def selection(self) -> Selection:
        """The abnormal snippets, as the paper selects them."""
        baseline = Baseline.fit(
            self.sets[NORMAL],
            self.sets[ABNORMAL],
            recipe=self.recipe,
            validation_share=0,
            seed=self.seed,
            progress=self.progress,
        )
        scores = baseline.score(self.sets[ABNORMAL])
        return select_above(scores, threshold=self.recipe.threshold)

    def sampler(self, recipe: Recipe) -> PseudoVideoSampler:
        """Return a sampler of a recipe, fitted once for recipes that learn the same."""
        key = tuple(recipe.learning.items())
        known = self._samplers.get(key)
        if known is not None:
            return known.with_choices(progress=self.progress, **recipe.making)
        sampler = PseudoVideoSampler.fit(
            self.sets[NORMAL],
            self.sets[ABNORMAL] if recipe.learns_abnormal else None,
            recipe=recipe,
            seed=self.seed,
            progress=self.progress,
        )
        self._samplers[key] = sampler
        return sampler

    def choice(self, arm: Arm) -> Choice:
        """Choose how many videos the host takes, for an arm that tries hosts."""
        recipe = arm.recipe
        if recipe not in self._choices:  # all hosts at once: samplers are fitted once
            self._choices[recipe] = choose_for_hosts(
                self.sets[NORMAL],
                self.sets[ABNORMAL],
                self.hosts,
                recipe=recipe,
                seed=self.seed,
                progress=self.progress,
            )
        return self._choices[recipe][self.host]

    @cached_property
    def places(self) -> dict[int, NDArray[np.int64]]:
        """Video and number of each normal and each selected abnormal snippet."""
        normal = [np.ones(video.shape[1], dtype=bool) for video in self.sets[NORMAL]]
        masks = {NORMAL: normal, ABNORMAL: self.selection.masks}
        return {
            label: np.concatenate(
                [
                    np.stack(np.broadcast_arrays(i, np.flatnonzero(mask)), axis=1)
                    for i, mask in enumerate(own)
                ]
            )
            for label, own in masks.items()
        }

    def snippets(self, label: int, places: NDArray[np.int64]) -> Video:
        """Read snippets of a class: `(M, N, D)`."""
        videos = {i: self.sets[label][i] for i in np.unique(places[:, 0]).tolist()}
        return np.stack([videos[i][:, t] for i, t in places.tolist()])

    @cached_property
    def means(self) -> dict[int, Video]:
        """The mean normal and the mean selected abnormal snippet, `(D,)`."""
        normal, abnormal = self.sets[NORMAL], self.sets[ABNORMAL]
        means = class_means(normal, abnormal, self.selection).numpy()
        return {NORMAL: means[NORMAL], ABNORMAL: means[ABNORMAL]}

    @cached_property
    def spread(self) -> Video:
        """The spread of each feature over the training videos, `(D,)`."""
        count, total, squares = 0, 0.0, 0.0
        for videos in self.sets.values():
            for video in videos:
                rows = video.reshape(-1, video.shape[-1]).astype(np.float64)
                count += len(rows)
                total = total + rows.sum(axis=0)
                squares = squares + (rows**2).sum(axis=0)
        variance = squares / count - (total / count) ** 2
        spread: Video = np.sqrt(np.maximum(variance, 0)).astype(np.float32)
        return spread

    @cached_property
    def non_negative(self) -> bool:
        """Whether no feature is below 0."""
        return all(v.min() >= 0 for videos in self.sets.values() for v in videos)

    def finish(self, video: Video) -> Video:
        """Keep features that cannot be negative at 0."""
        return np.maximum(video, 0) if self.non_negative else video


def make_extra(arm: Arm, training: Training) -> Extra:
    """Prepare the videos of an arm; they are made when they are read.

    Raises:
        ImportError: If an arm needs an extra that is not installed.
        ValueError: If the baseline selects no snippet that an arm needs.
    """
    makers = KINDS[arm.kind](training, arm)
    per_video = arm.per_video or 0.0
    counts = {
        NORMAL: count_pseudo_videos(len(training.sets[ABNORMAL]), per_video),
        ABNORMAL: count_pseudo_videos(len(training.sets[NORMAL]), per_video),
    }
    made = []
    for label in (NORMAL, ABNORMAL):
        order: list[int] = []
        if label in makers:
            generator = make_generator(training.seed, label)
            num_sources, _, number = makers[label]
            count = counts[label] if number is None else number
            order = order_sources(num_sources, count, generator=generator)
        made.append(MadeVideos(makers[label], order) if order else ())
    return Extra(*made)


def what_it_learns(arm: Arm) -> Hashable:
    """Return a key that arms share whose videos one `Training` learns to make at once.

    Args:
        arm: With all of its choices, see `Arm.beside`.
    """
    if arm.kind in SELECTING:
        return arm.recipe
    if arm.kind in RECIPES:
        return tuple(arm.recipe.learning.items())
    return arm.name


def _none(training: Training, arm: Arm) -> Makers:
    return {}


def _duplicate(training: Training, arm: Arm) -> Makers:
    """Copies of real videos of the same class."""
    return _same_class(
        training, lambda label, source, number: training.sets[label][source]
    )


def _jitter(training: Training, arm: Arm) -> Makers:
    """Copies with normal noise."""

    def make(label: int, source: int, number: int) -> Video:
        video = training.sets[label][source]
        noise = training.rng(label, number).standard_normal(video.shape, np.float32)
        return training.finish(video + JITTER * training.spread * noise)

    return _same_class(training, make)


def _mixup(training: Training, arm: Arm) -> Makers:
    """A random mean of two videos of the class, the other at the first one's length."""

    def make(label: int, source: int, number: int) -> Video:
        rng = training.rng(label, number)
        video, other = _and_partner(training, label, source, rng)
        share = np.float32(rng.uniform())
        mixed: Video = share * video + (1 - share) * other
        return mixed

    return _same_class(training, make)


def _psemix(training: Training, arm: Arm) -> Makers:
    """Parts in time of two videos of the class: the pseudo-bags of PseMix."""

    def make(label: int, source: int, number: int) -> Video:
        rng = training.rng(label, number)
        video, other = _and_partner(training, label, source, rng)
        part = np.arange(video.shape[1]) * PSEUDO_BAGS // video.shape[1]
        swapped = (rng.uniform(size=PSEUDO_BAGS) < 0.5)[part]
        return np.where(swapped[None, :, None], other, video)

    return _same_class(training, make)


def _mean_shift(training: Training, arm: Arm) -> Makers:
    """The paper's swap with a constant in place of the network."""
    means = training.means

    def make(label: int, source: int, number: int) -> Video:
        video: Video = training.sets[1 - label][source].copy()
        mask = _swap_mask(training, label, video, number)
        video[:, mask] += means[label] - means[1 - label]
        return training.finish(video)

    return _other_class(training, make)


def _cutmix(training: Training, arm: Arm) -> Makers:
    """The paper's swap with real snippets: selected ones into normal videos.

    In abnormal videos, the selected snippets give way to real normal ones.
    """
    all_places = training.places  # at once: it raises where nothing is selected

    def draw(label: int, count: int, rng: np.random.Generator) -> Video:
        places = all_places[label]
        return training.snippets(label, places[rng.integers(len(places), size=count)])

    return _swapped(training, draw)


def _smote(training: Training, arm: Arm) -> Makers:
    """As `cutmix`, with snippets that SMOTE puts between neighbours of a class."""
    smote = require("imblearn.over_sampling", extra="eval").SMOTE
    fresh = {}
    for label in (NORMAL, ABNORMAL):
        places = training.places[label]
        if len(places) < 2:
            raise ValueError(
                f"SMOTE needs two or more snippets of each class, got {len(places)}"
            )
        rng = training.rng(label, 0)
        if len(places) > SMOTE_POOL:
            places = rng.choice(places, SMOTE_POOL, replace=False)
        rows = training.snippets(label, places)
        flat = rows.reshape(len(rows), -1)
        # SMOTE wants two classes, and adds to the named one: the rows at the end.
        count = max(2 * len(flat), 64)
        truth = np.r_[np.ones(len(flat), dtype=int), 0]
        made, _ = smote(
            sampling_strategy={1: len(flat) + count},
            k_neighbors=min(5, len(flat) - 1),
            random_state=training.seed,
        ).fit_resample(np.concatenate((flat, flat[:1])), truth)
        fresh[label] = made[-count:].reshape(count, *rows.shape[1:]).astype(np.float32)

    def draw(label: int, count: int, rng: np.random.Generator) -> Video:
        own: Video = fresh[label]
        return own[rng.integers(len(own), size=count)]

    return _swapped(training, draw)


def _swapped(
    training: Training, draw: Callable[[int, int, np.random.Generator], Video]
) -> Makers:
    """The paper's swap, with drawn snippets `(count, N, D)` of the class made."""

    def make(label: int, source: int, number: int) -> Video:
        video: Video = training.sets[1 - label][source].copy()
        if label == ABNORMAL:
            mask = _swap_mask(training, label, video, number)
        else:
            mask = training.selection.masks[source]
        if mask.any():
            drawn = draw(label, int(mask.sum()), training.rng(label, number))
            video[:, mask] = drawn.transpose(1, 0, 2)
        return video

    return _other_class(training, make)


def _recipe(training: Training, arm: Arm) -> Makers:
    """Pseudo videos of a sampler that learned by the recipe of this name."""
    sampler = training.sampler(arm.recipe)
    counts = {
        label: count_pseudo_videos(
            len(training.sets[1 - label]),
            (arm.per_video or 0.0) * sampler.recipe.rate(label),
        )
        for label in (NORMAL, ABNORMAL)
    }
    return _pseudo(training, sampler, counts)


def _auto(training: Training, arm: Arm) -> Makers:
    """Pseudo videos of the recipe "robust", as many as training videos speak for."""
    p = training.choice(arm).p
    if not p:
        return {}
    sampler = training.sampler(arm.recipe)
    counts = {
        label: count_mixed(len(videos), p * sampler.recipe.rate(label))
        for label, videos in training.sets.items()
    }
    return _pseudo(training, sampler, counts)


def _pseudo(
    training: Training, sampler: PseudoVideoSampler, counts: Mapping[int, int]
) -> Makers:
    """Make pseudo videos, of each class so many."""

    def make(label: int, source: int, number: int) -> Video:
        made = sampler.sample(
            training.sets[1 - label].tensor(source),
            label=label,
            generator=make_generator(training.seed, label, number),
        )
        video: Video = made.features.numpy()
        return video

    return {
        label: maker._replace(number=counts[label])
        for label, maker in _other_class(training, make).items()
    }


KINDS: Mapping[str, Callable[[Training, Arm], Makers]] = {
    "none": _none,
    "duplicate": _duplicate,
    "jitter": _jitter,
    "mixup": _mixup,
    "psemix": _psemix,
    "mean-shift": _mean_shift,
    "cutmix": _cutmix,
    "smote": _smote,
    **{name: _recipe for name in RECIPES if name != "mean-shift"},
    "auto": _auto,
}


def _same_class(training: Training, make: Callable[[int, int, int], Video]) -> Makers:
    return _makers(training, make, lambda label: label)


def _other_class(training: Training, make: Callable[[int, int, int], Video]) -> Makers:
    return _makers(training, make, lambda label: 1 - label)


def _makers(
    training: Training,
    make: Callable[[int, int, int], Video],
    of: Callable[[int], int],
) -> Makers:
    def bind(label: int) -> Callable[[int, int], Video]:
        return lambda source, number: make(label, source, number)

    return {
        label: Maker(len(training.sets[of(label)]), bind(label))
        for label in (NORMAL, ABNORMAL)
    }


def _swap_mask(
    training: Training, label: int, video: Video, number: int
) -> NDArray[np.bool_]:
    """Choose the snippets as the paper does: a random share, or all for normal."""
    length = video.shape[1]
    mask = np.zeros(length, dtype=bool)
    count = length
    if label == ABNORMAL:
        count = count_replaced(length, training.recipe.share)
    mask[training.rng(label, number).permutation(length)[:count]] = True
    return mask


def _and_partner(
    training: Training, label: int, source: int, rng: np.random.Generator
) -> tuple[Video, Video]:
    """Return a video, and another one of the class at the same length."""
    videos = training.sets[label]
    video = videos[source]
    if len(videos) == 1:
        return video, video
    number = int(rng.integers(len(videos) - 1))
    other = videos[number + (number >= source)]
    return video, to_segments(other, video.shape[1], method="linear")
