"""Fuzz one target by atheris; what follows its name goes to libFuzzer.

python fuzz/run.py npy -runs=1000000
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["vad_pseudoaug", "zipfile", "json.decoder"]):
    from targets import TARGETS

BUILD = Path(__file__).parent.parent / "build" / "fuzz"


def main() -> None:
    """Run until the runs are done, or something is found."""
    name, *options = sys.argv[1:]
    target = TARGETS[name]
    with atheris.instrument_imports(include=["vad_pseudoaug"]):
        seeds = target.seeds()  # imports what the target needs
    corpus = BUILD / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    # In memory where there is such a folder: a disk would be the slowest part.
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=parent))
    try:
        arguments = [
            sys.argv[0],
            str(corpus),
            f"-artifact_prefix={BUILD / name}-",
            "-rss_limit_mb=2048",
            "-timeout=10",
            "-print_final_stats=1",
            *options,
        ]
        atheris.Setup(arguments, lambda data: target.run(data, folder))
        atheris.Fuzz()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
