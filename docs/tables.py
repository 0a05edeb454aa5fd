"""Print the tables of docs/evidence.md from what `vad-pseudoaug compare` wrote.

    python docs/tables.py sht/ none cutmix mean-shift

One table for each host, figures in percent: the columns "AUC - ARM" are for the arms
named, which `compare --against` must have named, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from vad_pseudoaug.summary import format_added


def format_host(results: list[dict[str, Any]], against: list[str]) -> str:
    """Lay out the arms of one host as a Markdown table."""
    count = len(results[0]["values"]["auc"])
    head = ["arm", "added", "AUC", "best on test", "AP"]
    head += [f"AUC - {arm}" for arm in against] + [f"AP - {against[0]}"]
    rows = [head, ["---"] * len(head)]
    for result in results:
        values = {name: 100 * np.array(own) for name, own in result["values"].items()}
        auc, ap = (
            f"{values[name].mean():.1f} +- {values[name].std(ddof=1):.1f}"
            for name in ("auc", "ap")
        )
        row = [result["arm"], format_added(result["num_extra"])]
        row += [auc, f"{values['best_on_test'].mean():.1f}", ap]
        row += [_interval(result, arm, "auc") for arm in against]
        rows.append([*row, _interval(result, against[0], "ap")])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    title = f"Host `{results[0]['host']}`, {count} seeds, frame-level AUC and AP in"
    return "\n".join([f"{title} percent:", "", *lines])


def _interval(result: dict[str, Any], arm: str, figure: str) -> str:
    if arm not in result["differences"]:
        return ""  # the arm itself
    found = result["differences"][arm][figure]
    mean, low, high = (100 * found[name] for name in ("mean", "low", "high"))
    star = " *" if low > 0 or high < 0 else ""
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]{star}"


def main() -> None:
    """Read the folder of a comparison, and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("against", nargs="+", metavar="ARM")
    options = parser.parse_args()
    results = json.loads((options.folder / "summary.json").read_text())
    hosts = dict.fromkeys(result["host"] for result in results)
    own = [[one for one in results if one["host"] == host] for host in hosts]
    print("\n\n".join(format_host(one, options.against) for one in own))


if __name__ == "__main__":
    main()
