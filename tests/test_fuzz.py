"""The targets of fuzz/, on their seeds and on small changes of them."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))
from targets import TARGETS

# What the fuzzer found, once: the target and its input.
FOUND: list[tuple[str, bytes]] = []


@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_small_changes_of_them(name, tmp_path):
    target = TARGETS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for seed in target.seeds():
        target.run(seed, tmp_path)
        for _ in range(60):
            changed = np.frombuffer(seed, np.uint8).copy()
            for place in rng.integers(len(changed), size=rng.integers(1, 5)):
                changed[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
            start, end = sorted(rng.integers(len(seed), size=2))
            target.run(changed.tobytes(), tmp_path)
            target.run(seed[:start] + seed[end:], tmp_path)


def test_what_was_found(tmp_path):
    for name, data in FOUND:
        TARGETS[name].run(data, tmp_path)
