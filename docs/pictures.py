"""Make the pictures of README and documentation anew, from the features shipped.

    python docs/pictures.py            # those of pseudo videos, some minutes
    python docs/pictures.py --forest   # that of docs/evidence.md too: hours of training

The README's picture is text: it shows wherever the README does, also where no file of
the repository is at hand.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vad_pseudoaug import PseudoVideoSampler, VideoSet
from vad_pseudoaug.cli import main as run_command
from vad_pseudoaug.data import ped2
from vad_pseudoaug.plots import new_figure, plot_pseudo
from vad_pseudoaug.randomness import make_generator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
TITLES = {
    "paper": "paper: half of the snippets, anywhere",
    "robust": "robust: one run, of real abnormal snippets",
    "one-class": "one-class: one run, disturbed",
}
NAMES = {"paper": "pseudo"}  # the picture of README and index
LEVELS = "▁▂▃▄▅▆▇█"
PLACE = re.compile(r"(<!-- docs/pictures\.py -->\n).*?(\n<!-- end -->)", re.DOTALL)


def main() -> None:
    """Fit the three recipes on UCSD Ped2, and draw a pseudo video of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--forest", action="store_true", help="hours of training too")
    options = parser.parse_args()
    normal, abnormal = (VideoSet(ped2() / f"{n}.list") for n in ("normal", "abnormal"))
    source = max(normal, key=lambda video: video.shape[1])
    for recipe in TITLES:
        others = None if recipe == "one-class" else abnormal
        sampler = PseudoVideoSampler.fit(normal, others, recipe=recipe)
        pseudo = sampler.sample(source, label=1, generator=make_generator(1))
        figure, axes = new_figure(figsize=(6, 2.8))
        plot_pseudo(source, pseudo, title=TITLES[recipe], axes=axes[0, 0])
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(
            IMAGES / f"{NAMES.get(recipe, recipe)}.png",
            dpi=110,
            metadata={"Software": None},
        )
        if recipe == "robust":
            text = as_text(axes[0, 0], pseudo.pseudo_mask.numpy())
            into_readme(ROOT / "README.md", text)
    if options.forest:
        folder = ROOT / "build" / "ped2"  # interrupted, it goes on from there
        if run_command(["compare", "-o", str(folder)]):
            raise SystemExit("the comparison failed")
        shutil.copy(folder / "forest.png", IMAGES / "ped2-forest.png")


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
