"""Our own stand-ins for hosts, each with the contract of a family of codebases."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

FEATURE_DIM = 12


class RtfmDataset:
    """Items as RTFM's: features `(N, T, 12)` numpy float32, 0-d float tensor."""

    def __init__(self, num_videos: int, label: float, *, num_crops=2, length=6):
        rng = np.random.default_rng([num_videos, int(label)])
        shape = (num_videos, num_crops, length, FEATURE_DIM)
        self.features = rng.random(shape, dtype=np.float32)
        self.label = label
        self.test_mode = False
        self.list = [f"video_{i}.npy\n" for i in range(num_videos)]

    def get_num_frames(self) -> int:
        return 16 * self.features.shape[2]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.features[index], torch.tensor(self.label)
