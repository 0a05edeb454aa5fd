"""The demo: does it help, on the real features that the package ships?

Everything a paper's table needs, small: several draws of the UCSD Ped2 protocol, two
hosts, each trained with and without pseudo videos from the same seed, last epoch's
weights, judged on videos that no choice was made on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .baseline import Baseline, Score
from .checkpoint import write_json
from .extras import require
from .intervals import Interval, paired_bootstrap
from .metrics import FrameFigures
from .plots import (
    new_figure,
    plot_history,
    plot_projection,
    plot_roc,
    plot_scores,
    save_figure,
)
from .protocol import Split, ped2_split
from .sampler import PseudoVideoSampler
from .vae import CLASS_NAMES
from .videos import VideoSet

HOSTS = ("baseline", "RTFM-style")
FIGURES = ("auc", "ap")


class DemoRow(NamedTuple):
    """One host, one figure, over all draws; values in [0, 1], `(R,)` each."""

    host: str
    figure: str
    without: NDArray[np.float64]
    with_pseudo: NDArray[np.float64]

    @property
    def difference(self) -> Interval:
        """The paired difference with its 95 % interval over the draws."""
        return paired_bootstrap(self.with_pseudo - self.without)


def run_demo(
    folder: str | os.PathLike[str],
    *,
    num_draws: int = 5,
    say: Callable[[str], None] = lambda line: None,
    progress: bool | None = None,
    **choices: Any,
) -> list[DemoRow]:
    """Train and compare, write pictures and `demo.json` to a folder.

    Args:
        folder: Made if it does not exist.
        num_draws: Number of draws of the protocol, and thus of paired runs; at least 2.
        say: Gets a line about each step.
        progress: Show bars; None decides by the terminal.
        **choices: Choices of the recipe to change.

    Raises:
        ImportError: If matplotlib is not installed; it names the extra.
    """
    require("matplotlib", extra="plots")  # before minutes of training, not after
    folder = Path(folder)
    results: list[dict[tuple[str, bool], FrameFigures]] = []
    for draw in range(num_draws):
        split = ped2_split(draw)
        say(
            f"draw {draw + 1} of {num_draws}: learning from {split.counts[0]} normal "
            f"and {split.counts[1]} abnormal videos"
        )
        sampler = PseudoVideoSampler.fit(
            split.normal, split.abnormal, seed=draw, progress=progress, **choices
        )
        chosen = sampler.selection
        say(
            f"  {chosen['num_selected']} of {chosen['num_snippets']} snippets of the "
            "abnormal videos selected as abnormal"
        )
        scores = {
            (host, pseudo): _train(host, split, sampler if pseudo else None, seed=draw)
            for host in HOSTS
            for pseudo in (False, True)
        }
        results.append({run: split.evaluate(score) for run, score in scores.items()})
        for host in HOSTS:
            without, with_pseudo = (
                results[-1][host, flag].auc for flag in (False, True)
            )
            say(f"  {host}: frame AUC {without:.3f} alone, {with_pseudo:.3f} with them")
        if draw == 0:
            _draw_pictures(folder, split, sampler, scores)
    rows = [
        DemoRow(
            host,
            figure,
            *(
                np.array([getattr(result[host, flag], figure) for result in results])
                for flag in (False, True)
            ),
        )
        for host in HOSTS
        for figure in FIGURES
    ]
    write_json(folder / "demo.json", [_to_json(row) for row in rows])
    return rows


def format_table(rows: list[DemoRow]) -> str:
    """Lay the figures out as a table, in percent."""
    lines = [
        f"{'host':<12}{'figure':<8}{'alone':>14}{'with pseudo':>16}   "
        "difference [95 % interval]"
    ]
    for row in rows:
        alone, together = (
            f"{100 * v.mean():.2f} +- {100 * v.std(ddof=1):.2f}"
            for v in (row.without, row.with_pseudo)
        )
        mean, low, high = (100 * value for value in row.difference)
        lines.append(
            f"{row.host:<12}{row.figure.upper():<8}{alone:>14}{together:>16}   "
            f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
        )
    return "\n".join(lines)


def _train(
    host: str, split: Split, sampler: PseudoVideoSampler | None, *, seed: int
) -> Score:
    """Train a host with as many pseudo videos as the recipe makes, or alone."""
    if host == "baseline":
        groups = [list(VideoSet(own)) for own in (split.normal, split.abnormal)]
        for label, videos in enumerate(groups):
            if sampler is not None and sampler.recipe.rate(label):
                made = sampler.draw(label=label).unbind()
                videos += [video.features.numpy() for video in made]
        model = Baseline.fit(*groups, validation_share=0, seed=seed, progress=False)
        return lambda features: model.score([features])[0]
    from vad_pseudoaug.examples import rtfm_style

    trained = rtfm_style.train(split.normal, split.abnormal, sampler=sampler, seed=seed)
    return lambda features: rtfm_style.score(trained, features)


def _draw_pictures(
    folder: Path,
    split: Split,
    sampler: PseudoVideoSampler,
    scores: dict[tuple[str, bool], Score],
) -> None:
    """Draw the pictures of one draw."""
    named = {
        f"{host} + pseudo videos" if pseudo else host: score
        for (host, pseudo), score in scores.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = new_figure(figsize=(6, 6))
    plot_roc(
        np.concatenate(split.labels),
        {
            name: np.concatenate(split.frame_scores(score))
            for name, score in named.items()
        },
        axes=axes[0, 0],
    )
    save_figure(figure, folder / "roc.png")

    mixed = [v for v in split.test if 0.2 < v.frame_labels.mean() < 0.9][:3]
    normal = [v for v in split.test if not v.frame_labels.any()][:1]
    figure, axes = new_figure(len(mixed + normal), figsize=(8, 9))
    for axis, video in zip(axes[:, 0], mixed + normal, strict=True):
        one = Split([], [], [video])
        plot_scores(
            video.frame_labels,
            {name: one.frame_scores(score)[0] for name, score in named.items()},
            title=f"test video {video.name}",
            axes=axis,
        )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    save_figure(figure, folder / "scores.png")

    groups = {
        "real, normal videos": _snippets(split.normal),
        "real, abnormal videos": _snippets(split.abnormal),
    }
    for label, name in CLASS_NAMES.items():
        made = np.empty((0, sampler.feature_dim))
        if sampler.recipe.rate(label):
            made = _generated(sampler.draw(label=label, num_segments=8))
        groups[f"pseudo {name}"] = made
    figure, axes = new_figure(figsize=(7, 6))
    plot_projection(groups, axes=axes[0, 0])
    save_figure(figure, folder / "features.png")

    figure, axes = new_figure(figsize=(7, 4))
    plot_history(sampler.history, axes=axes[0, 0])
    save_figure(figure, folder / "training.png")


def _snippets(videos: Any) -> NDArray[Any]:
    rows = [v.reshape(-1, v.shape[-1]) for v in VideoSet(videos)]
    return np.concatenate(rows)


def _generated(pseudo: Any) -> NDArray[Any]:
    """The generated snippets of a batch, without those that were kept."""
    rows: NDArray[Any] = pseudo.features.transpose(1, 2)[pseudo.pseudo_mask].numpy()
    return rows.reshape(-1, rows.shape[-1])


def _to_json(row: DemoRow) -> dict[str, Any]:
    return {
        "host": row.host,
        "figure": row.figure,
        "without": row.without.tolist(),
        "with_pseudo": row.with_pseudo.tolist(),
        "difference": row.difference._asdict(),
    }
