"""What feature files hold, before anything is trained on them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .colours import Paint, plain
from .extras import track
from .features import Layout, open_features, read_list
from .pooling import blocks
from .shards import MANIFEST, MASKS
from .writing import WEIGHTS

ENDINGS = (".npy", ".npz", ".safetensors", ".mat")
NUM_BINS = 12
BAR = 40
# Widths that well-known extractors have.
EXTRACTORS = {
    512: "CLIP ViT-B",
    768: "CLIP ViT-L or Video Swin",
    1024: "I3D of one stream",
    2048: "I3D of ResNet-50 or of two streams",
    4096: "C3D",
}


class Inspection(NamedTuple):
    """What was found in feature files.

    Attributes:
        num_files: Files read.
        layout: Order of the axes in the files, "TD", "TND" or "NTD".
        dtype: Of the values in the files; several are joined by commas.
        num_crops: Crops N.
        feature_dim: Feature size D.
        lengths: Snippets T of each file.
        norms: Norm of each snippet, finite ones only, sorted.
        lowest: The lowest finite value.
        num_not_finite: Values that are NaN or infinite.
        not_finite_files: The files that hold them.
        num_zero: Snippets that are all zero.
        source: The files as a Python expression.
        key: Name of the features in files that hold several arrays.
    """

    num_files: int
    layout: str
    dtype: str
    num_crops: int
    feature_dim: int
    lengths: list[int]
    norms: list[float]
    lowest: float
    num_not_finite: int
    not_finite_files: list[str]
    num_zero: int
    source: str
    key: str | None = None

    @property
    def kind(self) -> str:
        """What the features would be taken for."""
        low, high = (self.norms[0], self.norms[-1]) if self.norms else (0.0, 0.0)
        held = "values of both signs, kept as generated"
        if self.lowest >= 0:
            held = "no value is negative, generated ones are clamped at 0"
        elif self.norms and low > 0.99 and high < 1.01:
            held = "all norms are 1, generated ones are scaled to 1"
        guess = EXTRACTORS.get(self.feature_dim)
        return f"{held}; the size is that of {guess}" if guess else held

    @property
    def call(self) -> str:
        """The Python line that takes the videos for `PseudoVideoSampler.fit`."""
        default = "TD" if self.layout == "TD" else "TND"
        layout = "" if self.layout == default else f", layout={self.layout!r}"
        key = "" if self.key is None else f", key={self.key!r}"
        imports = "from vad_pseudoaug import VideoSet"
        if self.source.startswith(find_files.__name__):
            imports += f"; from {__name__} import {find_files.__name__}"
        return f"{imports}; videos = VideoSet({self.source}{layout}{key})"

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values; of the norms, five quantiles."""
        own: dict[str, Any] = self._asdict()
        own["norms"] = None  # where no snippet is finite
        if self.norms:
            own["norms"] = np.quantile(self.norms, (0, 0.25, 0.5, 0.75, 1)).tolist()
        own["lowest"] = self.lowest if np.isfinite(self.lowest) else None
        return {**own, "taken_for": self.kind, "call": self.call}


class Files(list[Path]):
    """Feature files.

    Attributes:
        source: The Python expression that `VideoSet` finds them by again.
    """

    def __init__(self, files: Iterable[Path], source: str):
        super().__init__(files)
        self.source = source


def find_files(path: str | os.PathLike[str]) -> Files:
    """Return the feature files that a feature file, a folder or a list stands for.

    Raises:
        FileNotFoundError: If there is no such path.
        ValueError: If it holds no feature file.
    """
    if not os.fspath(path):
        raise FileNotFoundError("expected a path, got an empty one")
    path = Path(path)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
        found = [p for p in found if not _is_our_own(p)]
        if not found and any(path.glob(WEIGHTS)):
            raise ValueError(
                f"{path}: holds a run, not features; its videos are in config.json"
            )
        if not found:
            raise ValueError(
                f"{path}: expected feature files that end in {', '.join(ENDINGS)}, "
                "the folder has none"
            )
        return Files(found, f"{find_files.__name__}({str(path)!r})")
    if path.suffix.lower() in ENDINGS:
        return Files([path], repr([str(path)]))
    return Files(read_list(path), repr(str(path)))


def _is_our_own(path: Path) -> bool:
    """Tell weights of a run, and masks of pseudo videos, from features."""
    if path.suffix == ".safetensors" and (path.parent / "config.json").exists():
        return path.match(WEIGHTS)
    return any(
        above.name == MASKS and (above.parent / MANIFEST).exists()
        for above in path.parents
    )


