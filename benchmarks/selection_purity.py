"""How pure is what the abnormal decoder learns of? On a set whose truth is known.

    python benchmarks/selection_purity.py            # a table, 5 seeds
    python benchmarks/selection_purity.py --json

For each recipe: the share of the selected snippets that is anomalous, the share of all
snippets that is selected, and the share of the anomalous ones that is found.
"""

from __future__ import annotations

import argparse
import json
import warnings

import numpy as np

from vad_pseudoaug import Recipe
from vad_pseudoaug.fitting import select_snippets
from vad_pseudoaug.synthetic import synthetic_set
from vad_pseudoaug.videos import as_pair

ROWS = {
    "paper": Recipe.named("paper"),
    "paper, ranked": Recipe.named("paper", selection="ranked"),
    "robust": Recipe.named("robust"),
    "robust, quantile 0.99": Recipe.named("robust", normal_quantile=0.99),
    "robust, any runs": Recipe.named("robust", min_run=1),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ROWS}
    for seed in range(options.seeds):
        made = synthetic_set(seed)
        normal, abnormal = as_pair(made.split.normal, made.split.abnormal)
        num_anomalous = sum(int(own.sum()) for own in made.truth)
        for name, recipe in ROWS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # videos without a selected snippet
                selection = select_snippets(
                    normal, abnormal, recipe, seed=seed, device="cpu", progress=False
                ).selection
            purity = made.purity(selection)
            found = purity * selection.num_selected / num_anomalous
            share = selection.num_selected / selection.num_snippets
            rows[name].append((purity, share, found))
    means = {name: np.mean(own, axis=0).tolist() for name, own in rows.items()}
    if options.json:
        print(json.dumps(means, indent=2))
        return
    print(f"{'selection':<24}{'purity':>8}{'selected':>10}{'found':>8}")
    for name, (purity, share, found) in means.items():
        print(f"{name:<24}{purity:>8.2f}{share:>10.2f}{found:>8.2f}")


if __name__ == "__main__":
    main()
