"""Pseudo videos by the contract of imbalanced-learn: `fit_resample(X, y)`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .features import Layout, as_float32, to_canonical
from .generation import order_sources
from .randomness import make_generator
from .recipe import Recipe
from .sampler import PseudoVideoSampler
from .vae import ABNORMAL, NORMAL
from .videos import VideoSet

Strategy = str | float | Mapping[int, int]


class PseudoVideoOverSampler:
    """Adds pseudo videos of the rarer class until the classes are balanced.

    It has what scikit-learn asks of a sampler, `get_params`, `set_params` and `clone`,
    and works in the pipelines of imbalanced-learn; neither of them is imported.

    Args:
        sampling_strategy: "auto" makes the classes equal in number; a number in (0, 1]
            is the wished ratio of the rarer class to the other one; `{0: n, 1: m}` is
            how many videos of each class there shall be in all.
        recipe: What a sampler is fitted by, a name or a `Recipe`.
        sampler: A fitted sampler, whose recipe is taken; None fits one on X.
        layout: Order of the axes, "TD", "TND" or "NTD". None takes `(T, D)` and
            `(T, N, D)`, as files have them, and refuses what looks like another order.
        random_state: Seed of everything that is random, an integer >= 0.
        device: Where to fit.

    Attributes:
        sampler_: The sampler that made the pseudo videos.
        sample_indices_: `(V,)`, for each video that was returned, which of X it is or
            was made of.
        pseudo_masks_: For each video added `(T,)` bool, which snippets are generated.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X = [rng.random((8, 4), dtype=np.float32) + i // 6 for i in range(8)]
        >>> small = Recipe.named("one-class", epochs=1, hidden_dims=(8,), latent_dim=2)
        >>> add = PseudoVideoOverSampler(sampling_strategy=0.5, recipe=small)
        >>> X_more, y_more = add.fit_resample(X, [0] * 6 + [1] * 2)
        >>> len(X_more), y_more.tolist()
        (9, [0, 0, 0, 0, 0, 0, 1, 1, 1])
    """

    def __init__(
        self,
        *,
        sampling_strategy: Strategy = "auto",
        recipe: str | Recipe = "robust",
        sampler: PseudoVideoSampler | None = None,
        layout: Layout | None = None,
        random_state: int = 0,
        device: torch.device | str = "cpu",
    ):
        # As they are given: `clone` asks for the very same objects.
        self.sampling_strategy = sampling_strategy
        self.recipe = recipe
        self.sampler = sampler
        self.layout = layout
        self.random_state = random_state
        self.device = device

    def __repr__(self) -> str:
        params = ", ".join(f"{k}={v!r}" for k, v in self.get_params().items())
        return f"{type(self).__name__}({params})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name; `deep` changes nothing, none is nested."""
        names = inspect.signature(type(self).__init__).parameters
        return {name: getattr(self, name) for name in names if name != "self"}

    def set_params(self, **params: Any) -> PseudoVideoOverSampler:
        """Set parameters by name.

        Raises:
            ValueError: If there is no such parameter.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}")
            setattr(self, name, value)
        return self

    def fit_resample(
        self,
        X: Sequence[NDArray[Any]],  # noqa: N803 - as scikit-learn has it
        y: Sequence[int] | NDArray[Any],
    ) -> tuple[list[NDArray[Any]], NDArray[Any]]:
        """Return the videos given and, after them, pseudo videos.

        Args:
            X: Videos, arrays of floating numbers, see `layout`; lengths T may differ.
            y: A label for each, 0 normal or 1 abnormal.

        Returns:
            The videos, the very objects given first, then pseudo videos in the same
            layout and dtype; and their labels, in the dtype of `y`.

        Raises:
            TypeError: If a video is no array of real numbers.
            ValueError: If labels, shapes or parameters are not usable, or a class that
                is to grow has no videos of the other class to be made of.
        """
        labels = np.asarray(y)
        if labels.shape != (len(X),) or not np.isin(labels, (NORMAL, ABNORMAL)).all():
            raise ValueError(
                f"y: expected {len(X)} labels 0 or 1, got shape {labels.shape} of "
                f"{np.unique(labels)[:5].tolist()}"
            )
        videos = [self._canonical(video, number) for number, video in enumerate(X)]
        for number, video in enumerate(videos):
            (num_crops, feature_dim), own = videos[0].shape[::2], video.shape[::2]
            if own != (num_crops, feature_dim):
                raise ValueError(
                    f"X[{number}]: expected {num_crops} crops of size {feature_dim} as "
                    f"X[0] has, got {own[0]} of {own[1]}"
                )
        numbers = [np.flatnonzero(labels == label) for label in (NORMAL, ABNORMAL)]
        wanted = self._count(*map(len, numbers))
        sampler = (
            self.sampler if self.sampler is not None else self._fit(videos, numbers)
        )
        added: list[NDArray[Any]] = []
        indices = [np.arange(len(X))]
        masks: list[NDArray[np.bool_]] = []
        for label, count in enumerate(wanted):
            generator = make_generator(self.random_state, 11, label)
            others = numbers[1 - label]
            if not count:
                continue
            if not len(others):
                raise ValueError(
                    f"class {label}: pseudo videos are made of videos of class "
                    f"{1 - label}, got none"
                )
            chosen = others[order_sources(len(others), count, generator=generator)]
            for number in chosen.tolist():
                pseudo = sampler.sample(
                    torch.from_numpy(videos[number].copy()),
                    label=label,
                    generator=generator,
                )
                added.append(self._as_given(pseudo.features.numpy(), X[number]))
                masks.append(pseudo.pseudo_mask.numpy())
            indices.append(chosen)
        self.sampler_ = sampler
        self.sample_indices_ = np.concatenate(indices)
        self.pseudo_masks_ = masks
        made = np.repeat([NORMAL, ABNORMAL], wanted).astype(labels.dtype)
        return [*X, *added], np.concatenate([labels, made])

    def _canonical(self, video: Any, number: int) -> NDArray[np.float32]:
        """View a video as `(N, T, D)`."""
        name = f"X[{number}]"
        if not isinstance(video, np.ndarray):
            raise TypeError(f"{name}: expected an array, got {type(video).__name__}")
        canonical = to_canonical(video, layout=self.layout, default="TND", name=name)
        return as_float32(canonical, name=name)

    def _as_given(
        self, features: NDArray[np.float32], like: NDArray[Any]
    ) -> NDArray[Any]:
        """Bring `(N, T, D)` to the layout and dtype of a video that was given."""
        if like.ndim == 2:
            features = features[0]
        elif self.layout != "NTD":
            features = features.transpose(1, 0, 2)
        kept = like.dtype if like.dtype.kind == "f" else np.float32
        return np.ascontiguousarray(features, dtype=kept)

    def _count(self, *counts: int) -> tuple[int, int]:
        """Return how many videos of each class are to be added."""
        how = self.sampling_strategy
        if isinstance(how, Mapping):
            wanted = [how.get(label, counts[label]) for label in (NORMAL, ABNORMAL)]
            if set(how) - {NORMAL, ABNORMAL} or any(
                new < old for new, old in zip(wanted, counts, strict=True)
            ):
                raise ValueError(
                    f"sampling_strategy: expected for the classes 0 and 1 at least "
                    f"the {counts[0]} and {counts[1]} videos that there are, got {how}"
                )
            return wanted[0] - counts[0], wanted[1] - counts[1]
        ratio = 1.0 if how == "auto" else how
        if not isinstance(ratio, int | float) or not 0 < ratio <= 1:
            raise ValueError(
                "sampling_strategy: expected 'auto', a ratio in (0, 1] or a number of "
                f"videos for each class, got {how!r}"
            )
        rare = int(counts[ABNORMAL] <= counts[NORMAL])
        # Not 21 of 0.7 * 30 = 21.000000000000004 videos and one more.
        goal = math.ceil(ratio * counts[1 - rare] - 1e-9)
        missing = max(0, goal - counts[rare])
        return (0, missing) if rare == ABNORMAL else (missing, 0)

    def _fit(
        self, videos: Sequence[NDArray[np.float32]], numbers: Sequence[NDArray[Any]]
    ) -> PseudoVideoSampler:
        normal, abnormal = (
            VideoSet([videos[i] for i in own], layout="NTD", name=name)
            if len(own)
            else None
            for own, name in zip(numbers, ("normal", "abnormal"), strict=True)
        )
        if normal is None:
            raise ValueError("X: expected at least one video of class 0, got none")
        recipe = Recipe.named(self.recipe)
        if not recipe.learns_abnormal:
            abnormal = None
        return PseudoVideoSampler.fit(
            normal,
            abnormal,
            recipe=recipe,
            seed=self.random_state,
            device=self.device,
            progress=False,
        )