def inspect_files(
    files: Sequence[Path],
    *,
    layout: Layout | None = None,
    key: str | None = None,
    progress: bool | None = None,
) -> Inspection:
    """Read all files once, some MiB at a time, and say what they hold.

    Args:
        files: Feature files of one feature size.
        layout: Order of the axes, see `read_features`.
        key: Name of the features in files that hold several arrays.
        progress: Show a bar; None decides by the terminal.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If a file is broken, or unlike the first one.
        TypeError: If a file does not hold real numbers.
    """
    norms: list[Any] = []
    lengths: list[int] = []
    dtypes: Counter[str] = Counter()
    lowest, not_finite, bad = np.inf, 0, []
    shape = None
    for file in track(files, "reading", show=progress):
        video = open_features(file, layout=layout, key=key)  # (N, T, D)
        dtypes[str(video.dtype)] += 1
        own = video.shape[0], video.shape[2]
        shape = shape or own
        if own != shape:
            raise ValueError(
                f"{file}: expected {shape[0]} crops of size {shape[1]} as in "
                f"{files[0]}, got {own[0]} of {own[1]}"
            )
        lengths.append(video.shape[1])
        before = not_finite
        for _, block in blocks(video):
            values = np.asarray(block, np.float64)
            finite = np.isfinite(values)
            not_finite += int((~finite).sum())
            lowest = min(lowest, float(values[finite].min(initial=np.inf)))
            whole = finite.all(axis=-1)
            norms.append(np.linalg.norm(values[whole], axis=-1))
        if not_finite > before:
            bad.append(str(file))
    if shape is None:
        raise ValueError("files: expected at least one feature file, got none")
    flat = np.sort(np.concatenate(norms))
    return Inspection(
        num_files=len(files),
        layout=layout or _layout(files[0], key),
        dtype=", ".join(dtypes),
        num_crops=shape[0],
        feature_dim=shape[1],
        lengths=lengths,
        norms=flat.tolist(),
        lowest=float(lowest),
        num_not_finite=not_finite,
        not_finite_files=bad,
        num_zero=int((flat == 0).sum()),
        source=getattr(files, "source", repr([str(file) for file in files])),
        key=key,
    )


def _layout(file: Path, key: str | None) -> str:
    """Tell `(T, D)` from `(T, N, D)` files: the first is refused as the second."""
    try:
        open_features(file, layout="TD", key=key)
    except ValueError:
        return "TND"
    return "TD"


def format_inspection(found: Inspection, *, paint: Paint = plain) -> str:
    """Say in some lines of text what was found; `paint` colours what is amiss."""
    lengths = np.array(found.lengths)
    rows = {
        "files": f"{found.num_files}, {found.dtype}",
        "layout": f"({', '.join(found.layout)})",
        "crops N": str(found.num_crops),
        "snippets T": f"{lengths.min()} to {lengths.max()}, median "
        f"{np.median(lengths):g}, {lengths.sum()} in all",
        "feature size D": str(found.feature_dim),
        "lowest value": f"{found.lowest:.4g}",
        "NaN or infinite": f"{found.num_not_finite} values in "
        f"{len(found.not_finite_files)} files",
        "all-zero snippets": str(found.num_zero),
        "taken for": found.kind,
        "call": found.call,
        "then": "PseudoVideoSampler.fit(normal, abnormal), both of them such videos",
    }
    width = max(map(len, rows))
    text = [f"{name:<{width}}  {value}" for name, value in rows.items()]
    for name in found.not_finite_files[:5]:
        line = f"not finite: {name}; fit refuses it, or use fit --skip-bad"
        text.append(paint(line, "bad"))
    return "\n".join([*text, "", "norms of the snippets", *histogram(found.norms)])


def histogram(values: Sequence[float]) -> list[str]:
    """Draw a histogram, one line a bin.

    Example:
        >>> histogram([0.0, 1.0, 1.0])[0].split()
        ['0', 'to', '0.0833', '####################', '1']
    """
    if not values:
        return ["  no finite snippet"]
    counts, edges = np.histogram(values, NUM_BINS)
    longest = counts.max()
    return [
        f"{low:>10.3g} to {high:>10.3g}  "
        f"{'#' * round(BAR * count / longest):<{BAR}} {count}"
        for count, low, high in zip(counts, edges, edges[1:], strict=False)
    ]
