"""What a comparison found: figures of each arm, and paired differences between arms."""

from __future__ import annotations

import csv
import math
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .checkpoint import atomic_path, write_json
from .compare import Comparison, Run
from .intervals import Interval, Resampled, hierarchical_bootstrap, resample
from .metrics import FrameFigures, Ranking
from .plots import new_figure, plot_forest, plot_roc, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST_ON_TEST = "best_on_test"
FIGURES = (*FrameFigures._fields, BEST_ON_TEST)
# What differences are computed of, with the name of the ranking's method.
COMPARED = {"auc": "auc", "ap": "average_precision"}
TITLES = {
    "auc": "AUC",
    "ap": "AP",
    "abnormal_auc": "AUC, abnormal videos alone",
    "false_alarms": "false alarms",
    BEST_ON_TEST: "best AUC on test",
}


@dataclass(frozen=True)
class ArmResult:
    """What one arm gave one host, over all seeds.

    Attributes:
        host: Name of the host.
        arm: Name of the arm.
        num_extra: For each seed, videos added to the normal and to the abnormal ones.
        values: For each of `FIGURES` `(R,)`, one a seed, in [0, 1]; NaN where a seed
            has none.
        differences: For each other arm and each of `COMPARED`, what this arm has more,
            with its 95 % interval over seeds and test videos.
    """

    host: str
    arm: str
    num_extra: Sequence[tuple[int, int]]
    values: Mapping[str, NDArray[np.float64]]
    differences: Mapping[str, Mapping[str, Interval]]


def summarise(
    comparison: Comparison,
    runs: Sequence[Run],
    *,
    against: Sequence[str] | None = None,
    num_resamples: int = 500,
) -> list[ArmResult]:
    """Compare each arm with some others, host by host.

    Args:
        comparison: What was compared.
        runs: All of its runs.
        against: Names of the arms to compare with; None takes the first arm.
        num_resamples: Resamples of the test videos, and of the seeds.

    Raises:
        ValueError: If a run is missing, or there is no such arm.
    """
    names = [arm.name for arm in comparison.arms]
    against = names[:1] if against is None else against
    unknown = sorted(set(against) - set(names))
    if unknown:
        raise ValueError(f"no arm {', '.join(unknown)}; there is {', '.join(names)}")
    by_key = {(run.host, run.arm, run.seed): run for run in runs}
    seeds = comparison.seeds
    missing = [
        (host, name, seed)
        for host in comparison.hosts
        for name in names
        for seed in seeds
        if (host, name, seed) not in by_key
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} runs are missing, such as host, arm, seed {missing[0]}"
        )
    splits = [comparison.data.split(seed) for seed in seeds]
    results = []
    for host in comparison.hosts:
        resampled: dict[str, dict[str, Resampled]] = {}
        for name in names:
            ranked = [
                (
                    [video.name for video in split.test],
                    Ranking(
                        split.labels, split.to_frames(by_key[host, name, seed].scores)
                    ),
                )
                for seed, split in zip(seeds, splits, strict=True)
            ]
            resampled[name] = {
                figure: resample(ranked, figure=method, num_resamples=num_resamples)
                for figure, method in COMPARED.items()
            }
        for name in names:
            own = [by_key[host, name, seed] for seed in seeds]
            results.append(
                ArmResult(
                    host,
                    name,
                    [run.num_extra for run in own],
                    {figure: _values(own, figure) for figure in FIGURES},
                    {
                        other: {
                            figure: hierarchical_bootstrap(
                                resampled[name][figure], resampled[other][figure]
                            )
                            for figure in COMPARED
                        }
                        for other in against
                        if other != name
                    },
                )
            )
    return results


