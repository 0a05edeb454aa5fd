"""A bank of real runs to graft into videos, small enough to travel along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .checkpoint import CheckpointError
from .extras import track
from .items import copied
from .randomness import make_generator
from .selection import runs_of
from .videos import VideoSet

MAX_LENGTH = 32  # snippets of a run
MAX_RUNS = 256  # of a class
MAX_BYTES = 64 * 2**20  # of a class
MAX_ROUNDING = 0.01  # spreads of a feature


class Bank(NamedTuple):
    """Runs of consecutive real snippets of one class, the shorter ones zero-padded.

    Attributes:
        runs: `(R, N, L, D)` float16, or float32 where features are too large, or spread
            too little, for it.
        lengths: `(R,)` int64, true lengths.
    """

    runs: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.runs)

    def take(self, number: int, length: int) -> Tensor:
        """Return run `number`, stretched to `length` snippets: `(N, length, D)`.

        Between its snippets it is interpolated, so that it keeps its course in time.
        """
        run = self.runs[number, :, : int(self.lengths[number])].float()  # (N, L, D)
        if run.shape[1] == length:
            return run
        stretched = functional.interpolate(
            run.transpose(1, 2), size=length, mode="linear", align_corners=True
        )
        return stretched.transpose(1, 2)

    def draw(self, video: Tensor, length: int, generator: torch.Generator) -> Tensor:
        """Take a random run for a video `(N, T, D)`: `(N, length, D)`, like it.

        A video of fewer or more crops than the runs have takes theirs in turn.
        """
        number = torch.randint(
            len(self), (), generator=generator, device=generator.device
        )
        run = self.take(int(number), length)
        crops = torch.arange(len(video), device=run.device) % len(run)
        return run[crops].to(video)

    def spread(self) -> Tensor:
        """Return the standard deviation of each feature over all snippets, `(D,)`."""
        rows = (
            own[:, :length].double().flatten(0, 1)
            for own, length in zip(self.runs, self.lengths.tolist(), strict=True)
        )
        sums = [torch.stack((own.sum(0), own.square().sum(0))) for own in rows]
        count = len(self.runs[0]) * int(self.lengths.sum())
        mean, square = torch.stack(sums).sum(dim=0) / count
        spread: Tensor = (square - mean.square()).clamp(min=0).sqrt().float()
        return spread

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], feature_dim: int) -> Bank:
        """Build a bank from the entries of a checkpoint.

        Raises:
            CheckpointError: If they are no bank of that feature size.
        """
        runs, lengths = tensors.get("runs"), tensors.get("lengths")
        if (
            runs is None
            or lengths is None
            or runs.ndim != 4
            or runs.shape[3] != feature_dim
            or lengths.shape != runs.shape[:1]
            or lengths.dtype != torch.int64
            or not runs.is_floating_point()
            or 0 in runs.shape
            or not 1 <= int(lengths.min()) <= int(lengths.max()) <= runs.shape[2]
            or not bool(runs.isfinite().all())
        ):
            shapes = {k: tuple(v.shape) for k, v in tensors.items()}
            raise CheckpointError(
                f"the checkpoint's bank: expected finite runs (R, N, L, "
                f"{feature_dim}) and their lengths (R,), got {shapes}"
            )
        return cls(runs, lengths)


def build_bank(
    videos: VideoSet,
    masks: Sequence[NDArray[np.bool_]] | None,
    *,
    seed: int,
    progress: bool | None = False,
) -> Bank:
    """Collect the runs of videos, or a random part of them where not all fit.

    Args:
        videos: Of one class.
        masks: For each video `(T,)`, which snippets may be taken; None takes all.
        seed: Of which runs are taken where there are more than fit.
        progress: Show a bar; None decides by the terminal.
    """
    places = [
        (number, start, end)
        for number in range(len(videos))
        for start, end in _runs(videos, masks, number)
    ]
    length = max(end - start for _, start, end in places)
    size = 2 * videos.num_crops * length * videos.feature_dim
    most = max(1, min(MAX_RUNS, MAX_BYTES // size))
    order = torch.randperm(len(places), generator=make_generator(seed, 5), device="cpu")
    taken = sorted(order[:most].tolist())
    shape = (len(taken), videos.num_crops, length, videos.feature_dim)
    runs = torch.zeros(shape, dtype=torch.float32, device="cpu")
    lengths = torch.zeros(len(taken), dtype=torch.int64, device="cpu")
    for row, number in enumerate(track(taken, "runs", show=progress)):
        video, start, end = places[number]
        found = videos.rows(video, slice(start, end))
        runs[row, :, : end - start] = copied(found)
        lengths[row] = end - start
    bank = Bank(runs, lengths)
    half = Bank(runs.half(), lengths)
    return half if _is_as_good(half, bank) else bank


def _is_as_good(half: Bank, bank: Bank) -> bool:
    """Tell whether rounded runs are finite, and err by little of what features vary."""
    if not bool(half.runs.isfinite().all()):
        return False
    count = len(bank.runs[0]) * int(bank.lengths.sum())
    errors = (half.runs - bank.runs).square().sum(dim=(0, 1, 2)) / count
    return bool((errors.sqrt() <= MAX_ROUNDING * bank.spread()).all())


def _runs(
    videos: VideoSet, masks: Sequence[NDArray[np.bool_]] | None, number: int
) -> Iterator[tuple[int, int]]:
    """Give start and end of each run of a video, in parts of at most 32 snippets."""
    if masks is None:
        mask = np.ones(videos.num_snippets(number), dtype=bool)
    else:
        mask = masks[number]
    for start, end in runs_of(mask):
        for first in range(start, end, MAX_LENGTH):
            yield first, min(first + MAX_LENGTH, end)
