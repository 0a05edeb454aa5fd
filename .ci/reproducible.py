"""Build the wheel twice, in two places and at two times: the bytes must be the same.

`SOURCE_DATE_EPOCH` and the umask of the build are those of `make wheel`; place, times,
modes and order of the sources differ on purpose.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def sources() -> list[Path]:
    """List what git knows of, relative to the root."""
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [Path(row) for row in done.stdout.splitlines() if (ROOT / row).is_file()]


def build(folder: Path, *, umask: int, time: int) -> Path:
    """Copy the sources with a umask and times of their own, and build there."""
    os.umask(umask)
    # Files made in another order lie in another order in the folder.
    for file in sorted(sources(), reverse=time % 2 == 1):
        copy = folder / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, copy)
        os.utime(copy, (time, time))
    os.umask(0o022)
    command = [sys.executable, "-m", "build", "--quiet", str(folder)]
    subprocess.run(command, check=True)
    [wheel] = (folder / "dist").glob("*.whl")
    return wheel


def main() -> int:
    """Return 0 if both wheels are one."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "1577836800")
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as other:
        digests = []
        for number, folder in enumerate((first, other)):
            wheel = build(
                Path(folder) / ("a" * (1 + number)),
                umask=(0o022, 0o002)[number],
                time=1_600_000_000 + number,
            )
            digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
            print(f"{digests[-1]}  {wheel.name}")
    if digests[0] != digests[1]:
        print("error: the two wheels differ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
