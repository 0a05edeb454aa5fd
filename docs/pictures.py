"""Make the pictures of README and documentation: `python docs/pictures.py`."""

from __future__ import annotations

from pathlib import Path

from vad_pseudoaug import PseudoVideoSampler, VideoSet
from vad_pseudoaug.data import ped2
from vad_pseudoaug.plots import new_figure, plot_pseudo
from vad_pseudoaug.randomness import make_generator

IMAGES = Path(__file__).parent / "images"
TITLES = {
    "paper": "paper: half of the snippets, anywhere",
    "robust": "robust: one run, of real abnormal snippets",
    "one-class": "one-class: one run, disturbed",
}

NAMES = {"paper": "pseudo"}  # the README's picture


def main() -> None:
    """Fit the three recipes on UCSD Ped2, and draw a pseudo video of each."""
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


if __name__ == "__main__":
    main()
