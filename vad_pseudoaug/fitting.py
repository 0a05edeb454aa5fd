"""From training videos to a trained model: baseline, selection, VAE.

Of processes that share a fit, the first one alone scores, selects and measures: a score
that differs in its last bit, on another machine, would select other snippets. The model
is trained by all.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .bank import Bank, build_bank
from .baseline import Baseline, Score, cross_scores
from .features import Layout
from .items import to_numpy
from .processes import Processes
from .profile import FeatureProfile, feature_moments, measure_profile
from .recipe import Recipe
from .selection import Selection, select_above, select_ranked
from .shift import class_means
from .training import History, train_vae
from .vae import NORMAL, MultiTaskVAE, VAEConfig
from .videos import VideoSet, VideoSource, as_pair

Scores: TypeAlias = "Sequence[NDArray[np.floating[Any]]]"
# A score function of snippets, or the scores of all normal and all abnormal videos.
GivenScores: TypeAlias = "Score | tuple[Scores, Scores]"


class Selected(NamedTuple):
    """A selection, and the baseline's scores of normal videos that made it, if any."""

    selection: Selection
    normal_scores: Scores | None


class Fitted(NamedTuple):
    """What was learned.

    Attributes:
        vae: The model.
        selected: What its abnormal decoder was trained on.
        history: One entry an epoch, see `train_vae`.
        profile: What the training videos look like.
        scorer: A baseline of all training videos, where the recipe asks for one.
        banks: Real runs of each class, where the recipe asks for them.
        means: `(2, D)`, the class means, where the recipe asks for them.
    """

    vae: MultiTaskVAE
    selected: Selected
    history: History
    profile: FeatureProfile
    scorer: Baseline | None
    banks: dict[int, Bank]
    means: Tensor | None


def as_training(
    normal: VideoSource,
    abnormal: VideoSource | None,
    recipe: Recipe,
    *,
    layout: Layout | None = None,
    key: str | None = None,
    given: bool = False,
) -> tuple[VideoSet, VideoSet | None]:
    """Take training videos, and make sure that a recipe can learn of them.

    Args:
        normal: See `PseudoVideoSampler.fit`, as for the others.
        abnormal: None where there are none.
        recipe: What is to be learned.
        layout: Order of the axes.
        key: Name of the features in files of several arrays.
        given: Whether scores are given to select by.

    Raises:
        ValueError: If it cannot.
    """
    if abnormal is not None:
        return as_pair(normal, abnormal, layout=layout, key=key)
    why = ""
    if recipe.learns_abnormal:
        why = f"the recipe {recipe.name!r}"
        if recipe.name == "one-class":
            why += f" with translation={recipe.translation!r}"
    elif recipe.needs_scorer:
        why = "the baseline, which candidates and scope='suspicious' take,"
    elif given:
        why = "a selection by scores"
    if why:
        raise ValueError(
            f"{why} learns of abnormal videos, got none: give them, or take the recipe "
            "'one-class' as it is"
        )
    return VideoSet(normal, layout=layout, key=key, name="normal"), None


def select_snippets(
    normal: VideoSet,
    abnormal: VideoSet,
    recipe: Recipe,
    *,
    scores: GivenScores | None = None,
    seed: int,
    device: torch.device | str,
    progress: bool | None,
) -> Selected:
    """Select the abnormal snippets of abnormal videos as the recipe says.

    Raises:
        ValueError: If scores are given that do not fit the videos.
    """
    options: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
    titles = [abnormal.title(i) for i in range(len(abnormal))]
    if scores is not None:
        own = [score_videos(scores, v, i) for i, v in enumerate((normal, abnormal))]
    elif recipe.selection == "ranked":
        own = list(cross_scores(normal, abnormal, recipe=recipe, **options))
    else:
        # The validation split serves to choose configurations. Here one is chosen, so
        # every training video counts.
        baseline = Baseline.fit(
            normal, abnormal, recipe=recipe, validation_share=0, **options
        )
        scored = baseline.score(abnormal, progress=progress)
        return Selected(select_scored(scored, None, recipe, titles=titles), None)
    selection = select_scored(own[1], own[0], recipe, titles=titles)
    # Given scores are on a scale of their own.
    return Selected(selection, own[0] if scores is None else None)


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
            min_run=recipe.min_run,
            weighted=recipe.weighting == "score",
        )
    return select_above(scores, threshold=recipe.threshold, titles=titles)


def score_videos(scores: GivenScores, videos: VideoSet, label: int) -> Scores:
    """Take the scores that a user gives for all videos of a class.

    Raises:
        ValueError: If there is not one finite score a snippet.
    """
    is_sequence = isinstance(scores, list | tuple)
    if callable(scores):
        given: Iterable[Any] = (scores(video) for video in videos)
    elif is_sequence and len(scores) == 2:
        given = scores[label]
    else:
        got = f"{len(scores)} members" if is_sequence else type(scores).__name__
        raise ValueError(
            "scores: expected a function, or a pair of the scores of normal and of "
            f"abnormal videos, got {got}"
        )
    found = [np.asarray(to_numpy(own), dtype=np.float64) for own in given]
    if len(found) != len(videos):
        raise ValueError(
            f"scores: expected those of {len(videos)} {videos.name} videos, got "
            f"{len(found)}"
        )
    for number, own in enumerate(found):
        length = videos.num_snippets(number)
        if own.shape != (length,):
            found_instead = f"shape {own.shape}"
        elif not np.isfinite(own).all():
            found_instead = f"{own[~np.isfinite(own)][0]} among them"
        else:
            continue
        raise ValueError(
            f"scores: expected {length} finite values for {videos.title(number)}, "
            f"got {found_instead}"
        )
    return found


