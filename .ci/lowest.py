"""Run the tests with the oldest core packages that install on this Python.

For each of the four, the lowest bound of pyproject.toml is asked for; where there is no
such wheel for this Python, pip takes the next one that there is. What was taken is
printed. `--torch 2.13.0` names another torch: the oldest brings gigabytes for GPUs, and
where the disk has no room for them, the torch of constraints.txt is taken, and said.
Packages and a copy of the sources are put into a folder that is removed afterwards, so
that other builds may run beside.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".lowest"
OF_NO_USE = shutil.ignore_patterns(".*", "build", "dist", "site", "demo", "*.egg-info")
TOOLS = ("pytest>=8.0", "hypothesis>=6.80")
# Bytes of disk: the oldest torch with what it brings takes 7.7 GB while it is
# installed, and other builds run beside.
ROOM = 10 * 10**9
# Tests of the core and of what leans on torch's loaders: others need the extras.
TESTS = (
    "features",
    "pooling",
    "readers",
    "checkpoint",
    "vae",
    "training",
    "codes",
    "sampler",
    "iterations",
    "host_datasets",
    "rtfm_adapter",
)


def floors() -> dict[str, str]:
    """Return the lower bounds that pyproject.toml declares."""
    [line] = re.findall(
        r"^dependencies = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.M
    )
    return dict(re.findall(r'"(\w+)>=([\d.]+)"', line))


def lowest(python: Path, package: str, floor: str) -> str:
    """Return the oldest version from `floor` on that has a wheel for this Python."""
    pip = [str(python), "-m", "pip"]
    listed = subprocess.run(
        [*pip, "index", "versions", package], capture_output=True, text=True, check=True
    )
    [row] = re.findall(r"^Available versions: (.*)$", listed.stdout, re.M)
    for version in sorted(row.split(", "), key=number):
        if number(version) < number(floor):
            continue
        command = [*pip, "install", "--quiet", "--dry-run", "--no-deps"]
        wheel = ["--only-binary=:all:", f"{package}=={version}"]
        if subprocess.run([*command, *wheel], capture_output=True).returncode == 0:
            return version
    raise SystemExit(f"error: no wheel of {package} from {floor} on for this Python")


def number(version: str) -> tuple[int, ...]:
    """Return a version in the order of versions."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def main() -> int:
    """Return the exit code of the tests."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--torch", help="this version, not the lowest")
    options = parser.parse_args()
    try:
        return run(options.torch)
    finally:
        shutil.rmtree(FOLDER, ignore_errors=True)


def pinned_torch() -> str:
    """Return the torch of constraints.txt."""
    [version] = re.findall(
        r"^torch==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.M
    )
    return version


def run(torch: str | None) -> int:
    """Install what is oldest, and test with it; return the exit code of the tests."""
    free = shutil.disk_usage(ROOT).free
    if torch is None and free < ROOM:
        torch = pinned_torch()
        print(
            f"the oldest torch wants {ROOM / 1e9:.0f} GB of disk, and "
            f"{free / 1e9:.1f} are free: torch {torch} in its place",
            flush=True,
        )
    venv.create(FOLDER / "venv", clear=True, with_pip=True)
    python = FOLDER / "venv" / "bin" / "python"
    chosen = {
        package: (package == "torch" and torch) or lowest(python, package, floor)
        for package, floor in floors().items()
    }
    pins = [f"{package}=={version}" for package, version in chosen.items()]
    print("testing with", *pins, flush=True)
    # The folder is removed, and nothing else is kept: it is gigabytes.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
    here = {**os.environ, "TMPDIR": str(FOLDER)}  # /tmp may be small, or memory
    subprocess.run([*pip, *pins, *TOOLS], check=True, env=here)
    sources = FOLDER / "sources"
    shutil.copytree(ROOT, sources, ignore=OF_NO_USE)
    subprocess.run([*pip, "--no-deps", "-e", str(sources)], check=True)
    tests = [f"tests/test_{name}.py" for name in TESTS]
    done = subprocess.run([str(python), "-m", "pytest", "-q", *tests], cwd=sources)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
