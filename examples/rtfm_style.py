"""A stand-in for RTFM: twin loaders, batches of B + B, top-k segments by magnitude.

Our own code, written to RTFM's contract: items `(features (N, 32, D), label)`, normals
first, B baked into the model, loaders restarted each by its own length.

    python examples/rtfm_style.py            # without pseudo videos
    python examples/rtfm_style.py --pseudo   # with them: three lines more
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from vad_pseudoaug import PseudoVideoSampler, VideoSet, to_segments

NUM_SEGMENTS = 32
TOP_K = 3


class SegmentDataset(Dataset[Any]):
    """Videos of one class: item = features `(N, 32, D)` numpy, 0-d label tensor."""

    def __init__(self, videos: Any, *, is_normal: bool, test_mode: bool = False):
        self.features = [to_segments(video, NUM_SEGMENTS) for video in VideoSet(videos)]
        self.is_normal = is_normal
        self.test_mode = test_mode

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], Tensor]:
        label = torch.tensor(0.0 if self.is_normal else 1.0)
        return self.features[index], label


class Model(nn.Module):
    """A temporal convolution for context, then a score for each segment.

    Of each half of a batch, normals first, the segments with the largest feature
    magnitude speak for the video.
    """

    def __init__(self, feature_dim: int, batch_size: int):
        super().__init__()
        self.batch_size = batch_size
        self.context = nn.Conv1d(feature_dim, 128, kernel_size=3, padding=1)
        self.embed = nn.Linear(feature_dim, 128)
        self.classify = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 1)
        )

    def segments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Embed and score: `(M, T, D)` to features `(M, T, 128)`, scores `(M, T)`."""
        context = self.context(features.transpose(1, 2)).transpose(1, 2)
        hidden = functional.relu(context + self.embed(features))
        return hidden, torch.sigmoid(self.classify(hidden).squeeze(-1))

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Score videos: `(2B, N, T, D)` to scores `(2B,)`, magnitudes `(2B,)`."""
        num_videos, num_crops = batch.shape[:2]
        if num_videos != 2 * self.batch_size:
            raise ValueError(f"expected {2 * self.batch_size} videos, got {num_videos}")
        hidden, scores = self.segments(batch.flatten(0, 1))  # (2B * N, T, 128)
        hidden = hidden.unflatten(0, (num_videos, num_crops)).mean(dim=1)
        scores = scores.unflatten(0, (num_videos, num_crops)).mean(dim=1)  # (2B, T)
        magnitude, top = hidden.norm(dim=2).topk(TOP_K, dim=1)
        return scores.gather(1, top).mean(dim=1), magnitude.mean(dim=1)


def train(
    normal: Any,
    abnormal: Any,
    *,
    sampler: PseudoVideoSampler | None = None,
    seed: int = 0,
    steps: int = 200,
    batch_size: int = 4,
    p: float = 0.5,
    watch: Callable[[Model], None] | None = None,
) -> Model:
    """Train the host; with a sampler, some videos of each batch are pseudo videos.

    `watch` is called with the model after each tenth of the steps.
    """
    torch.manual_seed(seed)
    normal_dataset = SegmentDataset(normal, is_normal=True)
    abnormal_dataset = SegmentDataset(abnormal, is_normal=False)
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "shuffle": True,
        "drop_last": True,
    }
    normal_loader = DataLoader(normal_dataset, **options)
    abnormal_loader = DataLoader(abnormal_dataset, **options)
    model = Model(normal_dataset[0][0].shape[-1], batch_size)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-3)

    if sampler is not None:
        from vad_pseudoaug.adapters import rtfm

        rtfm.attach(normal_loader, abnormal_loader, sampler, p=p, seed=seed)

    for step in range(1, steps + 1):
        if (step - 1) % len(normal_loader) == 0:
            normal_batches = iter(normal_loader)
        if (step - 1) % len(abnormal_loader) == 0:
            abnormal_batches = iter(abnormal_loader)
        normal_features, normal_labels = next(normal_batches)
        abnormal_features, abnormal_labels = next(abnormal_batches)
        labels = torch.cat((normal_labels, abnormal_labels))
        scores, magnitudes = model(torch.cat((normal_features, abnormal_features)))
        low, high = magnitudes.split(batch_size)
        separation = ((100 - high).abs() + low).square().mean()
        loss = functional.binary_cross_entropy(scores, labels) + 1e-4 * separation
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if watch is not None and step % max(1, steps // 10) == 0:
            watch(model)
    return model.eval()


@torch.no_grad()
def score(model: Model, features: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Score every snippet of a video `(N, T, D)`: `(T,)`, the mean over its crops."""
    _, scores = model.segments(torch.from_numpy(features.copy()))
    mean: np.ndarray[Any, Any] = scores.mean(dim=0).numpy()
    return mean


if __name__ == "__main__":
    from vad_pseudoaug.examples import run_on_ped2

    run_on_ped2(train, score)
