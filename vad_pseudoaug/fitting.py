"""From training videos to a trained model: baseline, selection, VAE."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from .baseline import Baseline, cross_scores
from .recipe import Recipe
from .selection import Selection, select_above, select_ranked
from .training import History, train_vae
from .vae import MultiTaskVAE, VAEConfig
from .videos import VideoSet

Scores: TypeAlias = "Sequence[NDArray[np.floating[Any]]]"


class Fitted(NamedTuple):
    """What was learned.

    Attributes:
        vae: The model.
        selection: What its abnormal decoder was trained on.
        history: One entry an epoch, see `train_vae`.
        non_negative: Whether no feature of any training video is below 0.
        unit_norm: Whether all snippets of all training videos have L2 norm 1.
    """

    vae: MultiTaskVAE
    selection: Selection
    history: History
    non_negative: bool
    unit_norm: bool


def select_snippets(
    normal: VideoSet,
    abnormal: VideoSet,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str,
    progress: bool | None,
) -> Selection:
    """Select the abnormal snippets of abnormal videos as the recipe says."""
    if recipe.selection == "ranked":
        normal_scores, scores = cross_scores(
            normal, abnormal, recipe=recipe, seed=seed, device=device, progress=progress
        )
        return select_scored(scores, normal_scores, recipe)
    # The validation split serves to choose configurations. Here one is chosen, so
    # every training video counts.
    baseline = Baseline.fit(
        normal,
        abnormal,
        recipe=recipe,
        validation_share=0,
        seed=seed,
        device=device,
        progress=progress,
    )
    titles = [abnormal.title(i) for i in range(len(abnormal))]
    return select_scored(baseline.score(abnormal), None, recipe, titles=titles)


def select_scored(
    scores: Scores,
    normal_scores: Scores | None,
    recipe: Recipe,
    *,
    titles: Sequence[str] | None = None,
) -> Selection:
    """Select by scores that are there: of abnormal and, to rank, of normal videos."""
    if recipe.selection == "ranked" and normal_scores is not None:
        return select_ranked(
            scores,
            normal_scores,
            top_share=recipe.top_share,
            normal_quantile=recipe.normal_quantile,
        )
    return select_above(scores, threshold=recipe.threshold, titles=titles)


def fit_vae(
    normal: VideoSet,
    abnormal: VideoSet,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str,
    state_path: str | os.PathLike[str] | None,
    progress: bool | None,
) -> Fitted:
    """Learn by a recipe; arguments and errors as in `PseudoVideoSampler.fit`."""
    selection = select_snippets(
        normal, abnormal, recipe, seed=seed, device=device, progress=progress
    )
    config = VAEConfig(
        feature_dim=normal.feature_dim,
        hidden_dims=recipe.hidden_dims,
        latent_dim=recipe.latent_dim,
        alpha=recipe.alpha,
        reduction=recipe.reduction,
    )
    vae = MultiTaskVAE(config, seed=seed, device=device)
    history = train_vae(
        vae,
        normal,
        abnormal,
        selection,
        recipe,
        seed=seed,
        state_path=state_path,
        progress=progress,
    )
    non_negative = unit_norm = True
    for videos in (normal, abnormal):
        for video in videos:
            non_negative = non_negative and float(video.min()) >= 0
            norms = np.linalg.norm(video, axis=-1)
            unit_norm = unit_norm and bool(np.abs(norms - 1).max() < 1e-3)
    return Fitted(vae, selection, history, non_negative, unit_norm)
