"""Are these pseudo videos any good? A run is judged on videos that it never saw."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .baseline import Baseline, Score, stratified_split
from .extras import progress_bar, track
from .fitting import Scores, score_videos, select_scored, select_snippets
from .gate_samples import MIN_VIDEOS, Clip, Material
from .gates import Gate, judge, judge_model
from .one_class_gates import judge_disturbed
from .randomness import make_generator
from .sampler import PseudoVideoSampler
from .selection import Selection
from .vae import ABNORMAL, CLASS_NAMES, NORMAL
from .videos import (
    VideoSet,
    VideoSource,
    as_pair,
    as_recorded,
    digest_snippets,
)
from .writing import read_json, write_json

HELD_OUT_SHARE = 0.5
# Of each kind, which bounds memory on large sets: the window of a long video that has
# most of what is meant.
MAX_VIDEOS = 200
MAX_BYTES = 96 << 20
MARKS = 32  # snippets that a video is known by
REFIT = "refit.json"  # says what a repeated fit that is kept is of


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        sampler: What was judged, with the videos that it was fitted on.
        gates: The gates of the model, and of the pseudo videos of each class.
        materials: What they were computed of, by class.
        sources: Real videos that the pseudo videos were made of, by class.

    Of a sampler of normal videos alone there are only pseudo abnormal videos, and the
    real videos that they are compared with are normal ones.
    """

    sampler: PseudoVideoSampler
    gates: Mapping[str, Sequence[Gate]]
    materials: Mapping[int, Material]
    sources: Mapping[int, Sequence[Clip]]

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(gate.passed for part in self.gates.values() for gate in part)

    @property
    def one_class(self) -> bool:
        """Whether the sampler learned of normal videos alone."""
        return NORMAL not in self.materials

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        parts = {
            name: [gate._asdict() for gate in part] for name, part in self.gates.items()
        }
        return {"passed": self.passed, "gates": parts}