def fit_vae(
    normal: VideoSet,
    abnormal: VideoSet | None,
    recipe: Recipe,
    *,
    scores: GivenScores | None = None,
    seed: int,
    device: torch.device | str,
    state_path: str | os.PathLike[str] | None,
    overwrite: bool = False,
    progress: bool | None,
    processes: Processes | None = None,
) -> Fitted | None:
    """Learn by a recipe; arguments and errors as in `PseudoVideoSampler.fit`.

    Returns:
        What was learned; None in processes other than the first.
    """
    is_first = processes is None or processes.rank == 0
    options: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
    selected = Selected(Selection((), ()), None)  # of no abnormal videos
    if abnormal is not None and is_first:
        selected = select_snippets(normal, abnormal, recipe, scores=scores, **options)
    vae = new_vae(normal, recipe, measure=is_first, **options)
    if processes is not None:
        shared = processes.share(_to_tensors(selected.selection))
        selected = selected._replace(selection=_from_tensors(shared))
        vae.load_state_dict(processes.share(vae.state_dict()))
    history = train_vae(
        vae,
        normal,
        abnormal,
        selected.selection,
        recipe,
        seed=seed,
        state_path=state_path,
        overwrite=overwrite,
        progress=progress,
        processes=processes,
    )
    if not is_first:
        return None
    return measure_fit(
        vae,
        normal,
        abnormal,
        recipe,
        selected,
        history,
        **options,
    )


def measure_fit(
    vae: MultiTaskVAE,
    normal: VideoSet,
    abnormal: VideoSet | None,
    recipe: Recipe,
    selected: Selected,
    history: History,
    *,
    seed: int,
    device: torch.device | str,
    progress: bool | None,
) -> Fitted:
    """Learn what a sampler needs beside a trained model.

    Args:
        vae: The model.
        normal: What it was trained on.
        abnormal: What it was trained on.
        recipe: What it asks for is learned.
        selected: The snippets selected.
        history: Of the training.
        seed: Of the scorer, and of which runs are taken.
        device: Where the scorer is trained.
        progress: Show a bar; None decides by the terminal.
    """
    options: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
    profile = measure_profile(
        vae, normal, abnormal, selected.selection, progress=progress
    )
    scorer = None
    if recipe.needs_scorer and abnormal is not None:
        scorer = Baseline.fit(
            normal, abnormal, recipe=recipe, validation_share=0, **options
        )
        normal_scores = selected.normal_scores or scorer.score(
            normal, progress=progress
        )
        limit = np.quantile(np.concatenate(normal_scores), recipe.suspicious_quantile)
        profile = replace(profile, suspicious=float(limit))
    banks = {}
    for label in recipe.needs_banks:
        if label == NORMAL:
            banks[label] = build_bank(normal, None, seed=seed, progress=progress)
        elif abnormal is not None:
            masks = selected.selection.masks
            banks[label] = build_bank(abnormal, masks, seed=seed, progress=progress)
    means = None
    if recipe.translation == "shift" and abnormal is not None:
        means = class_means(normal, abnormal, selected.selection, progress=progress)
    return Fitted(vae, selected, history, profile, scorer, banks, means)


def _to_tensors(selection: Selection) -> dict[str, Tensor]:
    """Put a selection into a few tensors, all videos together."""
    if not selection.masks:
        return {"lengths": torch.empty(0, dtype=torch.int64, device="cpu")}
    lengths = np.array([len(mask) for mask in selection.masks])
    parts = {"lengths": lengths, "masks": np.concatenate(selection.masks)}
    if selection.weights is not None:
        parts["weights"] = np.concatenate(selection.weights)
    return {name: torch.from_numpy(part) for name, part in parts.items()}


def _from_tensors(tensors: Mapping[str, Tensor]) -> Selection:
    ends = np.cumsum(tensors["lengths"].numpy())[:-1]
    parts = {
        name: tuple(np.split(tensors[name].numpy(), ends))
        for name in ("masks", "weights")
        if name in tensors
    }
    masks = parts.get("masks", ())
    empty = tuple(i for i, mask in enumerate(masks) if not mask.any())
    return Selection(masks, empty, parts.get("weights"))


def new_vae(
    normal: VideoSet,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device | str,
    measure: bool = True,
    progress: bool | None = False,
) -> MultiTaskVAE:
    """Make the untrained model of a recipe, standardised by the normal videos.

    Without `measure` the standardisation is still to be set.
    """
    config = VAEConfig(
        feature_dim=normal.feature_dim,
        hidden_dims=recipe.hidden_dims,
        latent_dim=recipe.latent_dim,
        alpha=recipe.alpha,
        reduction=recipe.reduction,
        variance=recipe.variance,
        free_bits=recipe.free_bits,
        shared_trunk=recipe.shared_trunk,
        standardise=recipe.standardise,
    )
    vae = MultiTaskVAE(config, seed=seed, device=device)
    if recipe.standardise and measure:
        vae.set_standardisation(*feature_moments(normal, progress=progress))
    return vae
