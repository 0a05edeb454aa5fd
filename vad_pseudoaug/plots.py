"""Pictures; they need matplotlib, the extra `plots`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .extras import require
from .intervals import Interval
from .metrics import roc_auc, roc_curve
from .selection import runs_of
from .writing import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .check import Check
    from .generation import PseudoVideo

# Okabe and Ito's colours, told apart by colour-blind readers, each with a line style
# and a marker of its own for readers in greyscale.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = (
    *((6, 1), (3, 1, 1, 1, 1, 1), (10, 3), (1, 4)),
    *((8, 2, 2, 2), (2, 1), (5, 5), (9, 2, 1, 2, 1, 2)),
)
STYLES = ("-", "--", "-.", ":", *((0, dashes) for dashes in _DASHES))
MARKERS = ("o", "^", "s", "D", "v", "P")


def new_figure(rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Make a figure with a grid of axes, drawn without a display.

    Raises:
        ImportError: If matplotlib is not installed; it names the extra.
    """
    figure_module = require("matplotlib.figure", extra="plots")
    figure: Figure = figure_module.Figure(layout="constrained", **options)
    return figure, figure.subplots(rows, columns, squeeze=False)


def plot_roc(
    labels: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    *,
    title: str = "ROC curves (area under the curve)",
    axes: Axes | None = None,
) -> Axes:
    """Draw ROC curves of several scorers (the paper's figures 4 and 5).

    Args:
        labels: `(F,)`, 0 or 1 a frame.
        scores: For each name `(F,)`.
        title: Above the picture.
        axes: Where to draw; None makes a new figure.
    """
    axes = axes if axes is not None else new_figure(figsize=(5, 5))[1][0, 0]
    for number, (name, values) in enumerate(scores.items()):
        false_positive, true_positive = roc_curve(labels, values)
        axes.plot(
            false_positive,
            true_positive,
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number % len(STYLES)],
            label=f"{name} ({roc_auc(labels, values):.3f})",
        )
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, zorder=0)
    axes.set(
        xlabel="false positive rate of frames",
        ylabel="true positive rate of frames",
        title=title,
        aspect="equal",
    )
    axes.legend(loc="lower right")
    return axes


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as a picture, whole or not at all."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


def plot_scores(
    frame_labels: NDArray[Any],
    scores: Mapping[str, NDArray[Any]],
    *,
    title: str = "",
    axes: Axes | None = None,
) -> Axes:
    """Draw scores over time, with the true anomalous intervals shaded.

    Args:
        frame_labels: `(F,)`, 0 or 1 a frame.
        scores: For each name `(F,)` in [0, 1].
        title: Above the picture.
        axes: Where to draw; None makes a new figure, with a legend.

    Raises:
        ValueError: If there is not one score a frame.
    """
    for name, values in scores.items():
        if np.shape(values) != np.shape(frame_labels):
            raise ValueError(
                f"scores of {name!r}: expected {len(frame_labels)} values, one a "
                f"frame, got shape {np.shape(values)}; baseline.to_frames makes them "
                "of scores of snippets"
            )
    is_new = axes is None
    axes = axes if axes is not None else new_figure(figsize=(7, 3))[1][0, 0]
    for number, (start, end) in enumerate(runs_of(frame_labels)):
        axes.axvspan(
            start, end, color="0.85", label=None if number else "anomalous (truth)"
        )
    for number, (name, values) in enumerate(scores.items()):
        axes.plot(
            values,
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number % len(STYLES)],
            label=name,
        )
    axes.set(
        xlabel="frame",
        ylabel="anomaly score",
        title=title,
        ylim=(-0.03, 1.03),
        xlim=(0, len(frame_labels)),
    )
    if is_new:
        _legend_below(axes)
    return axes


