"""Are these pseudo videos any good? A run is judged on videos that it never saw."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .baseline import Baseline, stratified_split
from .fitting import select_scored, select_snippets
from .gates import Clip, Gate, Material, judge, judge_model
from .randomness import make_generator
from .sampler import PseudoVideoSampler
from .selection import Selection
from .vae import ABNORMAL, NORMAL
from .videos import VideoSet, VideoSource, as_pair

HELD_OUT_SHARE = 0.5
# Of each kind, which bounds memory on large sets: the window of a long video that has
# most of what is meant.
MAX_VIDEOS = 200
MAX_BYTES = 96 << 20


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        sampler: What was judged, with the videos that it was fitted on.
        gates: The gates of the model, and of the pseudo videos of each class.
        materials: What they were computed of, by class.
        sources: Real videos that the pseudo videos were made of, by class.
    """

    sampler: PseudoVideoSampler
    gates: Mapping[str, Sequence[Gate]]
    materials: Mapping[int, Material]
    sources: Mapping[int, Sequence[Clip]]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for part in self.gates.values() for gate in part)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        parts = {
            name: [gate._asdict() for gate in part] for name, part in self.gates.items()
        }
        return {"passed": self.passed, "gates": parts}


def check_sampler(
    sampler: PseudoVideoSampler,
    normal: VideoSource,
    abnormal: VideoSource,
    *,
    seed: int = 0,
    progress: bool | None = None,
) -> Check:
    """Judge a sampler on held-out training videos; never give test videos here.

    Args:
        sampler: With the videos that it was fitted on.
        normal: Normal training videos that it was not fitted on.
        abnormal: Abnormal ones.
        seed: Seed of what is drawn.
        progress: Show bars; None decides by the terminal.

    Raises:
        ImportError: If scikit-learn is not installed; it names the extra.
        ValueError: If there are too few videos, or they are the sampler's own.
    """
    known = (sampler.sources(ABNORMAL), sampler.sources(NORMAL))  # normal, abnormal
    held_out = as_pair(normal, abnormal)
    for own, new in zip(known, held_out, strict=True):
        # Copies and videos in memory have no name in common: their content tells.
        if _files(own) & _files(new) or _contents(own) >= _contents(new):
            raise ValueError(f"{new.name}: the sampler was fitted on these videos")
    recipe = sampler.recipe
    selected = select_snippets(
        *known, recipe, seed=sampler.seed, device="cpu", progress=progress
    ).selection
    baseline = Baseline.fit(
        *known,
        recipe=recipe,
        validation_share=0,
        seed=sampler.seed,
        progress=progress,
    )
    held_out_selected = select_scored(
        baseline.score(held_out[ABNORMAL]), baseline.score(held_out[NORMAL]), recipe
    )
    training = (_clips(known[NORMAL]), _clips(known[ABNORMAL], selected))
    real = (_clips(held_out[NORMAL]), _clips(held_out[ABNORMAL], held_out_selected))
    materials: dict[int, Material] = {}
    sources: dict[int, list[Clip]] = {}
    for label in (ABNORMAL, NORMAL):
        of = held_out[1 - label]
        numbers = range(min(len(of), MAX_VIDEOS))
        size = _window_size(of)
        windows = [slice(0, size)] * len(numbers)
        if label == NORMAL:  # where the sources are abnormal
            windows = [
                _window(mask, size) for mask in held_out_selected.masks[: len(numbers)]
            ]
        sources[label], pseudo = [], []
        for i, window in zip(numbers, windows, strict=True):
            video = _read(of, i, window)
            sources[label].append(Clip(video[0].copy(), np.ones(video.shape[1], bool)))
            made = sampler.sample(
                video, label=label, generator=make_generator(seed, label, i)
            )
            pseudo.append(
                Clip(made.features[0].clone().numpy(), made.pseudo_mask.numpy())
            )
        materials[label] = Material(
            pseudo,
            real[label],
            real[1 - label],
            training[label],
            training[1 - label],
            seed=seed,
        )
    gates = {
        "the model": judge_model(sampler.vae, *real),
        "pseudo abnormal videos": judge(materials[ABNORMAL]),
        "pseudo normal videos": judge(materials[NORMAL]),
    }
    return Check(sampler, gates, materials, sources)


