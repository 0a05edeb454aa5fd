"""The paper's baseline: snippet scores learned from video labels (section 3.1)."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .checkpoint import CheckpointError
from .extras import progress_bar, track
from .pooling import release
from .randomness import make_generator, seeded_linear
from .recipe import Recipe
from .selection import NothingToLearnError
from .videos import VideoSet, VideoSource, as_pair

# What a host's training gives: from features (N, T, D) to a score a snippet, (T,).
Score: TypeAlias = Callable[[NDArray[np.float32]], NDArray[Any]]

SNIPPET_FRAMES = 16
# Pooled features of more bytes lie in a file in the folder for temporary ones.
MAX_BYTES_IN_MEMORY = 512 << 20


class Split(NamedTuple):
    """Which videos train and which validate, by their numbers in each class."""

    train_normal: list[int]
    train_abnormal: list[int]
    validation_normal: list[int]
    validation_abnormal: list[int]


def stratified_split(
    num_normal: int, num_abnormal: int, *, share: float = 0.2, seed: int = 0
) -> Split:
    """Draw a validation set separately from normal and abnormal videos (section 4.1).

    Args:
        num_normal: Number of normal videos.
        num_abnormal: Number of abnormal videos, 0 where none are there.
        share: Share of each class that validates, rounded; the paper takes 1/5.
        seed: Seed of the draw.

    Raises:
        ValueError: If a class would keep no training video.

    Example:
        >>> [len(part) for part in stratified_split(175, 63)]
        [140, 50, 35, 13]
    """
    parts = []
    for stream, num_videos in enumerate((num_normal, num_abnormal)):
        num_validation = round(num_videos * share)
        if num_videos and not 0 <= num_validation < num_videos:
            raise ValueError(
                f"share={share} leaves no training video of {num_videos} in a class"
            )
        order = torch.randperm(
            num_videos, generator=make_generator(seed, stream), device="cpu"
        ).tolist()
        parts.append((sorted(order[num_validation:]), sorted(order[:num_validation])))
    (train_n, val_n), (train_a, val_a) = parts
    return Split(train_n, train_a, val_n, val_a)


def video_loss(video_scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of video scores against video labels (equation 1).

    Args:
        video_scores: `(B,)` in [0, 1]: the mean score of each video's snippets.
        labels: `(B,)`, 0 normal, 1 abnormal.

    Returns:
        A scalar, the mean over the batch.
    """
    return functional.binary_cross_entropy(video_scores, labels)


def to_frames(
    scores: NDArray[np.floating], num_frames: int | None = None
) -> NDArray[np.floating]:
    """Give each of a snippet's 16 frames the snippet's score (section 3.1).

    Args:
        scores: `(T,)`, one a snippet.
        num_frames: True number of frames F; None takes 16 T. A tail that no snippet
            covers gets the last score; frames past F are cut.

    Returns:
        `(F,)`, one a frame.
    """
    frames = np.repeat(scores, SNIPPET_FRAMES)
    if num_frames is None:
        return frames
    missing = num_frames - len(frames)
    return np.pad(frames[:num_frames], (0, max(missing, 0)), mode="edge")