def plot_pseudo(
    source: NDArray[Any],
    pseudo: PseudoVideo,
    *,
    title: str = "",
    axes: Axes | None = None,
) -> Axes:
    """Draw a video and a pseudo video of it over time, the generated part shaded.

    Drawn is where each snippet lies along the direction in which the snippets of both
    videos differ most. Outside the shaded part, the two lines are the same.

    Args:
        source: `(N, T, D)` or `(T, D)`, the real video. Crops are averaged.
        pseudo: What `sample(source, label=...)` gave.
        title: Above the picture.
        axes: Where to draw; None makes a new figure, with a legend.

    Raises:
        ValueError: If the pseudo video is a batch, or not as long as the source.
    """
    mask = np.asarray(pseudo.pseudo_mask.cpu())
    made = np.asarray(pseudo.features.cpu(), np.float64)
    source = np.asarray(source, np.float64)
    if mask.ndim != 1 or made.shape != source.shape:
        raise ValueError(
            f"pseudo: expected one pseudo video of the shape of its source, "
            f"{source.shape}, got {made.shape}; unbind() gives single ones"
        )
    num_snippets, feature_dim = source.shape[-2:]
    both = np.stack([source, made]).reshape(2, -1, num_snippets, feature_dim)
    rows = both.mean(axis=1)  # (2, T, D)
    flat = rows.reshape(-1, feature_dim)
    centre = flat.mean(axis=0)
    direction = np.linalg.svd(flat - centre, full_matrices=False)[2][0]
    lines = (rows - centre) @ direction  # (2, T)
    if mask.any() and (lines[1] - lines[0])[mask].mean() < 0:
        lines = -lines  # of both signs, the one with the generated part above
    is_new = axes is None
    axes = axes if axes is not None else new_figure(figsize=(6, 3))[1][0, 0]
    for number, (start, end) in enumerate(runs_of(mask)):
        axes.axvspan(
            start - 0.5, end - 0.5, color="0.87", label=None if number else "generated"
        )
    kinds = ("normal", "abnormal")
    for number, (values, name) in enumerate(
        zip(
            lines[::-1],
            (f"pseudo {kinds[pseudo.label]} video", f"{kinds[1 - pseudo.label]} video"),
            strict=True,
        )
    ):
        axes.plot(
            values,
            color=COLOURS[1 - number],
            linestyle="-" if number else "--",
            marker=MARKERS[1 - number],
            markersize=4 if number else 7,
            markerfacecolor=COLOURS[0] if number else "white",
            label=name,
        )
    axes.set(
        xlabel="snippet",
        ylabel="main direction of the features",
        title=title,
        xlim=(-0.5, num_snippets - 0.5),
    )
    axes.locator_params(axis="x", integer=True)
    if is_new:
        _legend_below(axes)
    return axes


def _legend_below(axes: Axes) -> None:
    """Say below a figure of one picture what its lines are."""
    figure: Any = axes.figure
    figure.legend(loc="outside lower center", ncols=3, frameon=False)


def plot_projection(
    groups: Mapping[str, NDArray[Any]], *, axes: Axes | None = None
) -> Axes:
    """Draw features in two dimensions: the main axes of the first two groups.

    Args:
        groups: For each name `(M, D)`. The axes are the two principal components of
            the first two groups, so that pseudo features drawn after them cannot
            choose them. Those after them are hollow, in the marks of the first two:
            real normal and abnormal, then pseudo normal and abnormal. One without
            rows is left out, and keeps its place.
        axes: Where to draw; None makes a new figure.
    """
    axes = axes if axes is not None else new_figure(figsize=(6, 5))[1][0, 0]
    real = np.concatenate(list(groups.values())[:2]).astype(np.float64)
    centre = real.mean(axis=0)
    _, spread, directions = np.linalg.svd(real - centre, full_matrices=False)
    explained = spread[:2] ** 2 / (spread**2).sum()
    for number, (name, features) in enumerate(groups.items()):
        if not len(features):
            continue
        flat = (features - centre) @ directions[:2].T  # (M, 2)
        axes.scatter(
            flat[:, 0],
            flat[:, 1],
            s=22,
            marker=MARKERS[number % 2],
            facecolors="none" if number > 1 else COLOURS[number % 2],
            edgecolors=COLOURS[number % 2],
            alpha=0.8,
            label=name,
        )
    axes.set(
        xlabel=f"first component ({explained[0]:.0%} of the real variance)",
        ylabel=f"second component ({explained[1]:.0%})",
        title="Snippet features",
    )
    # Below the picture: above it, there is no place that is free in every picture.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    return axes


