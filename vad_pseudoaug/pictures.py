"""Pictures of a check: what the gates' figures look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .check import Check
from .extras import require, track
from .gate_samples import Clip, meant_rows, norms_of
from .gates import ACTIVE_VARIANCE, reconstruct
from .plots import COLOURS, MARKERS, STYLES, new_figure, plot_history, plot_projection
from .selection import runs_of
from .vae import ABNORMAL, NORMAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES = {ABNORMAL: "abnormal", NORMAL: "normal"}
NUM_TIMELINES = 3
MAX_LAG = 8
MAX_POINTS = 400  # of each group in a scatter plot


class Picture(NamedTuple):
    """A picture, with what a reader should look for in it."""

    name: str
    title: str
    caption: str
    figure: Figure


def draw_pictures(check: Check, *, progress: bool | None = False) -> list[Picture]:
    """Draw all pictures of a check; `progress` shows a bar, None by the terminal.

    Raises:
        ImportError: If matplotlib or scikit-learn is missing; it names the extra.
    """
    if check.one_class:
        aim = (
            "disturbed (grey), the pseudo video should go another way than its source, "
            "and its norm should neither drop nor leap. "
        )
    else:
        aim = (
            "made abnormal (grey), the pseudo video should move from 0, the mean "
            "normal training snippet, towards 1, the mean selected abnormal one, and "
            "its norm should not drop. "
        )
    plans: list[tuple[str, str, str, Callable[[], Figure]]] = [
        (
            "timelines",
            "Pseudo abnormal videos beside their sources",
            f"The longest held-out normal videos. Where they were {aim}Elsewhere the "
            "two lines are the same.",
            partial(_timelines, check),
        ),
        (
            "features",
            "Snippets in two dimensions",
            "The two directions in which real snippets differ most. Hollow marks are "
            "generated. Good ones lie where the filled ones of their colour and shape "
            "lie, and as widely; a dense clump is a decoder that returns averages.",
            partial(_projection, check),
        ),
        (
            "norms",
            "L2 norms of snippets",
            "The L2 norm is the length of a feature vector. Each line tells what share "
            "of the snippets has at most that norm. The generated line should follow "
            "the real one of its class; left of it, norms have shrunk, and detectors "
            "that pick segments by magnitude overlook them.",
            partial(_by_class, check, _norms),
        ),
        (
            "neighbours",
            "Distance to the nearest training snippet",
            "Each line tells what share of the snippets is at most that far from a "
            "training snippet. Generated ones should be about as far as real unseen "
            "ones. A line that rises at 0 repeats training snippets; one far to the "
            "right is unlike all of them.",
            partial(_by_class, check, _neighbours),
        ),
        (
            "lags",
            "Likeness in time",
            "Correlation of the snippets of a video with those some snippets later, "
            "mean over the videos. A generated line that drops at once comes of "
            "neighbours drawn without regard for each other.",
            partial(_by_class, check, _lags),
        ),
        (
            "units",
            "Latent units in use",
            "The model describes a snippet by latent units, from which its decoders "
            "make one again. How much each unit varies over unseen snippets, the most "
            "active first; those below the grey line carry nothing.",
            partial(_units, check),
        ),
        (
            "training",
            "Training",
            "Each term of the loss over the epochs, on a logarithmic scale. A squared "
            "error (what a decoder fails to give back of its class) that still falls "
            "at the end asks for more epochs. The KL divergence is how much the latent "
            "units tell of a snippet: near 0 they tell nothing.",
            partial(_training, check),
        ),
    ]
    return [
        Picture(name, title, caption, draw())
        for name, title, caption, draw in track(plans, "pictures", show=progress)
    ]


def _by_class(check: Check, draw: Callable[[Check, int, Axes], None]) -> Figure:
    count = len(check.materials)
    figure, axes = new_figure(1, count, figsize=(5 * count, 4.3))
    for column, label in enumerate(sorted(check.materials, reverse=True)):
        draw(check, label, axes[0, column])
        axes[0, column].set_title(f"pseudo {CLASSES[label]} videos")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(handles))
    return figure


def _norms(check: Check, label: int, axes: Axes) -> None:
    material = check.materials[label]
    groups = {"generated": material.pseudo}
    for one, name in _real_classes(check).items():  # in both panels the same line
        is_compared = one == label or check.one_class
        groups[f"real {name}"] = material.real if is_compared else material.other
    _cumulative(
        {name: norms_of(meant_rows(clips)) for name, clips in groups.items()}, axes
    )
    axes.set_xlabel("L2 norm of a snippet")


def _neighbours(check: Check, label: int, axes: Axes) -> None:
    material = check.materials[label]
    neighbours = require("sklearn.neighbors", extra="eval").NearestNeighbors
    index = neighbours(n_neighbors=1).fit(meant_rows(material.training))
    groups = {"generated": material.pseudo, "real, unseen": material.real}
    _cumulative(
        {
            name: index.kneighbors(meant_rows(clips))[0][:, 0]
            for name, clips in groups.items()
        },
        axes,
    )
    kind = CLASSES[NORMAL if check.one_class else label]
    axes.set_xlabel(f"distance to the nearest {kind} training snippet")
    axes.set_xlim(left=0)


def _lags(check: Check, label: int, axes: Axes) -> None:
    material = check.materials[label]
    groups = {"generated": material.pseudo, "real": material.real}
    shortest = min(len(c.features) for clips in groups.values() for c in clips)
    num_lags = min(MAX_LAG, max(shortest - 2, 0)) + 1
    for number, (name, clips) in enumerate(groups.items()):
        curve = _mean_correlations(clips, num_lags)
        axes.plot(
            range(len(curve)),
            curve,
            color=COLOURS[number],
            linestyle=STYLES[number],
            marker=MARKERS[number],
            label=name,
        )
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    axes.set(xlabel="snippets later", ylabel="correlation")
    axes.locator_params(axis="x", integer=True)


def _mean_correlations(clips: Sequence[Clip], num_lags: int) -> list[float]:
    curves = []
    for clip in clips:
        centred = clip.features.astype(np.float64) - clip.features.mean(axis=0)
        total = (centred**2).sum()
        if total:
            curves.append(
                [
                    (centred[lag:] * centred[: len(centred) - lag]).sum() / total
                    for lag in range(num_lags)
                ]
            )
    mean: list[float] = np.mean(curves, axis=0).tolist()
    return mean


def _timelines(check: Check) -> Figure:
    material, sources = check.materials[ABNORMAL], check.sources[ABNORMAL]
    # The longest: there is most to see in them.
    order = np.argsort([-len(clip.features) for clip in sources], kind="stable")
    chosen = order[:NUM_TIMELINES]
    low, high = (
        meant_rows(clips).mean(axis=0, dtype=np.float64)
        for clips in (material.training_other, material.training)
    )
    axis = (high - low) / max(float(((high - low) ** 2).sum()), 1e-12)
    measures: Mapping[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
        "place between normal (0) and abnormal (1)": lambda rows: (rows - low) @ axis,
        "L2 norm": norms_of,
    }
    if check.one_class:
        measures = {
            "distance to the snippet before": lambda rows: norms_of(
                np.diff(rows, axis=0, prepend=rows[:1])
            ),
            "L2 norm": norms_of,
        }
    figure, axes = new_figure(len(chosen), 2, figsize=(11, 2.3 * len(chosen) + 0.6))
    for row, video in enumerate(chosen):
        source, pseudo = sources[video], material.pseudo[video]
        for column, (name, measure) in enumerate(measures.items()):
            own = axes[row, column]
            for number, (start, end) in enumerate(runs_of(pseudo.mask)):
                own.axvspan(
                    start - 0.5,
                    end - 0.5,
                    color="0.87",
                    zorder=0,
                    label=None if number else "generated",
                )
            for number, (title, clip) in enumerate(
                (("source", source), ("pseudo video", pseudo))
            ):
                own.plot(
                    measure(clip.features),
                    color=COLOURS[number],
                    linestyle=STYLES[number],
                    marker=MARKERS[number],
                    markersize=4,
                    label=title,
                )
            own.set_title(name if row == 0 else "")
            own.locator_params(axis="x", integer=True)
        axes[row, 0].set_ylabel(f"normal video {video + 1}")
        for level in () if check.one_class else (0, 1):
            axes[row, 0].axhline(level, color="0.6", linewidth=0.8, zorder=0)
    for own in axes[-1]:
        own.set_xlabel("snippet")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _projection(check: Check) -> Figure:
    abnormal = check.materials[ABNORMAL]
    if check.one_class:
        groups = {
            "real normal": abnormal.real,
            "real abnormal": [],
            "generated normal": [],
            "disturbed": abnormal.pseudo,
        }
    else:
        groups = {
            "real normal": check.materials[NORMAL].real,
            "real abnormal (selected)": abnormal.real,
            "generated normal": check.materials[NORMAL].pseudo,
            "generated abnormal": abnormal.pseudo,
        }
    rng = np.random.default_rng(0)
    size = check.sampler.feature_dim
    rows = {
        name: meant_rows(clips) if clips else np.empty((0, size), np.float32)
        for name, clips in groups.items()
    }
    thin = {
        name: own[rng.permutation(len(own))[:MAX_POINTS]] for name, own in rows.items()
    }
    figure, axes = new_figure(figsize=(8, 6))
    plot_projection(thin, axes=axes[0, 0])
    return figure


def _units(check: Check) -> Figure:
    figure, axes = new_figure(figsize=(8, 4))
    own = axes[0, 0]
    for number, (label, name) in enumerate(_real_classes(check).items()):
        clips = check.materials[ABNORMAL if check.one_class else label].real
        variance = reconstruct(check.sampler.vae, clips, label)[0].var(axis=0)
        own.plot(
            np.arange(1, len(variance) + 1),
            np.sort(variance)[::-1],
            color=COLOURS[number],
            linestyle=STYLES[number],
            label=f"unseen {name} snippets",
        )
    own.axhline(ACTIVE_VARIANCE, color="0.5", linewidth=0.8, label="in use: above this")
    own.set(xlabel="latent unit, the most active first", ylabel="variance")
    own.set_yscale("log")
    own.legend()
    return figure


def _training(check: Check) -> Figure:
    figure, axes = new_figure(figsize=(8, 4))
    if check.sampler.history:
        plot_history(check.sampler.history, axes=axes[0, 0])
    else:
        axes[0, 0].set_title("the run holds no training history")
    return figure


def _real_classes(check: Check) -> Mapping[int, str]:
    """The classes of the real videos that the sampler learned of."""
    return {NORMAL: CLASSES[NORMAL]} if check.one_class else CLASSES


def _cumulative(groups: Mapping[str, NDArray[Any]], axes: Axes) -> None:
    """Draw the share of the values at or below each value."""
    for number, (name, values) in enumerate(groups.items()):
        axes.ecdf(values, color=COLOURS[number], linestyle=STYLES[number], label=name)
    axes.set_ylabel("share of the snippets")
