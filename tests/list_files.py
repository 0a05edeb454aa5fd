"""Videos of both classes as files, with a list file of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAMES = ("normal", "abnormal")


def write_lists(folder: Path, videos: Sequence[Sequence[NDArray[np.float32]]]) -> None:
    """Write normal and abnormal videos `(N, T, D)` as `(T, N, D)`.

    They are `normal0.npy` and so on, in `normal.list`, and likewise `abnormal`.
    """
    for name, group in zip(NAMES, videos, strict=True):
        files = [f"{name}{number}.npy" for number in range(len(group))]
        for file, video in zip(files, group, strict=True):
            np.save(folder / file, video.transpose(1, 0, 2))
        (folder / f"{name}.list").write_text("".join(f"{file}\n" for file in files))


def list_options(folder: Path = Path()) -> list[str]:
    """Return the options of a command that name the lists of a folder."""
    return [
        part for name in NAMES for part in (f"--{name}", str(folder / f"{name}.list"))
    ]
