"""Memory of fit, generate and check on a set as large as UCF-Crime.

    python benchmarks/memory.py [--json] [--videos 1610] [--gigabytes 20]

Videos `(T, 10, 2048)` of 1 to 20,000 snippets, most of them short, lie in sparse files:
one snippet in five has values, the rest takes no room on the disk. The three commands
run as a user would run them, with few epochs and narrow layers, which spare time and no
memory worth the name: what counts is how many snippets are held at once. Printed is the
peak of the resident memory of each, mapped files included. `generate` writes one pseudo
video of each of some sources, the longest among them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SHAPE = (10, 2048)
LONGEST = 20_000
SNIPPET_BYTES = 4 * SHAPE[0] * SHAPE[1]
CHOICES = "--epochs 2 --baseline-epochs 4 --hidden-dims 64 --latent-dim 16 "
CHOICES += "--baseline-hidden-dims 32 --threshold 0.1 --recipe paper"


def draw_lengths(num_videos: int, num_bytes: float) -> np.ndarray[Any, Any]:
    """Draw lengths whose sum has so many bytes: two are the longest, one is 1."""
    rng = np.random.default_rng(0)
    total = num_bytes / SNIPPET_BYTES
    longest = int(min(LONGEST, total / 4))
    shares = rng.lognormal(0, 1.2, num_videos - 3)
    rest = (total - 2 * longest - 1) * shares / shares.sum()
    lengths = np.concatenate(([longest, longest, 1], rest.clip(1, longest)))
    return lengths.astype(int)


def write_videos(folder: Path, name: str, lengths: np.ndarray[Any, Any]) -> None:
    """Write sparse files, a list of all and a list of some, the longest included."""
    rng = np.random.default_rng([name == "abnormal"])
    files = []
    for number, length in enumerate(lengths):
        files.append(folder / f"{name}{number:04d}.npy")
        video = np.lib.format.open_memmap(
            files[-1], "w+", np.float32, (int(length), *SHAPE)
        )
        for snippet in range(0, length, 5):
            values = rng.random(1000, dtype=np.float32) ** 2
            is_late = name == "abnormal" and snippet > length // 2
            video[snippet, 0, :1000] = values + is_late
        del video
    some = [files[i] for i in np.argsort(-lengths, kind="stable")[::40]]
    for title, rows in ((name, files), (f"{name}-some", some)):
        text = "".join(f"{row.name}\n" for row in rows)
        (folder / f"{title}.list").write_text(text, encoding="utf-8")


def run(*arguments: str | Path) -> dict[str, float]:
    """Run a command; return its seconds and the peak of its memory."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "vad_pseudoaug", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    # A check may say that a gate failed: of such videos, some must.
    if process.returncode not in ((0, 1) if arguments[0] == "check" else (0,)):
        raise RuntimeError(f"{arguments[0]} failed with {process.returncode}")
    return {
        "seconds": time.perf_counter() - start,
        "peak_gib": usage.ru_maxrss / 2**20,
    }


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--videos", type=int, default=1610)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--folder", help="where the files go for a while")
    options = parser.parse_args()
    counts = {"normal": options.videos // 2, "abnormal": options.videos // 2}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for kind, count in counts.items():
            half = options.gigabytes * 1e9 / 2
            write_videos(folder, kind, draw_lengths(count, half))
        os.sync()
        files = [file.stat() for file in folder.glob("*.npy")]
        figures: dict[str, Any] = {
            "videos": len(files),
            "gigabytes": sum(file.st_size for file in files) / 1e9,
            "on_disk_gigabytes": sum(file.st_blocks * 512 for file in files) / 1e9,
            "longest_gigabytes": max(file.st_size for file in files) / 1e9,
        }
        lists = [
            f"--{kind}={folder / kind}{end}.list"
            for end in ("", "-some")
            for kind in counts
        ]
        fit = ["fit", *lists[:2], *CHOICES.split(), "-o", folder / "run"]
        generate = ["generate", folder / "run", *lists[2:], "--per-video=1"]
        figures["fit"] = run(*fit)
        figures["generate"] = run(*generate, "--dtype=float16", "-o", folder / "made")
        figures["check"] = run("check", folder / "run")
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(
        f"{figures['videos']} videos, {figures['gigabytes']:.1f} GB (on disk "
        f"{figures['on_disk_gigabytes']:.1f}), the longest "
        f"{figures['longest_gigabytes']:.2f} GB\n"
        f"{'':<10}{'peak memory, GiB':>17}{'seconds':>9}"
    )
    for command in ("fit", "generate", "check"):
        row = figures[command]
        print(f"{command:<10}{row['peak_gib']:>17.2f}{row['seconds']:>9.0f}")


if __name__ == "__main__":
    main()
