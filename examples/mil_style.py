"""A stand-in for hosts of the MIL family: a ranking loop in the way of Sultani et al.

Two loaders of bare segments, `(T, D)` and a label; the best segment of an abnormal
video shall score higher than the best one of a normal video; smoothness and sparsity
of the scores. Our own code, written to the contract that such codebases share.

    python examples/mil_style.py            # without pseudo videos
    python examples/mil_style.py --pseudo   # with them: three lines more
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from vad_pseudoaug import PseudoVideoSampler, VideoSet, to_segments

NUM_SEGMENTS = 32


class SegmentDataset(Dataset[Any]):
    """Videos of one class: item = features `(T, D)`, label."""

    def __init__(self, videos: Any, label: float):
        self.features = [
            to_segments(video, NUM_SEGMENTS)[0] for video in VideoSet(videos)
        ]
        self.label = label

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[Tensor, float]:
        return torch.from_numpy(self.features[index]), self.label


class Scorer(nn.Module):
    """Three layers and a sigmoid on every segment: `(..., D)` to `(...)`."""

    def __init__(self, feature_dim: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(feature_dim, 256),
            nn.ReLU(),
            nn.Dropout(0.6),
            nn.Linear(256, 32),
            nn.Dropout(0.6),
            nn.Linear(32, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Score segments."""
        return torch.sigmoid(self.layers(features).squeeze(-1))


def ranking_loss(normal: Tensor, abnormal: Tensor) -> Tensor:
    """Hinge between the best segments of the two halves: scores `(B, T)` each."""
    gap = abnormal.max(dim=1).values[:, None] - normal.max(dim=1).values[None]
    rough = (abnormal[:, 1:] - abnormal[:, :-1]).square().sum(dim=1).mean()
    return torch.relu(1 - gap).mean() + 8e-5 * (rough + abnormal.sum(dim=1).mean())


def train(
    normal: Any,
    abnormal: Any,
    *,
    sampler: PseudoVideoSampler | None = None,
    seed: int = 0,
    epochs: int = 60,
    p: float = 0.5,
    watch: Callable[[Scorer], None] | None = None,
) -> Scorer:
    """Train the host; with a sampler, some videos of each batch are pseudo videos.

    `watch` is called with the model after each tenth of the epochs.
    """
    torch.manual_seed(seed)
    normal_dataset = SegmentDataset(normal, 0.0)
    abnormal_dataset = SegmentDataset(abnormal, 1.0)
    normal_loader = DataLoader(normal_dataset, batch_size=16, shuffle=True)
    abnormal_loader = DataLoader(abnormal_dataset, batch_size=16, shuffle=True)
    model = Scorer(normal_dataset.features[0].shape[-1])
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)

    if sampler is not None:
        from vad_pseudoaug.adapters import mil

        mil.attach(normal_loader, abnormal_loader, sampler, p=p, seed=seed)

    for epoch in range(1, epochs + 1):
        for (normal_batch, _), (abnormal_batch, _) in zip(
            normal_loader, abnormal_loader, strict=False
        ):
            loss = ranking_loss(model(normal_batch), model(abnormal_batch))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        if watch is not None and epoch % max(1, epochs // 10) == 0:
            watch(model)
    return model.eval()


@torch.no_grad()
def score(model: Scorer, features: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Score every snippet of a video `(N, T, D)`: `(T,)`, the mean over its crops."""
    scores: np.ndarray[Any, Any] = (
        model(torch.from_numpy(features.copy())).mean(dim=0).numpy()
    )
    return scores


if __name__ == "__main__":
    from vad_pseudoaug.examples import run_on_ped2

    run_on_ped2(train, score)