def check_sampler(
    sampler: PseudoVideoSampler,
    normal: VideoSource,
    abnormal: VideoSource | None = None,
    *,
    scores: Score | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Check:
    """Judge a sampler on held-out training videos; never give test videos here.

    Args:
        sampler: With the videos that it was fitted on.
        normal: Normal training videos that it was not fitted on. Files are read in the
            layout and by the key of those that it was; a `VideoSet` has its own.
        abnormal: Abnormal ones; None for a sampler of normal videos alone, which is
            judged by whether its pseudo abnormal videos are normal in all but what was
            disturbed.
        scores: The function that gave `fit` its scores, in place of the baseline's:
            from features `(N, T, D)` to `(T,)`.
        seed: Seed of what is drawn.
        progress: Show bars; None decides by the terminal.

    Raises:
        ImportError: If scikit-learn is not installed; it names the extra.
        ValueError: If there are too few videos, or they are the sampler's own, or of
            other crops or another feature size than these.
    """
    if (abnormal is None) != (sampler.abnormal is None):
        raise ValueError(
            "abnormal: expected held-out videos of the classes that the sampler was "
            "fitted on"
        )
    if abnormal is None:
        return _check_one_class(sampler, normal, seed, progress)
    known = (sampler.sources(ABNORMAL), sampler.sources(NORMAL))  # normal, abnormal
    held_out = as_pair(*_take(known, (normal, abnormal), progress))
    recipe = sampler.recipe
    options: dict[str, Any] = {"seed": sampler.seed, "progress": progress}
    selected = select_snippets(
        *known, recipe, scores=scores, device="cpu", **options
    ).selection
    if scores is None:
        baseline = Baseline.fit(*known, recipe=recipe, validation_share=0, **options)
        held_out_scores: list[Scores] = [
            baseline.score(own, progress=progress) for own in held_out
        ]
    else:
        held_out_scores = [score_videos(scores, v, i) for i, v in enumerate(held_out)]
    held_out_selected = select_scored(
        held_out_scores[ABNORMAL], held_out_scores[NORMAL], recipe
    )
    training = (_clips(known[NORMAL]), _clips(known[ABNORMAL], selected))
    real = (_clips(held_out[NORMAL]), _clips(held_out[ABNORMAL], held_out_selected))
    materials: dict[int, Material] = {}
    sources: dict[int, list[Clip]] = {}
    for label, selection in ((ABNORMAL, None), (NORMAL, held_out_selected)):
        sources[label], pseudo = _make(
            sampler, held_out[1 - label], selection, label, seed, progress
        )
        materials[label] = Material(
            pseudo,
            real[label],
            real[1 - label],
            training[label],
            training[1 - label],
            seed=seed,
        )
    judges: dict[str, Callable[[], Sequence[Gate]]] = {
        f"pseudo {name} videos": partial(judge, materials[label])
        for label, name in sorted(CLASS_NAMES.items(), reverse=True)
    }
    if recipe.needs_model:
        judges = {"the model": lambda: judge_model(sampler.vae, *real), **judges}
    return Check(sampler, _ask(judges, progress), materials, sources)


def _check_one_class(
    sampler: PseudoVideoSampler, normal: VideoSource, seed: int, progress: bool | None
) -> Check:
    known = sampler.sources(ABNORMAL)
    [held_out] = _take((known,), (normal,), progress)
    real, training = _clips(held_out), _clips(known)
    sources, pseudo = _make(sampler, held_out, None, ABNORMAL, seed, progress)
    judges: dict[str, Callable[[], Sequence[Gate]]] = {
        "the model": lambda: judge_model(sampler.vae, real),
        "pseudo abnormal videos": lambda: judge_disturbed(
            pseudo, real, training, seed=seed
        ),
    }
    material = Material(pseudo, real, real, training, training, seed)
    gates = _ask(judges, progress)
    return Check(sampler, gates, {ABNORMAL: material}, {ABNORMAL: sources})


def _ask(
    judges: Mapping[str, Callable[[], Sequence[Gate]]], progress: bool | None
) -> dict[str, Sequence[Gate]]:
    gates = {}
    with progress_bar(len(judges), "gates", show=progress) as step:
        for name, judgement in judges.items():
            gates[name] = judgement()
            step()
    return gates


def _take(
    known: Sequence[VideoSet], given: Sequence[VideoSource], progress: bool | None
) -> list[VideoSet]:
    """Take held-out videos that can be compared with those that the sampler knows.

    Other crops may be sampled, but not compared: the mean score of one spreads more
    than that of ten. And it is in their number that swapped axes show.
    """
    held_out = [
        as_recorded(new, own.record(), name=own.name)
        for own, new in zip(known, given, strict=True)
    ]
    for own, new in zip(known, held_out, strict=True):
        ours, theirs = ((v.num_crops, v.feature_dim) for v in (own, new))
        if ours != theirs:
            raise ValueError(
                f"{new.name}: expected {ours[0]} crops of size {ours[1]}, as in the "
                f"videos that the sampler was fitted on, got {theirs[0]} of {theirs[1]}"
            )
    _refuse_known(known, held_out, progress)
    return held_out


def _refuse_known(
    known: Sequence[VideoSet],
    held_out: Sequence[VideoSet],
    progress: bool | None = None,
) -> None:
    marks = {mark for own in known for marks in _marks(own, progress) for mark in marks}
    for new in held_out:
        found = [i for i, own in enumerate(_marks(new, progress)) if own & marks]
        if found:
            raise ValueError(
                f"{new.name}: the sampler was fitted on {len(found)} of these "
                f"{len(new)} videos, such as {new.title(found[0])}"
            )


def _make(
    sampler: PseudoVideoSampler,
    videos: VideoSet,
    selection: Selection | None,
    label: int,
    seed: int,
    progress: bool | None,
) -> tuple[list[Clip], list[Clip]]:
    """Make pseudo videos of class `label`; return their sources, and them."""
    numbers = range(min(len(videos), MAX_VIDEOS))
    sources, made = [], []
    for i in track(numbers, f"pseudo {CLASS_NAMES[label]} videos", show=progress):
        video = _read(videos, i, _meant(videos, i, selection)[1])
        pseudo = sampler.sample(
            video, label=label, generator=make_generator(seed, label, i)
        )
        sources.append(Clip(video[0].copy(), np.ones(video.shape[1], bool)))
        features = pseudo.features[0].clone().numpy()
        made.append(Clip(features, pseudo.pseudo_mask.numpy()))
    return sources, made


def refit_on_part(
    sampler: PseudoVideoSampler,
    folder: str | os.PathLike[str] | None = None,
    *,
    share: float = HELD_OUT_SHARE,
    scores: Score | None = None,
    progress: bool | None = None,
) -> tuple[PseudoVideoSampler, VideoSet, VideoSet | None]:
    """Repeat a sampler's fit on a part of its videos, to judge it on the others.

    A sampler that was fitted on all training videos leaves none to judge it by. What is
    judged then is its recipe: the same choices and seed, on fewer videos.

    Args:
        sampler: With its sources.
        folder: Where the repeated fit is kept; there already, it is not repeated.
        share: Share of the videos of each class to hold out.
        scores: The function that gave `fit` its scores, if any.
        progress: Show bars; None decides by the terminal.

    Returns:
        The repeated fit, and the normal and the abnormal videos held out; None where
        the sampler learned of normal ones alone.

    Raises:
        ValueError: If `folder` holds another fit, or there are too few videos to hold
            out some.
    """
    normal, abnormal = sampler.sources(ABNORMAL), sampler.abnormal
    if abnormal is None and sampler.recipe.learns_abnormal:
        sampler.sources(NORMAL)  # they are lacking, and it says so
    num_abnormal = 0 if abnormal is None else len(abnormal)
    split = stratified_split(len(normal), num_abnormal, share=share, seed=sampler.seed)
    trained = (split.train_normal, split.train_abnormal)
    drawn = (split.validation_normal, split.validation_abnormal)
    marks = [[*_marks(own, progress)] if own else [] for own in (normal, abnormal)]
    known = {
        mark
        for own, part in zip(marks, trained, strict=True)
        for i in part
        for mark in own[i]
    }
    # Of a video that is there twice, no copy is judged by the other.
    held = [
        [i for i in part if not own[i] & known]
        for own, part in zip(marks, drawn, strict=True)
    ]
    for videos, out in zip((normal, abnormal), held, strict=True):
        if videos is not None and len(out) < MIN_VIDEOS:
            whose = "" if abnormal is None else ", of both classes,"
            raise ValueError(
                f"{len(videos)} {videos.name} videos are too few to hold out "
                f"{MIN_VIDEOS} of them to judge by: give held-out videos{whose} that "
                "the run never saw"
            )
    kept, held_out = (
        (normal.part(part[0]), abnormal and abnormal.part(part[1]))
        for part in (trained, held)
    )
    options: dict[str, Any] = {"seed": sampler.seed, "progress": progress}
    if folder is not None:
        selected = None  # as recipe, seed and videos have it
        if scores is not None and kept[1] is not None:
            selected = select_snippets(
                kept[0],
                kept[1],
                sampler.recipe,
                scores=scores,
                device="cpu",
                **options,
            ).selection.to_dict()
        record = {
            "recipe": sampler.recipe.to_dict(),
            "seed": sampler.seed,
            "videos": [
                _digest(own[i] for i in part)
                for own, part in zip(marks, trained, strict=True)
            ],
            "selected": selected,
        }
        if _is_kept(Path(folder), record):
            fitted = PseudoVideoSampler.from_pretrained(
                folder, normal=kept[0], abnormal=kept[1]
            )
            return fitted, *held_out
        write_json(Path(folder) / REFIT, record)
    fitted = PseudoVideoSampler.fit(
        *kept,
        recipe=sampler.recipe,
        scores=scores,
        device=sampler.device,
        folder=folder,
        **options,
    )
    return fitted, *held_out


def _is_kept(folder: Path, record: Mapping[str, Any]) -> bool:
    """Tell whether a fit is there; refuse one of anything else."""
    if not (folder / "config.json").is_file():
        return False
    try:
        found = read_json(folder / REFIT)
    except (OSError, ValueError):  # none, or none that is readable
        found = None
    if found != record:
        raise ValueError(f"{folder}: holds the fit of another run; delete it")
    return True


def _digest(videos: Iterable[set[Path | bytes]]) -> str:
    """Digest what videos are known by."""
    marks = [sorted(map(repr, known)) for known in videos]
    return sha256(repr(marks).encode()).hexdigest()[:16]


def _marks(videos: VideoSet, progress: bool | None) -> Iterator[set[Path | bytes]]:
    """Give for each video what it is known by: its file, and what it holds.

    Copies and videos in memory have no name in common: their content tells, and some
    snippets of it do, where to read all of a large set would take long. Videos of one
    length that have 32 snippets in common, in every bit of all crops, are the same. Of
    one number throughout, as zeros in place of a lost video, there may be several.
    """
    paths = videos.paths
    for i in track(range(len(videos)), f"{videos.name} contents", show=progress):
        marks: set[Path | bytes] = set() if paths is None else {paths[i].resolve()}
        rows, length = videos.glance(i, MARKS)
        if rows.min() < rows.max():
            marks.add(digest_snippets(rows, length))
        yield marks


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
    return np.array(videos.rows(index, window), order="C")


def _meant(
    videos: VideoSet, index: int, selection: Selection | None
) -> tuple[NDArray[np.bool_], slice]:
    """Return which snippets of a video are meant, and the window to look at."""
    if selection is None:
        mask = np.ones(videos.num_snippets(index), dtype=bool)
    else:
        mask = selection.masks[index]
    return mask, _window(mask, _window_size(videos))


def _clips(videos: VideoSet, selection: Selection | None = None) -> list[Clip]:
    clips = []
    for i in range(min(len(videos), MAX_VIDEOS)):
        mask, window = _meant(videos, i, selection)
        # The first crop.
        clips.append(Clip(_read(videos, i, window)[0].copy(), mask[window]))
    return clips
