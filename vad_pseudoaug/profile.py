"""What real features look like, measured once on the training videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .checkpoint import CheckpointError
from .extras import track
from .items import ends_in_norm
from .selection import Selection
from .vae import MultiTaskVAE
from .videos import VideoSet, spread_out

QUANTILES = np.linspace(0, 1, 101)
MAX_NORMS = 1000  # of a video: bounds memory on sets of long videos
MAX_HEAD = 4096  # snippets of a video whose codes are correlated
Table = tuple[float, ...]
_COUNTS = ((0, 0), (2, 0), (2, 2))  # tables of real and of generated norms


@dataclass(frozen=True)
class FeatureProfile:
    """What generated features are held to.

    Attributes:
        non_negative: Whether no training feature is below 0, as of I3D.
        unit_norm: Whether all training snippets have L2 norm 1, as some hosts' do.
        correlation: Of the latent means of a snippet and the next one, within a video.
        real_norms: For each class, normal first, 101 quantiles of the L2 norms of its
            training snippets (of abnormal videos the selected ones); () is unknown,
            as of abnormal ones where there were none.
        generated_norms: The same of generated snippets, before they are matched.
        suspicious: Baseline score above which a snippet of an abnormal video may be
            abnormal.
        norm_channel: Whether the last feature is the L2 norm of the others, as MGFN
            appends it.
    """

    non_negative: bool = False
    unit_norm: bool = False
    correlation: float = 0.0
    real_norms: tuple[Table, ...] = ()
    generated_norms: tuple[Table, ...] = ()
    suspicious: float = 0.5
    norm_channel: bool = False

    def match_norms(self, rows: Tensor, label: int) -> Tensor:
        """Scale generated snippets so that their norms spread as real ones do.

        The quantile map of norms: the median generated norm becomes the median real
        one, and so on. Directions are kept. Where a class is unknown, nothing changes.

        Args:
            rows: `(M, D)`, generated.
            label: The class that they claim.
        """
        if not self.generated_norms[label] or not self.real_norms[label]:
            return rows
        norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
        wanted = np.interp(
            norms.detach().cpu().double().numpy(),
            np.maximum.accumulate(self.generated_norms[label]),
            self.real_norms[label],
        )
        scale = torch.from_numpy(wanted).to(norms) / norms.clamp(min=1e-12)
        scaled: Tensor = rows * scale[:, None]
        return scaled

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> FeatureProfile:
        """Build a profile from the entry of a checkpoint.

        Raises:
            CheckpointError: If the entry is no profile.
        """
        try:
            tables = {
                name: tuple(tuple(map(float, table)) for table in saved[name])
                for name in ("real_norms", "generated_norms")
            }
            found = cls(**{**saved, **tables})
            sizes = {len(table) for own in tables.values() for table in own}
            real, made = map(len, tables.values())
            if not sizes <= {0, len(QUANTILES)} or (real, made) not in _COUNTS:
                raise ValueError(f"tables of {sorted(sizes)} values")
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"the checkpoint's 'profile': {error}") from error
        return found


def measure_profile(
    vae: MultiTaskVAE,
    normal: VideoSet,
    abnormal: VideoSet | None,
    selection: Selection,
    *,
    progress: bool | None = False,
) -> FeatureProfile:
    """Measure the training videos, in one pass over each."""
    non_negative = unit_norm = norm_channel = True
    real_norms: list[Table] = []
    correlations: list[float] = []
    for videos, masks in ((normal, None), (abnormal, selection.masks)):
        if videos is None:
            real_norms.append(())
            continue
        norms = []
        for number in track(range(len(videos)), "profile", show=progress):
            parts, head = [], []
            for first, block in videos.blocks(number):
                non_negative = non_negative and float(block.min()) >= 0
                norm_channel = norm_channel and ends_in_norm(block)
                parts.append(np.linalg.norm(block, axis=-1))
                if first < MAX_HEAD:
                    head.append(block[0, : MAX_HEAD - first].copy())
            own = np.concatenate(parts, axis=1)  # (N, T)
            unit_norm = unit_norm and bool(np.abs(own - 1).max() < 1e-3)
            norms.append(_thin(own if masks is None else own[:, masks[number]]))
            correlations += _latent_correlation(vae, np.concatenate(head))
        real_norms.append(quantile_table(norms))
    return FeatureProfile(
        non_negative,
        unit_norm,
        float(np.mean(correlations).clip(0, 0.99)) if correlations else 0.0,
        tuple(real_norms),
        norm_channel=norm_channel,
    )


def feature_moments(
    videos: VideoSet, *, progress: bool | None = False
) -> tuple[Tensor, float]:
    """Return the mean `(D,)` of all snippets, and one spread for all features."""
    count, total, squares = 0, np.zeros(videos.feature_dim), 0.0
    for number in track(range(len(videos)), "mean and spread", show=progress):
        for _, block in videos.blocks(number):
            rows = block.reshape(-1, block.shape[-1])
            count += len(rows)
            total += rows.sum(axis=0, dtype=np.float64)
            squares += float(np.square(rows, dtype=np.float64).sum())
    mean = total / count
    variance = squares / count / len(mean) - float(np.square(mean).mean())
    return torch.from_numpy(mean), max(variance, 1e-12) ** 0.5


def quantile_table(norms: Sequence[NDArray[Any]]) -> Table:
    """Return 101 quantiles of values that come in parts."""
    values = np.concatenate([own.ravel() for own in norms])
    return tuple(np.quantile(values.astype(np.float64), QUANTILES).tolist())


def _thin(values: NDArray[Any]) -> NDArray[Any]:
    flat = values.ravel()
    return flat[spread_out(len(flat), MAX_NORMS)]


@torch.no_grad()
def _latent_correlation(vae: MultiTaskVAE, crop: NDArray[np.float32]) -> list[float]:
    """Lag-1 correlation of the latent means of a crop `(T, D)`; none of a short one."""
    weight = vae.mean_head.weight
    if len(crop) < 4:
        return []
    rows = torch.from_numpy(crop)
    means = vae.encode(rows.to(weight))[0].double()  # (T, latent)
    centred = means - means.mean(dim=0)
    total = centred.square().sum()
    if not total:
        return []
    return [float((centred[1:] * centred[:-1]).sum() / total)]
