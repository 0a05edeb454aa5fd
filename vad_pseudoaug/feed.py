"""Batches to train on: what is drawn for each, and the reading of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .losses import VAELoss
from .processes import Part, Processes
from .randomness import make_generator
from .recipe import Recipe
from .selection import NothingToLearnError, Selection
from .vae import ABNORMAL, NORMAL, MultiTaskVAE
from .videos import VideoSet

VIDEOS_PER_CLASS = 8  # in a mixed batch
READERS = 4  # threads that read for a GPU, a batch each


class Batch(NamedTuple):
    """What a step is made of.

    Attributes:
        features: Own rows, `(M, D)`: of several processes each has some.
        labels: The class of each, `(M,)`, normal ones first.
        noise: `(M, latent)`, their latent noise.
        counts: How many rows of each class all processes have.
        title: Where they are from.
        part: What they are a part of; None in a single process.
    """

    features: Tensor
    labels: Tensor
    noise: Tensor
    counts: tuple[int, int]
    title: str
    part: Part | None

    def loss(self, model: MultiTaskVAE, kl_weight: float = 1.0) -> VAELoss:
        """Compute a model's loss of the batch, where the model lives."""
        weight = model.mean_head.weight
        return model.loss(
            self.features.to(weight, non_blocking=True),
            self.labels,
            noise=self.noise.to(weight, non_blocking=True),
            kl_weight=kl_weight,
            part=self.part,
        )


class _Piece(NamedTuple):
    """Some snippets of one video.

    Attributes:
        label: Class of the video.
        read: Reads the own ones, `(N, M, D)`.
        rows: `(N M,)`, their numbers among all of the piece, crop after crop.
        size: How many rows the piece has in all processes.
    """

    label: int
    read: Callable[[], NDArray[np.float32]]
    rows: NDArray[np.int64]
    size: int


class _Plan(NamedTuple):
    """A batch of which all is drawn and nothing read.

    Attributes:
        pieces: What it takes of each video, normal ones first.
        noise: `(M, latent)`, the latent noise of the own rows.
        title: Where they are from.
        processes: Who shares the batch; None in a single process.
    """

    pieces: Sequence[_Piece]
    noise: Tensor
    title: str
    processes: Processes | None

    def read(self, *, pinned: bool = False) -> Batch:
        """Read the features; pinned, a GPU fetches them without waiting."""
        parts = [torch.from_numpy(own.read()).flatten(0, 1) for own in self.pieces]
        noise = self.noise
        if pinned:
            noise = noise.pin_memory()
            shape = (len(noise), parts[0].shape[1])
            into = torch.empty(shape, dtype=parts[0].dtype, pin_memory=True)
            features = torch.cat(parts, out=into)
        else:
            features = parts[0] if len(parts) == 1 else torch.cat(parts)
        by_piece = [piece.label for piece in self.pieces]
        labels = np.repeat(by_piece, [len(piece.rows) for piece in self.pieces])
        sizes = [piece.size for piece in self.pieces]
        normal, abnormal = np.bincount(by_piece, sizes, 2).tolist()
        counts = (int(normal), int(abnormal))
        part = None if self.processes is None else Part(counts, self.processes)
        return Batch(
            features, torch.from_numpy(labels), noise, counts, self.title, part
        )


