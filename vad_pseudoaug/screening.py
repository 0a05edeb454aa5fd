"""Setting bad videos of a list aside, with a report, instead of stopping at them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from .claims import printable
from .extras import track
from .features import Layout, list_rows, read_features

Shape = tuple[int, int]


class BadVideo(NamedTuple):
    """A video that cannot be used, and the sentence that says why."""

    path: Path
    reason: str


class Screening(NamedTuple):
    """What `screen_list` found: videos that can be used, and those that cannot."""

    good: list[Path]
    bad: list[BadVideo]

    def report(self) -> list[dict[str, str]]:
        """Return the bad videos as JSON values."""
        return [{"file": str(path), "reason": reason} for path, reason in self.bad]


def screen_list(
    path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    layout: Layout | None = None,
    key: str | None = None,
    expected: Shape | None = None,
    taken: Iterable[Path] = (),
    progress: bool | None = None,
) -> Screening:
    """Read every video of a list once, and sort the bad ones out.

    Bad are files that are missing, broken, empty, of no finite numbers, named twice,
    or with another number of crops or feature size than the videos at large.

    Args:
        path: The list file.
        root: Folder that relative rows start from; None is the list's own folder.
        layout: Order of the axes in the files, see `read_features`.
        key: Name of the features in files that hold several arrays.
        expected: Crops and feature size (N, D); None takes those of most videos.
        taken: Videos of the other class: one that is in both lists is bad.
        progress: Show a bar; None decides by the terminal.

    Returns:
        The videos in the order of the list.

    Raises:
        FileNotFoundError: If there is no list file.
        ValueError: If it is no list, or no video in it can be used.
    """
    shapes: dict[Path, Shape] = {}
    bad: dict[int, BadVideo] = {}
    good: dict[int, Path] = {}
    # realpath takes links that lead in a circle, which Path.resolve does not.
    other = "is in the list of the other class too"
    seen = {os.path.realpath(video): other for video in taken}
    rows = list(list_rows(path, root=root))
    for number, video in track(rows, "screening", show=progress):
        real = os.path.realpath(video)
        reason = seen.get(real)
        if reason is None:
            try:
                features = read_features(video, layout=layout, key=key)
                shapes[video] = features.shape[0], features.shape[2]
            except (ValueError, TypeError, OSError) as error:
                reason = str(error).removeprefix(f"{video}: ")
        if reason is None:
            good[number] = video
            seen[real] = f"is named in row {number} already"
        else:
            bad[number] = BadVideo(video, reason)
    if shapes and expected is None:
        [(expected, _)] = Counter(shapes.values()).most_common(1)
    for number, video in list(good.items()):
        if shapes[video] != expected:
            bad[number] = BadVideo(
                good.pop(number),
                f"{_describe(shapes[video])}, the others have {_describe(expected)}",
            )
    found = Screening(list(good.values()), [bad[number] for number in sorted(bad)])
    if not bad and not good:
        raise ValueError(f"{path}: the list names no feature file")
    if not good:
        raise ValueError(
            f"{path}: none of {len(bad)} videos can be used, such as "
            f"{printable(str(found.bad[0].path))}: {printable(found.bad[0].reason)}"
        )
    return found


def _describe(shape: Shape | None) -> str:
    return "none" if shape is None else f"{shape[0]} crops of size {shape[1]}"


def screen_pair(
    normal: str | os.PathLike[str],
    abnormal: str | os.PathLike[str],
    *,
    say: Callable[[str], Any],
    layout: Layout | None = None,
    key: str | None = None,
) -> tuple[Screening, Screening]:
    """Screen the lists of both classes, and say what was set aside.

    Args:
        normal: List of normal videos.
        abnormal: List of abnormal videos. One that is in both lists is used in none:
            which of them errs cannot be told.
        say: Called with each line of the report.
        layout: See `screen_list`.
        key: See `screen_list`.

    Raises:
        FileNotFoundError: If there is no list file.
        ValueError: If one is no list, or no video in it can be used.
    """
    rows = [[video for _, video in list_rows(path)] for path in (normal, abnormal)]
    first = screen_list(normal, layout=layout, key=key, taken=rows[1])
    features = read_features(first.good[0], layout=layout, key=key)
    second = screen_list(
        abnormal,
        layout=layout,
        key=key,
        expected=(features.shape[0], features.shape[2]),
        taken=rows[0],
    )
    for path, found in ((normal, first), (abnormal, second)):
        for video, reason in found.bad:
            say(f"skipped {printable(str(video))}: {printable(reason)}")
        if found.bad:
            total = len(found.good) + len(found.bad)
            say(f"{path}: {len(found.good)} of {total} videos are used")
    return first, second
