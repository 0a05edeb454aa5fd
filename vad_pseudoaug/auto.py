"""Do no harm: how many pseudo videos to mix in, decided on training videos alone.

Whether pseudo videos help depends on the features, on the host and on the seed. So it
is tried: the training videos are dealt into parts, and for each part a sampler is
fitted and the host trained on the others, with pseudo videos and without; what was left
out judges. Where the gain is not clear of its own error, none are mixed in.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset

from .baseline import Baseline, Score, deal
from .extras import progress_bar
from .fitting import score_videos
from .generation import order_sources
from .metrics import roc_auc
from .mixing import Mixing
from .randomness import make_generator
from .recipe import Recipe
from .sampler import PseudoVideoSampler
from .selection import NothingToLearnError
from .vae import ABNORMAL, CLASS_NAMES, NORMAL
from .videos import VideoSet, VideoSource, as_pair

logger = logging.getLogger("vad_pseudoaug")

Train: TypeAlias = Callable[..., Score]
TRIED = (0.25, 0.5)
PARTS = 3
MAX_VIDEOS = 300  # of each class: bounds the time that trying takes
MAX_BATCH = 32
TOP_SHARE = 0.2  # of an abnormal video's snippets that the figure takes for abnormal


class Choice(NamedTuple):
    """What was chosen, and by which figures.

    Attributes:
        p: Probability with which an abnormal video is to be a pseudo video; a normal
            one, that times the recipe's `normal_rate`, which is 0 in `robust`: p=0.5
            is then half of the abnormal videos, a quarter of as many of each.
        gains: For each p tried, the gain of each part over no pseudo videos, `(K,)`.
        failed: Why nothing could be told, so that p is 0; "" where it could.
    """

    p: float
    gains: dict[float, NDArray[np.float64]]
    failed: str = ""

    @property
    def reason(self) -> str:
        """The choice in a sentence."""
        if self.failed:
            return f"p={self.p:g}, for trying failed: {self.failed}"
        tried = ", ".join(
            f"p={p:g}: {100 * gain:+.1f} +- {100 * error:.1f}"
            for p, (gain, error) in self.summary().items()
        )
        return (
            f"p={self.p:g} chosen on held-out training videos; points of AUC against "
            f"none, with the standard error: {tried}"
        )

    def summary(self) -> dict[float, tuple[float, float]]:
        """For each p tried, the mean gain and its standard error."""
        return {
            p: (float(own.mean()), float(own.std(ddof=1)) / math.sqrt(len(own)))
            for p, own in self.gains.items()
        }


def choose_p(
    normal: VideoSource,
    abnormal: VideoSource,
    *,
    recipe: str | Recipe = "robust",
    train: Train | None = None,
    tried: Sequence[float] = TRIED,
    parts: int = PARTS,
    max_videos: int = MAX_VIDEOS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
    **choices: Any,
) -> Choice:
    """Choose how many pseudo videos help a host, on training videos alone.

    Args:
        normal: Normal training videos.
        abnormal: Abnormal ones.
        recipe: Of the sampler, which is fitted anew for each part.
        train: The host: `train(normal, abnormal, seed)` gives a score function, from
            features `(N, T, D)`, a read-only float32 array, to scores `(T,)`. If it has
            a keyword `batch_size`, it is given that of `fit_batch` for the real videos
            of a part, whatever p is. None takes the built-in MIL baseline.
        tried: What is tried beside 0, each in (0, 1).
        parts: Number of parts, at least 2.
        max_videos: Of a class with more, so many are drawn at random and tried on.
        seed: Of the parts, samplers and hosts.
        device: Where samplers, and the built-in host, are trained.
        progress: Show bars; None decides by the terminal.
        **choices: Choices of the recipe to change.

    Returns:
        The p of the largest mean gain, of those that exceed their standard error over
        the parts, which a gain in one part alone never does; else 0. It is 0 too, and
        `failed` says why, where the recipe cannot learn of a part of the videos.

    Raises:
        ValueError: If there are too few videos to leave some out, or a score function
            does not give one finite score a snippet.
    """
    host = train or partial(train_baseline, device=device)
    chosen = choose_for_hosts(
        normal,
        abnormal,
        {"": host},
        recipe=Recipe.named(recipe, **choices),
        tried=tried,
        parts=parts,
        max_videos=max_videos,
        seed=seed,
        device=device,
        progress=progress,
    )
    return chosen[""]


def choose_for_hosts(
    normal: VideoSource,
    abnormal: VideoSource,
    hosts: Mapping[str, Train],
    *,
    recipe: Recipe,
    tried: Sequence[float] = TRIED,
    parts: int = PARTS,
    max_videos: int = MAX_VIDEOS,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> dict[str, Choice]:
    """Choose for several hosts at once, see `choose_p`: samplers are fitted once.

    Args:
        normal: Normal training videos.
        abnormal: Abnormal ones.
        hosts: By any names.
        recipe: Of the sampler.
        tried: As for `choose_p`, and so are the others.
        parts: Number of parts.
        max_videos: Of a class.
        seed: Of the parts, samplers and hosts.
        device: Where samplers are trained.
        progress: Show bars.

    Returns:
        For each host what `choose_p` would choose for it alone.

    Raises:
        ValueError: If there are too few videos to leave some out.
    """
    sets = [
        _some(videos, max_videos, generator=make_generator(seed, 9, label))
        for label, videos in enumerate(as_pair(normal, abnormal))
    ]
    if not 2 <= parts <= min(map(len, sets)):
        raise ValueError(
            f"parts: expected 2 or more, and no more than {len(sets[0])} normal and "
            f"{len(sets[1])} abnormal videos, got {parts}"
        )
    if not tried or not all(0 < p < 1 for p in tried):
        raise ValueError(f"tried: expected values in (0, 1), got {tried}")
    gains: dict[str, dict[float, list[float]]] = {
        name: {p: [] for p in tried} for name in hosts
    }
    failed = ""
    count = parts * (1 + len(tried)) * len(hosts)
    title = f"trying p: {parts} samplers and {count} detectors"
    with progress_bar(parts + count, title, show=progress) as step:
        for part, (kept, left_out) in enumerate(leave_out(sets, parts, seed=seed)):
            try:
                sampler = PseudoVideoSampler.fit(
                    kept[NORMAL],
                    kept[ABNORMAL] if recipe.learns_abnormal else None,
                    recipe=recipe,
                    seed=seed,
                    device=device,
                    progress=progress,
                )
            except (NothingToLearnError, FloatingPointError) as error:
                failed = f"without part {part + 1} of {parts}, {error}"
                break
            step()
            for name, host in hosts.items():
                train = _with_batch(host, fit_batch(*kept))
                alone = separation(train(kept[NORMAL], kept[ABNORMAL], seed), *left_out)
                step()
                for p in tried:
                    mixed = mix_in(kept[NORMAL], kept[ABNORMAL], sampler, p, seed=seed)
                    with_p = separation(train(*mixed, seed), *left_out)
                    gains[name][p].append(with_p - alone)
                    step()
    choices = {
        name: _choose({} if failed else own, failed) for name, own in gains.items()
    }
    for name, choice in choices.items():
        logger.info("%s%s", f"{name}: " if name else "", choice.reason)
    return choices


def fit_batch(normal: Sequence[Any], abnormal: Sequence[Any]) -> int:
    """Return the batch size of hosts: 32 or, if less, the size of the smaller class."""
    return min(MAX_BATCH, len(normal), len(abnormal))


def _with_batch(train: Train, batch_size: int) -> Train:
    """Fix the batch size of a host that has one: more videos are not to change it."""
    if "batch_size" not in inspect.signature(train).parameters:
        return train
    return partial(train, batch_size=batch_size)


def _choose(gains: Mapping[float, Sequence[float]], failed: str) -> Choice:
    """Take the p of the largest mean gain that is clear of its own error, else 0."""
    found = {p: np.array(own) for p, own in gains.items()}
    choice = Choice(0.0, found, failed)
    # A gain in one part alone is its own standard error, up to rounding.
    clear = [
        p
        for p, (gain, error) in choice.summary().items()
        if gain > error and not math.isclose(gain, error)
    ]
    if not clear:
        return choice
    return choice._replace(p=max(clear, key=lambda p: found[p].mean()))


def leave_out(
    sets: Sequence[VideoSet], parts: int, *, seed: int
) -> Iterator[tuple[list[VideoSet], list[VideoSet]]]:
    """Deal the videos of each class into parts, and leave out each part in turn.

    Returns:
        For each part, the videos of the other ones and its own, of each class.
    """
    dealt = [
        deal(len(videos), parts, generator=make_generator(seed, 7, label))
        for label, videos in enumerate(sets)
    ]
    for part in range(parts):
        kept, left_out = (
            [
                own.part([i for i, at in enumerate(numbers) if (at == part) is out])
                for own, numbers in zip(sets, dealt, strict=True)
            ]
            for out in (False, True)
        )
        yield kept, left_out


def settle(
    mixing: Mixing,
    sampler: PseudoVideoSampler,
    normal: VideoSet | None,
    abnormal: VideoSet | None,
) -> tuple[Mixing, Choice | None]:
    """Choose p where it is open; the sampler's recipe is fitted anew on parts.

    Args:
        mixing: What was asked for.
        sampler: That is to be mixed in.
        normal: The host's normal training videos. Where those of a class cannot be had,
            it is tried on what the sampler was fitted on.
        abnormal: Its abnormal ones.

    Returns:
        The same with a number for p, 0 where nothing can be tried, and why; None where
        p was given.
    """
    if not mixing.is_open:
        return mixing, None
    if normal is None or abnormal is None:
        normal, abnormal = sampler.normal, sampler.abnormal
    counts = [0 if videos is None else len(videos) for videos in (normal, abnormal)]
    if normal is not None and abnormal is not None and min(counts) >= PARTS:
        if mixing.p is None:
            logger.warning(
                "trying on the training videos how many pseudo videos to mix in, which "
                "takes about four times as long as the fit did; give p to decide"
            )
        choice = choose_p(
            normal,
            abnormal,
            recipe=sampler.recipe,
            seed=mixing.seed,
            device=sampler.device,
        )
    else:
        lacking = " and ".join(
            f"{count} {CLASS_NAMES[label]} ones" for label, count in enumerate(counts)
        )
        reason = f"it takes {PARTS} videos of each class, and there are {lacking}"
        choice = Choice(0.0, {}, reason)
    if choice.failed or (not choice.p and mixing.p is None):
        logger.warning(
            "no pseudo videos are mixed in%s: %s. Give p to mix them in all the "
            "same, or per_video to append them.",
            "" if choice.failed else ", for they bring no clear gain",
            choice.reason,
        )
    return replace(mixing, p=choice.p), choice


def _some(videos: VideoSet, max_videos: int, *, generator: torch.Generator) -> VideoSet:
    if len(videos) <= max_videos:
        return videos
    order = torch.randperm(len(videos), generator=generator, device="cpu")
    return videos.part(sorted(order[:max_videos].tolist()))


def mix_in(
    normal: VideoSet,
    abnormal: VideoSet,
    sampler: PseudoVideoSampler,
    p: float,
    *,
    seed: int = 0,
) -> tuple[Any, Any]:
    """Add so many pseudo videos to each class that a share p of it is pseudo.

    Of normal videos, the share is that times the recipe's `normal_rate`.
    """
    mixed: list[Any] = []
    for label, videos in enumerate((normal, abnormal)):
        count = count_mixed(len(videos), p * sampler.recipe.rate(label))
        if not count:
            mixed.append(videos)
            continue
        generator = make_generator(seed, 8, label)
        sources = sampler.sources(label)
        more = [  # one by one: a batch would be as long as the longest, padded
            sampler.sample(
                sources.tensor(i), label=label, generator=generator
            ).features.numpy()
            for i in order_sources(len(sources), count, generator=generator)
        ]
        mixed.append(ConcatDataset([videos, more]))  # type: ignore[list-item]
    return mixed[NORMAL], mixed[ABNORMAL]


def count_mixed(num_videos: int, share: float) -> int:
    """Return how many pseudo videos, added to real ones, are a share of them all.

    Example:
        >>> count_mixed(63, 0.5), count_mixed(63, 0.25)
        (63, 21)
    """
    return round(num_videos * share / (1 - share))


def separation(score: Score, normal: VideoSet, abnormal: VideoSet) -> float:
    """Judge a scorer by video labels alone: an AUC of snippets, in [0, 1].

    All snippets of normal videos against the highest fifth of each abnormal video: what
    comes nearest to the frame-level AUC where no frame is labelled.
    """
    negatives = score_videos(score, normal, NORMAL)
    positives = [
        np.sort(scores)[-math.ceil(TOP_SHARE * len(scores)) :]
        for scores in score_videos(score, abnormal, ABNORMAL)
    ]
    scores = np.concatenate([*negatives, *positives])
    labels = np.repeat((0, 1), [sum(map(len, own)) for own in (negatives, positives)])
    return roc_auc(labels, scores)


def train_baseline(
    normal: Any, abnormal: Any, seed: int, *, device: torch.device | str = "cpu"
) -> Score:
    """Train the built-in baseline as a MIL host does: its highest segments count."""
    model = Baseline.fit(
        normal,
        abnormal,
        recipe=Recipe.named("robust"),
        validation_share=0,
        seed=seed,
        device=device,
        progress=False,
    )
    return lambda video: model.score([video])[0]