class Feed:
    """Gives the batches of an epoch: of one video each, or mixed over videos.

    All that is random in a batch is drawn before any of it is read, so that it can be
    read ahead of its turn. Which videos are held out depends on `seed` and on how many
    there are, and not on the selection: with the same seed none that has trained is
    held out later.
    """

    def __init__(
        self,
        model: MultiTaskVAE,
        normal: VideoSet,
        abnormal: VideoSet | None,
        selection: Selection,
        recipe: Recipe,
        seed: int,
        processes: Processes | None = None,
    ):
        self._latent_dim = model.config.latent_dim
        self._dtype = model.mean_head.weight.dtype
        self._reads_ahead = model.mean_head.weight.is_cuda and all(
            videos.paths is not None for videos in (normal, abnormal or normal)
        )
        self._processes = processes
        self._sets = (normal, normal if abnormal is None else abnormal)
        self._masks, self._weights = selection.masks, selection.weights
        self._recipe = recipe
        chosen = [i for i, mask in enumerate(selection.masks) if mask.any()]
        self._videos: list[list[int]] = []
        self._held_out: list[list[int]] = []
        for label, numbers in ((NORMAL, list(range(len(normal)))), (ABNORMAL, chosen)):
            count = len(self._sets[label])
            generator = make_generator(seed, 6, label)
            order = torch.randperm(count, generator=generator, device="cpu").tolist()
            apart = set(order[: round(count * recipe.validation_share)])
            held_out = [i for i in numbers if i in apart]
            if (
                numbers
                and recipe.validation_share
                and not 0 < len(held_out) < len(numbers)
            ):
                raise NothingToLearnError(
                    f"validation_share={recipe.validation_share}: expected some videos "
                    f"of {len(numbers)} to train and some to validate, in each class"
                )
            self._held_out.append(held_out)
            self._videos.append([i for i in numbers if i not in apart])

    def held_out(self, generator: torch.Generator) -> Iterator[Batch]:
        """Give the held-out videos, each a batch."""
        for label in (NORMAL, ABNORMAL):
            for i in self._held_out[label]:
                yield self._single(label, i, generator).read()

    def __len__(self) -> int:
        if self._recipe.batching == "mixed":
            return self._recipe.steps_per_epoch
        return sum(map(len, self._videos))

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """Give the batches of one epoch, drawn from `generator`.

        For a GPU the next ones are read from their files while one is in use. A
        host's dataset is not: it need not bear threads.
        """
        plans = self._plans(generator)
        if self._reads_ahead:
            return _read_ahead(plans)
        return map(_Plan.read, plans)  # nothing keeps a plan, and a file mapped by it

    def _plans(self, generator: torch.Generator) -> Iterator[_Plan]:
        if self._recipe.batching == "mixed":
            for _ in range(self._recipe.steps_per_epoch):
                yield self._mixed(generator)
            return
        numbered = [
            (label, i) for label in (NORMAL, ABNORMAL) for i in self._videos[label]
        ]
        order = torch.randperm(len(numbered), generator=generator, device="cpu")
        for number in order.tolist():
            label, index = numbered[number]
            yield self._single(label, index, generator)

    def _single(self, label: int, index: int, generator: torch.Generator) -> _Plan:
        piece = self._piece(label, index, self._recipe.max_snippets, generator)
        return self._plan([piece], self._sets[label].title(index), generator)

    def _mixed(self, generator: torch.Generator) -> _Plan:
        """Draw as many snippets of each class, of up to 8 videos of each."""
        pieces: list[_Piece] = []
        for label, videos in enumerate(self._videos):
            if not videos:
                continue
            count = min(len(videos), VIDEOS_PER_CLASS)
            order = torch.randperm(len(videos), generator=generator, device="cpu")
            each = max(1, self._recipe.batch_size // 2 // count)
            for number in order[:count].tolist():
                turn = len(pieces)
                pieces.append(self._piece(label, videos[number], each, generator, turn))
        return self._plan(pieces, "a mixed batch", generator)

    def _plan(
        self, pieces: Sequence[_Piece], title: str, generator: torch.Generator
    ) -> _Plan:
        sizes = [piece.size for piece in pieces]
        noise = torch.randn(
            (sum(sizes), self._latent_dim),
            generator=generator,
            device=generator.device,
            dtype=self._dtype,
        )
        if self._processes is not None:
            starts = np.cumsum([0, *sizes[:-1]])
            rows = [p.rows + start for p, start in zip(pieces, starts, strict=True)]
            noise = noise[torch.from_numpy(np.concatenate(rows))]
        return _Plan(pieces, noise, title, self._processes)

    def _piece(
        self,
        label: int,
        index: int,
        max_snippets: int,
        generator: torch.Generator,
        turn: int = 0,
    ) -> _Piece:
        """Draw snippets of a video, `max_snippets` at most, and keep the own ones.

        Of several processes each takes every n-th snippet; `turn` tells who begins.
        """
        videos = self._sets[label]
        length, read = videos.opened(index)
        drawn = self._draw(label, index, length, max_snippets, generator)
        own = np.arange(len(drawn))
        if self._processes is not None:
            first = (self._processes.rank + turn) % self._processes.count
            own = own[first :: self._processes.count]
        rows = np.arange(videos.num_crops)[:, None] * len(drawn) + own  # (N, M)
        size = videos.num_crops * len(drawn)
        return _Piece(label, partial(read, drawn[own]), rows.ravel(), size)

    def _draw(
        self,
        label: int,
        index: int,
        length: int,
        max_snippets: int,
        generator: torch.Generator,
    ) -> NDArray[np.int64]:
        """Draw which snippets of a video train."""
        numbers: NDArray[np.int64] = np.arange(length)
        if label == ABNORMAL:
            numbers = np.flatnonzero(self._masks[index])
            if self._weights is not None:
                weights = torch.from_numpy(self._weights[index][numbers])
                count = min(len(weights), max_snippets)
                drawn = torch.multinomial(
                    weights, count, replacement=True, generator=generator
                )
                numbers = numbers[drawn.numpy()]
                return numbers
        if len(numbers) > max_snippets:
            order = torch.randperm(len(numbers), generator=generator, device="cpu")
            numbers = numbers[order[:max_snippets].numpy()]
        return numbers


def _read_ahead(plans: Iterator[_Plan]) -> Iterator[Batch]:
    """Give batches for a GPU in their order; threads draw and read the next ones."""

    def draw() -> Future[Batch] | None:
        plan = next(plans, None)
        return None if plan is None else readers.submit(plan.read, pinned=True)

    with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(1) as drawer:
        coming = deque(drawer.submit(draw) for _ in range(READERS + 1))
        while (reading := coming.popleft().result()) is not None:
            coming.append(drawer.submit(draw))
            yield reading.result()