def refit_on_part(
    sampler: PseudoVideoSampler,
    folder: str | os.PathLike[str] | None = None,
    *,
    share: float = HELD_OUT_SHARE,
    progress: bool | None = None,
) -> tuple[PseudoVideoSampler, VideoSet, VideoSet]:
    """Repeat a sampler's fit on a part of its videos, to judge it on the others.

    A sampler that was fitted on all training videos leaves none to judge it by. What is
    judged then is its recipe: the same choices and seed, on fewer videos.

    Args:
        sampler: With its sources.
        folder: Where the repeated fit is kept; there already, it is not repeated.
        share: Share of the videos of each class to hold out.
        progress: Show bars; None decides by the terminal.

    Returns:
        The repeated fit, and the normal and the abnormal videos held out.

    Raises:
        ValueError: If `folder` holds another fit.
    """
    normal, abnormal = sampler.sources(ABNORMAL), sampler.sources(NORMAL)
    split = stratified_split(len(normal), len(abnormal), share=share, seed=sampler.seed)
    kept = (
        normal.part(split.train_normal),
        abnormal.part(split.train_abnormal),
    )
    held_out = (
        normal.part(split.validation_normal),
        abnormal.part(split.validation_abnormal),
    )
    if folder is not None and (Path(folder) / "config.json").is_file():
        saved = PseudoVideoSampler.from_pretrained(folder)
        fitted = PseudoVideoSampler.from_pretrained(
            folder, normal=kept[0], abnormal=kept[1]
        )
        is_same = fitted.recipe == sampler.recipe and fitted.seed == sampler.seed
        for own, part in zip((saved.normal, saved.abnormal), kept, strict=True):
            is_same &= _files(part) == (set() if own is None else _files(own))
        if not is_same:
            raise ValueError(f"{folder}: holds the fit of another run; delete it")
    else:
        fitted = PseudoVideoSampler.fit(
            *kept,
            recipe=sampler.recipe,
            seed=sampler.seed,
            device=sampler.device,
            folder=folder,
            progress=progress,
        )
    return fitted, *held_out


def _files(videos: VideoSet) -> set[Path]:
    return {path.resolve() for path in videos.paths or ()}


def _contents(videos: VideoSet) -> set[bytes]:
    numbers = range(min(len(videos), MAX_VIDEOS))
    found = set()
    for i in numbers:
        digest = sha256()
        for _, block in videos.blocks(i):
            digest.update(block.tobytes())
        found.add(digest.digest())
    return found


def _window_size(videos: VideoSet) -> int:
    """Return how many snippets of a video are looked at: all, unless there are many."""
    count = min(len(videos), MAX_VIDEOS)
    return max(1, MAX_BYTES // (4 * videos.feature_dim * count))


def _window(mask: NDArray[np.bool_], size: int) -> slice:
    """Return the window of a video that holds the most of what is meant."""
    totals = np.concatenate(([0], np.cumsum(mask)))
    size = min(size, len(mask))
    start = int(np.argmax(totals[size:] - totals[:-size]))
    return slice(start, start + size)


def _read(videos: VideoSet, index: int, window: slice) -> NDArray[np.float32]:
    return np.array(videos.rows(index, lambda _: window), order="C")


def _clips(videos: VideoSet, selection: Selection | None = None) -> list[Clip]:
    clips = []
    size = _window_size(videos)
    for i in range(min(len(videos), MAX_VIDEOS)):
        mask = np.ones(videos.num_snippets(i), dtype=bool)
        if selection is not None:
            mask = selection.masks[i]
        window = _window(mask, size)
        # The first crop.
        clips.append(Clip(_read(videos, i, window)[0].copy(), mask[window]))
    return clips