def write_summary(
    folder: str | os.PathLike[str],
    comparison: Comparison,
    runs: Sequence[Run],
    results: Sequence[ArmResult],
    *,
    pictures: bool = True,
) -> None:
    """Write `summary.json`, `summary.md`, `runs.csv` and, with pictures, two PNG files.

    `forest.png` has the differences from the first arm, `roc.png` the ROC curves of
    the first seed.

    Raises:
        ImportError: If pictures are asked for without matplotlib; it names the extra.
    """
    folder = Path(folder)
    write_json(folder / "summary.json", [_to_json(result) for result in results])
    with atomic_path(folder / "summary.md") as temporary:
        temporary.write_text(format_tables(results) + "\n", encoding="utf-8")
    with (
        atomic_path(folder / "runs.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["host", "arm", "seed", *FIGURES, "seconds"])
        for run in runs:
            figures = (*run.figures, run.best_on_test, round(run.seconds, 1))
            writer.writerow([run.host, run.arm, run.seed, *figures])
    if not pictures:
        return
    hosts = list(dict.fromkeys(result.host for result in results))
    first = comparison.arms[0].name
    found = {
        host: {
            name: {
                result.arm: result.differences[first][name]
                for result in results
                if result.host == host and first in result.differences
            }
            for name in COMPARED
        }
        for host in hosts
    }
    figure = draw_forest(found, first)
    save_figure(figure, folder / "forest.png")
    first_seed = comparison.first_seed
    split = comparison.data.split(first_seed)
    figure, axes = new_figure(1, len(hosts), figsize=(6 * len(hosts), 6.5))
    for column, host in enumerate(hosts):
        plot_roc(
            np.concatenate(split.labels),
            {
                run.arm: np.concatenate(split.to_frames(run.scores))
                for run in runs
                if run.host == host and run.seed == first_seed
            },
            title=f"{host}, seed {first_seed} (area under the curve)",
            axes=axes[0, column],
        )
    save_figure(figure, folder / "roc.png")


def draw_forest(
    differences: Mapping[str, Mapping[str, Mapping[str, Interval]]], first: str
) -> Figure:
    """Draw the differences of arms from a first one, a column a host.

    Args:
        differences: For each host and each of `COMPARED`, those of the arms.
        first: What the first arm is called.

    Raises:
        ImportError: If matplotlib is not installed; the message names the extra.
    """
    most = max(len(own) for host in differences.values() for own in host.values())
    figure, axes = new_figure(
        len(COMPARED),
        len(differences),
        figsize=(5 * len(differences), 2.5 + 0.3 * most * len(COMPARED)),
    )
    for column, (host, found) in enumerate(differences.items()):
        for row, name in enumerate(COMPARED):
            plot_forest(
                found[name],
                title=host,
                xlabel=f"{TITLES[name]}, difference in percentage points",
                axes=axes[row, column],
            )
    title = (
        f"Difference from the arm '{first}', with its 95 % interval over seeds and "
        "test videos; filled where the interval leaves out 0"
    )
    figure.suptitle(textwrap.fill(title, 46 * len(differences)))
    return figure


def format_added(num_extra: Sequence[tuple[int, int]]) -> str:
    """Say how many videos an arm added to the normal and to the abnormal ones.

    Example:
        >>> format_added([(12, 8), (12, 8)])
        '12 + 8'
        >>> format_added([(0, 21), (0, 0), (0, 63)])  # "auto" chose anew for each seed
        '0 + 0 to 63'
    """
    ranges = []
    for counts in zip(*num_extra, strict=True):
        low, high = min(counts), max(counts)
        ranges.append(f"{low}" if low == high else f"{low} to {high}")
    return " + ".join(ranges)


def format_tables(results: Sequence[ArmResult]) -> str:
    """Lay out the figures and the differences, in percent, as Markdown."""
    parts = []
    for host in dict.fromkeys(result.host for result in results):
        own = [result for result in results if result.host == host]
        parts += [
            f"Host {host}, {len(own[0].values['auc'])} seeds: mean +- spread",
            _table(["arm", "videos added", *TITLES.values()], map(_figures_row, own)),
        ]
        # An arm lacks itself: the order is that of the last one, which rarely does.
        against = list(
            dict.fromkeys(name for one in reversed(own) for name in one.differences)
        )
        head = [f"{TITLES[f]} - {name}" for name in against for f in COMPARED]
        if against:
            parts += [
                f"Host {host}: paired differences [95 % interval over seeds and test "
                "videos]; * where it leaves out 0",
                _table(["arm", *head], (_differences_row(one, against) for one in own)),
            ]
    return "\n\n".join(parts)


def _figures_row(result: ArmResult) -> list[str]:
    cells = [_mean_and_spread(result.values[name]) for name in TITLES]
    return [result.arm, format_added(result.num_extra), *cells]


def _differences_row(result: ArmResult, against: Sequence[str]) -> list[str]:
    cells = []
    for other in against:
        found = result.differences.get(other)
        for name in COMPARED:
            cells.append("" if found is None else _with_interval(found[name]))
    return [result.arm, *cells]


def _mean_and_spread(values: NDArray[np.float64]) -> str:
    if np.isnan(values).any():
        return "-"
    return f"{100 * values.mean():.2f} +- {100 * values.std(ddof=1):.2f}"


def _with_interval(interval: Interval) -> str:
    mean, low, high = (100 * value for value in interval)
    mark = " *" if low > 0 or high < 0 else ""
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]{mark}"


def _table(head: Sequence[str], rows: Iterator[list[str]]) -> str:
    cells = [list(head), *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in cells
    )


def _values(runs: Sequence[Run], figure: str) -> NDArray[np.float64]:
    found = [
        run.best_on_test if figure == BEST_ON_TEST else getattr(run.figures, figure)
        for run in runs
    ]
    return np.array([math.nan if v is None else v for v in found], dtype=np.float64)


def _to_json(result: ArmResult) -> dict[str, Any]:
    return {
        "host": result.host,
        "arm": result.arm,
        "num_extra": [list(pair) for pair in result.num_extra],
        "values": {
            name: [value if math.isfinite(value) else None for value in values.tolist()]
            for name, values in result.values.items()
        },
        "differences": {
            other: {name: interval._asdict() for name, interval in found.items()}
            for other, found in result.differences.items()
        },
    }