class Baseline(nn.Module):
    """MLP and sigmoid on every snippet; a video's score is its snippets' mean.

    Args:
        feature_dim: Feature size D.
        hidden_dims: Widths of the hidden layers, each followed by a ReLU. The paper
            does not tell them.
        top: Number of segments, the highest ones, whose mean score is the video's;
            None takes all, as the paper does. A few let the others be normal.
        dropout: Dropout of the hidden layers.
        mean_crops: Whether training and scores take the mean of a snippet's crops.
        seed: Seed of the initial weights.
        device: Where the weights live.
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        hidden_dims: tuple[int, ...] = Recipe.baseline_hidden_dims,
        top: int | None = None,
        dropout: float = 0.0,
        mean_crops: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        super().__init__()
        generator = make_generator(seed, 0)
        layers: list[nn.Module] = []
        width = feature_dim
        for hidden in hidden_dims:
            layers += [seeded_linear(width, hidden, generator), nn.ReLU()]
            width = hidden
        self.top, self.dropout, self.mean_crops = top, dropout, mean_crops
        output = seeded_linear(width, 1, generator)
        self.mlp = nn.Sequential(*layers, output)
        self.feature_dim = feature_dim
        self.history: list[dict[str, float]] = []
        self.to(device=device)

    def forward(self, features: Tensor) -> Tensor:
        """Score snippets: `(..., D)` to `(...)` in [0, 1]."""
        return torch.sigmoid(self.mlp(features).squeeze(-1))

    def score_crops(self, features: Tensor, *, dim: int) -> Tensor:
        """Score snippets of several crops, which lie along one axis.

        Args:
            features: `(..., D)`, such as `(N, T, D)`.
            dim: The axis of the crops, counted from the front.

        Returns:
            The scores, without that axis: the mean over the crops, or that of their
            mean, as it was trained.
        """
        seen = features.mean(dim=dim, keepdim=True) if self.mean_crops else features
        return self(seen).mean(dim=dim)  # type: ignore[no-any-return]

    def video_score(self, features: Tensor) -> Tensor:
        """Score videos: `(B, N, T, D)` to `(B,)`, the mean over crops and snippets.

        With `top`, only the highest snippets count.
        """
        return self._pool(self(features))

    def _pool(self, scores: Tensor) -> Tensor:
        if self.top is None:
            return scores.mean(dim=(1, 2))
        by_snippet = scores.mean(dim=1)  # (B, T)
        return by_snippet.topk(min(self.top, scores.shape[2])).values.mean(dim=1)

    def _training_score(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """Score videos with dropout drawn from a generator of our own."""
        hidden = features
        for layer in self.mlp:
            hidden = layer(hidden)
            if self.dropout and isinstance(layer, nn.ReLU):
                keep = torch.rand(
                    hidden.shape, generator=generator, device=generator.device
                )
                kept = (keep >= self.dropout).to(hidden) / (1 - self.dropout)
                hidden = hidden * kept
        return self._pool(torch.sigmoid(hidden.squeeze(-1)))

    @torch.no_grad()
    def score(
        self, videos: VideoSource, *, progress: bool | None = False
    ) -> list[NDArray[np.float32]]:
        """Score every snippet of every video: for each an array `(T,)` in [0, 1].

        The score of a snippet is the mean over its crops, or that of their mean.

        Args:
            videos: See `VideoSet`.
            progress: Show a bar; None decides by the terminal.
        """
        videos = VideoSet(videos)
        device = next(self.parameters()).device
        scores = []
        for index in track(range(len(videos)), "scores", show=progress):
            parts = [
                self(torch.from_numpy(self._seen(block)).to(device))
                for _, block in videos.blocks(index)
            ]
            scores.append(torch.cat(parts, dim=1).mean(dim=0).cpu().numpy())
        return scores

    def _seen(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what is scored of snippets `(N, T, D)`."""
        if self.mean_crops:
            return mean_of_crops(block)
        return np.array(block, order="C")

    @classmethod
    def from_tensors(
        cls,
        tensors: Mapping[str, Tensor],
        feature_dim: int,
        *,
        mean_crops: bool = False,
    ) -> Baseline:
        """Build a trained baseline from the entries of a checkpoint.

        How many segments count and what is dropped out concerns training alone.

        Args:
            tensors: The weights.
            feature_dim: Feature size D.
            mean_crops: Whether it was trained on the mean of a snippet's crops.

        Raises:
            CheckpointError: If they are no weights of a baseline for that feature size.
        """
        count = sum(name.endswith(".weight") for name in tensors)
        try:
            # Widths of tensors that are there: no more memory than they take.
            widths = [len(tensors[f"mlp.{2 * i}.weight"]) for i in range(count - 1)]
            if not all(widths):
                raise ValueError(f"widths {widths}")
            model = cls(feature_dim, hidden_dims=tuple(widths), mean_crops=mean_crops)
            model.load_state_dict(dict(tensors))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint's scorer fits no feature size {feature_dim}: {error}"
            ) from error
        return model.eval()

    @classmethod
    def fit(
        cls,
        normal: VideoSource,
        abnormal: VideoSource,
        *,
        recipe: Recipe | None = None,
        validation_share: float = 0.2,
        seed: int = 0,
        device: torch.device | str = "cpu",
        progress: bool | None = None,
        watch: Callable[[Baseline], None] | None = None,
    ) -> Baseline:
        """Train with Adam on videos of S segments each (sections 3.1 and 4.1).

        Args:
            normal: Normal videos, see `VideoSet`.
            abnormal: Abnormal videos.
            recipe: Where epochs, rates and sizes come from; None is the paper's.
            validation_share: Share of each class set apart to choose configurations
                by; 0 trains on all. The last epoch's weights are kept either way.
            seed: Seed of the split, the initial weights and the order of videos.
            device: Where to train.
            progress: Show a bar; None decides by the terminal.
            watch: Called with the model after each tenth of the epochs.

        Returns:
            The trained model. `history` has one entry an epoch: `loss` and, with a
            validation set, `validation_loss`.

        Raises:
            ValueError: If the videos do not fit together.
        """
        recipe = recipe or Recipe.named("paper")
        normal, abnormal = as_pair(normal, abnormal)
        split = stratified_split(
            len(normal), len(abnormal), share=validation_share, seed=seed
        )
        return cls._fit(
            _pool(normal, abnormal, recipe, progress),
            split,
            recipe=recipe,
            seed=seed,
            device=device,
            progress=progress,
            watch=watch,
        )

    @classmethod
    def _fit(
        cls,
        pooled: _Pooled,
        split: Split,
        *,
        recipe: Recipe,
        seed: int,
        device: torch.device | str,
        progress: bool | None,
        watch: Callable[[Baseline], None] | None = None,
        title: str = "baseline",
    ) -> Baseline:
        """Train on a part of pooled videos, with arguments as of `fit`."""
        training = pooled.rows(split.train_normal, split.train_abnormal)
        held_out = pooled.rows(split.validation_normal, split.validation_abnormal)
        features, labels = torch.from_numpy(pooled.features), pooled.labels[training]
        judged = features[held_out].to(device)
        model = cls(
            features.shape[-1],
            hidden_dims=recipe.baseline_hidden_dims,
            top=recipe.baseline_top if recipe.baseline_pooling == "top" else None,
            dropout=recipe.baseline_dropout,
            mean_crops=recipe.baseline_crops == "mean",
            seed=seed,
            device=device,
        )
        optimiser = torch.optim.Adam(model.parameters(), lr=recipe.baseline_lr)
        tenth = max(1, recipe.baseline_epochs // 10)
        with progress_bar(recipe.baseline_epochs, title, show=progress) as step:
            for epoch in range(recipe.baseline_epochs):
                generator = make_generator(seed, 1, epoch)
                order = torch.randperm(len(training), generator=generator, device="cpu")
                total = 0.0
                for batch in order.split(recipe.baseline_batch_size):
                    own = features[training[batch]].to(device)
                    release(pooled.features)
                    scores = model._training_score(own, generator)
                    loss = video_loss(scores, labels[batch].to(device))
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()
                    optimiser.step()
                    total += loss.item() * len(batch)
                entry = {"loss": total / len(training)}
                if len(held_out):
                    with torch.no_grad():
                        scores = model.video_score(judged)
                        loss = video_loss(scores, pooled.labels[held_out].to(device))
                    entry["validation_loss"] = loss.item()
                model.history.append(entry)
                step(**entry)
                if watch is not None and (epoch + 1) % tenth == 0:
                    watch(model)
        return model.eval()


def cross_scores(
    normal: VideoSource,
    abnormal: VideoSource,
    *,
    recipe: Recipe,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
    """Score every video by a baseline that was not trained on it.

    Each class is dealt into `recipe.folds` parts, fewer where it has fewer videos.

    Args:
        normal: Normal videos.
        abnormal: Abnormal videos.
        recipe: Of the baseline.
        seed: Seed of the parts and the baselines.
        device: Where to train.
        progress: Show bars; None decides by the terminal.

    Returns:
        For each normal and each abnormal video its scores `(T,)`.

    Raises:
        NothingToLearnError: If a class has one video alone.
    """
    sets = as_pair(normal, abnormal)
    folds = min(recipe.folds, *map(len, sets))
    if folds < 2:
        raise NothingToLearnError(
            f"cross-fitting needs two or more videos of each class and folds, got "
            f"{len(sets[0])} and {len(sets[1])} videos and {recipe.folds} folds"
        )
    part = [
        deal(len(videos), folds, generator=make_generator(seed, 2, stream))
        for stream, videos in enumerate(sets)
    ]
    pooled = _pool(*sets, recipe, progress)
    scores: tuple[dict[int, NDArray[np.float32]], ...] = ({}, {})
    for fold in range(folds):
        rest = [[i for i, own in enumerate(parts) if own != fold] for parts in part]
        model = Baseline._fit(
            pooled,
            Split(rest[0], rest[1], [], []),
            recipe=recipe,
            seed=seed,
            device=device,
            progress=progress,
            title=f"baseline {fold + 1} of {folds}",
        )
        for videos, parts, found in zip(sets, part, scores, strict=True):
            for i, own in enumerate(parts):
                if own == fold:
                    [found[i]] = model.score([videos[i]])
    in_order = [[found[i] for i in sorted(found)] for found in scores]
    return in_order[0], in_order[1]


def deal(count: int, folds: int, *, generator: torch.Generator) -> list[int]:
    """Deal videos into parts of equal size: the part of each."""
    order = torch.randperm(count, generator=generator, device="cpu")
    parts: list[int] = (order.argsort() % folds).tolist()
    return parts


class _Pooled(NamedTuple):
    """Videos of S segments each, the normal ones first.

    Attributes:
        features: `(V, N, S, D)`; N is 1 where the mean of the crops is taken.
        labels: `(V,)` float32, 0 normal, 1 abnormal.
    """

    features: NDArray[np.float32]
    labels: Tensor

    def rows(self, normal: list[int], abnormal: list[int]) -> Tensor:
        """Return where videos are, given by their numbers in each class."""
        num_normal = int((self.labels == 0).sum())
        rows = [*normal, *(num_normal + number for number in abnormal)]
        return torch.tensor(rows, dtype=torch.int64, device="cpu")


def _pool(
    normal: VideoSet, abnormal: VideoSet, recipe: Recipe, progress: bool | None
) -> _Pooled:
    """Interpolate all videos to the recipe's number of segments."""
    mean_crops = recipe.baseline_crops == "mean"
    num_crops = 1 if mean_crops else normal.num_crops
    videos = [(own, number) for own in (normal, abnormal) for number in range(len(own))]
    pooled = _room((len(videos), num_crops, recipe.num_segments, normal.feature_dim))
    rows = track(videos, "segments", show=progress)
    for row, (own, number) in enumerate(rows):
        segments = own.segments(number, recipe.num_segments, method="linear")
        pooled[row] = mean_of_crops(segments) if mean_crops else segments
        release(pooled)
    labels = torch.zeros(len(videos), dtype=torch.float32, device="cpu")
    labels[len(normal) :] = 1
    return _Pooled(pooled, labels)


def mean_of_crops(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the crops, `(N, T, D)` to `(1, T, D)`."""
    mean: NDArray[np.float32] = features.mean(axis=0, keepdims=True, dtype=np.float32)
    return mean


def _room(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Make room for features: in memory, or, for many, in a file that has no name."""
    if 4 * math.prod(shape) <= MAX_BYTES_IN_MEMORY:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:  # the map keeps what it holds
        return np.memmap(file, np.float32, "w+", shape=shape)