def plot_forest(
    differences: Mapping[str, Interval],
    *,
    title: str = "",
    xlabel: str = "difference in points",
    axes: Axes | None = None,
) -> Axes:
    """Draw differences in [-1, 1] with their intervals, one a row, in points.

    A filled marker is a difference whose interval leaves out 0.

    Args:
        differences: For each name its difference.
        title: Above the picture.
        xlabel: What the differences are of.
        axes: Where to draw; None makes a new figure.
    """
    axes = axes if axes is not None else new_figure(figsize=(5, 4))[1][0, 0]
    for row, interval in enumerate(differences.values()):
        mean, low, high = (100 * value for value in interval)
        is_clear = low > 0 or high < 0
        axes.errorbar(
            mean,
            row,
            xerr=[[mean - low], [high - mean]],
            color=COLOURS[0],
            marker="o",
            markerfacecolor=COLOURS[0] if is_clear else "white",
            capsize=3,
        )
    axes.axvline(0, color="0.5", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(differences)), labels=list(differences))
    axes.invert_yaxis()
    axes.set(xlabel=xlabel, title=title)
    return axes


def plot_gates(check: Check, *, axes: Axes | None = None) -> Axes:
    """Draw the gates of a check, one a row, each on a scale of its own.

    The figures of a row are divided by the largest of them. A filled circle is a gate
    that passed, a filled cross one that failed; hollow marks are the same figure of
    real videos, and between the two classes of real videos, where there is one.

    Args:
        check: What `check_sampler` gave.
        axes: Where to draw; None makes a new figure.
    """
    rows = [(part, gate) for part, gates in check.gates.items() for gate in gates]
    if axes is None:
        axes = new_figure(figsize=(9, 1.2 + 0.32 * len(rows)))[1][0, 0]
    kinds = (
        ("passed", "o", COLOURS[0], COLOURS[0]),
        ("failed", "X", COLOURS[1], COLOURS[1]),
        ("real videos", "s", "0.3", "none"),
        ("the two classes", "^", "0.3", "none"),
    )
    places: list[list[tuple[float, int]]] = [[] for _ in kinds]
    for row, (_, gate) in enumerate(rows):
        figures = (gate.value, gate.floor, gate.contrast)
        largest = max((abs(v) for v in figures if v is not None), default=0) or 1.0
        kind = 0 if gate.passed else 1
        for number, value in zip((kind, 2, 3), figures, strict=True):
            if value is not None and np.isfinite(value):
                places[number].append((value / largest, row))
        axes.annotate(
            f"{gate.value:.3g}, passes if {gate.accept}",
            (1.02, row),
            xycoords=("axes fraction", "data"),
            verticalalignment="center",
            fontsize="small",
        )
    for (name, marker, edge, face), points in zip(kinds, places, strict=True):
        if points:
            x, y = zip(*points, strict=True)
            axes.scatter(
                x, y, marker=marker, edgecolors=edge, facecolors=face, label=name
            )
    axes.set_yticks(range(len(rows)), labels=[f"{p}: {gate.name}" for p, gate in rows])
    axes.set_xticks([0, 1], labels=["0", "largest"])
    axes.grid(axis="y", color="0.9", zorder=0)
    axes.set_axisbelow(True)
    axes.invert_yaxis()
    axes.set(title="Quality gates")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=4, frameon=False)
    return axes


def plot_history(
    history: Sequence[Mapping[str, float]], *, axes: Axes | None = None
) -> Axes:
    """Draw the terms of a training history over its epochs.

    Args:
        history: What `PseudoVideoSampler.history` or `Baseline.history` holds.
        axes: Where to draw; None makes a new figure.
    """
    axes = axes if axes is not None else new_figure(figsize=(6, 4))[1][0, 0]
    names = [name for name in history[0] if name != "lr"]
    for number, name in enumerate(names):
        axes.plot(
            range(1, len(history) + 1),
            [entry[name] for entry in history],
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number % len(STYLES)],
            label=_term(name),
        )
    axes.set(xlabel="epoch", ylabel="mean over the snippets", yscale="log")
    axes.locator_params(axis="x", integer=True)
    axes.legend()
    return axes


def _term(name: str) -> str:
    """Name a term of a loss for a reader: `kl_normal` as "KL divergence, normal"."""
    kind, _, of = name.partition("_")
    words = {"kl": "KL divergence", "reconstruction": "squared error"}
    return f"{words[kind]}, {of}" if kind in words and of else name.replace("_", " ")
