"""Make the pictures of README and documentation anew, from the features shipped.

    python docs/pictures.py            # all of them, some minutes
    python docs/pictures.py --forest   # those of docs/evidence.md alone, by its tables

The README's picture is text: it shows wherever the README does, also where no file of
the repository is at hand.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vad_pseudoaug import PseudoVideoSampler, VideoSet
from vad_pseudoaug.data import ped2
from vad_pseudoaug.intervals import Interval
from vad_pseudoaug.plots import plot_pseudo
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.summary import draw_forest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
TITLES = {
    "paper": "paper: half of the snippets, anywhere",
    "robust": "robust: one run, moved by what the decoders differ in",
    "one-class": "one-class: one run, moved by one random vector",
}
NAMES = {"paper": "pseudo"}
# Which tables of docs/evidence.md a picture is of.
FORESTS = {
    "ped2-forest.png": "UCSD Ped2: I3D features, ten draws",
    "sht-forest.png": "ShanghaiTech: track features, the official split, ten seeds",
}
LEVELS = "▁▂▃▄▅▆▇█"
PLACE = re.compile(r"(<!-- docs/pictures\.py -->\n).*?(\n<!-- end -->)", re.DOTALL)


def main() -> None:
    """Draw the tables of the evidence, and a pseudo video of each recipe on Ped2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--forest", action="store_true", help="the evidence alone")
    options = parser.parse_args()
    evidence = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    for name, heading in FORESTS.items():
        figure = draw_forest(read_differences(evidence, heading), "none")
        figure.savefig(IMAGES / name, dpi=120, metadata={"Software": None})
    if options.forest:
        return
    normal, abnormal = (VideoSet(ped2() / f"{n}.list") for n in ("normal", "abnormal"))
    source = max(normal, key=lambda video: video.shape[1])
    for recipe in TITLES:
        others = None if recipe == "one-class" else abnormal
        sampler = PseudoVideoSampler.fit(normal, others, recipe=recipe)
        pseudo = sampler.sample(source, label=1, generator=make_generator(1))
        axes = plot_pseudo(source, pseudo, title=TITLES[recipe])
        axes.figure.savefig(
            IMAGES / f"{NAMES.get(recipe, recipe)}.png",
            dpi=110,
            metadata={"Software": None},
        )
        if recipe == "robust":
            text = as_text(axes, pseudo.pseudo_mask.numpy())
            into_readme(ROOT / "README.md", text)


def read_differences(
    text: str, heading: str
) -> dict[str, dict[str, dict[str, Interval]]]:
    """Read the differences from `none` of the tables below a heading, by host."""
    _, _, section = text.partition(f"\n## {heading}\n")
    section, _, _ = section.partition("\n## ")
    found: dict[str, dict[str, dict[str, Interval]]] = {}
    for host, table in re.findall(r"Host `(\w+)`[^\n]*\n\n((?:\|.*\n)+)", section):
        head, _, *rows = (
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in table.splitlines()
        )
        found[host] = {"auc": {}, "ap": {}}
        for row in rows:
            cells = dict(zip(head, row, strict=True))
            for figure, own in found[host].items():
                if cell := cells[f"{figure.upper()} - none"]:
                    values = re.findall(r"[+-]\d+\.\d+", cell)
                    own[cells["arm"]] = Interval(*(float(v) / 100 for v in values))
    if not found:
        raise ValueError(f"{heading}: no such tables in docs/evidence.md")
    return found


def as_text(axes: Axes, mask: np.ndarray) -> str:
    """Draw the lines of `plot_pseudo` as text, one column a snippet."""
    lines = {str(line.get_label()): line.get_ydata() for line in axes.get_lines()}
    both = np.concatenate(list(lines.values()))
    low, step = both.min(), np.ptp(both) / (len(LEVELS) - 1)
    rows = {
        name: "".join(2 * LEVELS[round((v - low) / step)] + " " for v in values)
        for name, values in reversed(lines.items())
    }
    rows["generated"] = "".join("^^ " if made else "   " for made in mask)
    width = max(map(len, rows))
    return "\n".join(
        f"    {name:<{width}}  {row}".rstrip() for name, row in rows.items()
    )


def into_readme(path: Path, text: str) -> None:
    """Put a picture of text in the place of the one that a README has."""
    readme = path.read_text(encoding="utf-8")
    changed, count = PLACE.subn(lambda found: f"{found[1]}\n{text}\n{found[2]}", readme)
    if count != 1:
        raise ValueError(f"{path}: expected one place for the picture, got {count}")
    path.write_text(changed, encoding="utf-8")


if __name__ == "__main__":
    main()
