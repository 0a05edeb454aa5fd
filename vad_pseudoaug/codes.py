"""Posterior codes of snippets, encoded once and kept in a file."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .filling import disk_folder


class Codes(NamedTuple):
    """What the encoder makes of snippets: `z ~ N(mean, exp(log_var))`, equation 1.

    Attributes:
        mean: `(..., latent)`.
        log_var: `(..., latent)`, the logarithm of the variance.
    """

    mean: Tensor
    log_var: Tensor


class KeptCodes:
    """The codes of all videos of a set, in half precision in a file without a name.

    It is gone when this object is. A video's codes are read when asked for, and no
    others. They take `4 * latent` bytes for each crop of each snippet: for 256 latent
    units an eighth of 2,048 float32 features.

    Args:
        videos: The codes of each video, in parts `(N, t, latent)`.

    Raises:
        ValueError: If a code is too large for half precision.
    """

    def __init__(self, videos: Iterable[Iterable[Codes]]):
        self._file = tempfile.TemporaryFile(dir=disk_folder())  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._shapes: list[tuple[int, int, int, int]] = []  # (T, N, 2, latent)
        self._starts = [0]  # in bytes
        for number, parts in enumerate(videos):
            length = 0
            for part in parts:
                codes = torch.stack(part, dim=2).transpose(0, 1)  # (t, N, 2, latent)
                halves = codes.to(device="cpu", dtype=torch.float16)
                if not halves.isfinite().all():
                    raise ValueError(
                        f"video {number}: its codes are beyond half precision, up to "
                        f"{codes.abs().max().item():.3g}; are its features of the size "
                        "that the model was fitted on?"
                    )
                self._file.write(halves.numpy().tobytes())
                length, shape = length + len(codes), codes.shape[1:]
            self._shapes.append((length, *shape))
            self._starts.append(self._file.tell())
        self._file.flush()

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self._starts[-1]

    def read(self, number: int) -> Codes:
        """Return the codes of a video, float16 `(N, T, latent)`."""
        start, end = self._starts[number : number + 2]
        data = bytearray(os.pread(self._file.fileno(), end - start, start))
        flat = torch.frombuffer(data, dtype=torch.float16)
        codes = flat.view(self._shapes[number]).transpose(0, 1)
        return Codes(codes[:, :, 0], codes[:, :, 1])

    def batch(self, numbers: Sequence[int], num_snippets: int) -> Codes:
        """Return the codes of some videos, float16 `(B, N, T, latent)`, zero-padded."""
        _, num_crops, _, latent_dim = self._shapes[0]
        shape = (len(numbers), num_crops, num_snippets, latent_dim)
        options: dict[str, Any] = {"dtype": torch.float16, "device": "cpu"}
        batch = Codes(*(torch.zeros(shape, **options) for _ in range(2)))
        for row, number in enumerate(numbers):
            for padded, own in zip(batch, self.read(number), strict=True):
                padded[row, :, : own.shape[1]] = own
        return batch
