"""The real features that the package ships, for the demo, the examples and tests."""

from __future__ import annotations

from pathlib import Path


def ped2() -> Path:
    """Return the folder of UCSD Ped2: I3D features, frame labels and list files.

    `normal.list` and `abnormal.list` name 16 and 12 videos, float16 `(T, 1, 1024)`,
    16 frames a snippet; `frame_labels/NAME.npy` holds one uint8 a frame, 1 where the
    frame is anomalous. Where they came from is told in `README.md` there.
    """
    return Path(__file__).parent / "ped2"
