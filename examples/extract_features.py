"""Video files to snippet features: one .npy `(T, N, D)` a video, and a list file.

    python -m vad_pseudoaug.examples.extract_features videos/ model.pt -o features/

The feature extractor is a file of yours, frozen: TorchScript (`.pt`, `.torchscript`,
`.ts`) or what `torch.export.save` wrote (`.pt2`). LOADING A MODEL RUNS THE CODE IN IT:
take only one that you trust as you trust a program. Nothing is downloaded.

A snippet is 16 frames in a row; frames at the end that fill no snippet are left out, as
RTFM leaves them. Each frame is resized so that its shorter side is `--resize`, then
cut: 1 crop is the centre; 5 are the corners (top left, top right, bottom left, bottom
right) and the centre; 10 are these and those of the frame mirrored, in torchvision's
order.

Interrupted, the same command goes on where it stopped: a video's file is written whole
or not at all. It needs PyAV, the extra `video`: pip install '.[video]' in a clone.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vad_pseudoaug import read_list
from vad_pseudoaug.baseline import SNIPPET_FRAMES
from vad_pseudoaug.extras import as_device, progress_bar, require
from vad_pseudoaug.writing import atomic_path, claim_folder

ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
# Mean and spread of each colour, of values in [0, 1].
SCALINGS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "unit": ((0.0,) * 3, (1.0,) * 3),
    "symmetric": ((0.5,) * 3, (0.5,) * 3),
    "bytes": ((0.0,) * 3, (1 / 255,) * 3),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "i3d-resnet": ((0.45,) * 3, (0.225,) * 3),
    "clip": (
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
}

Extractor = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Preparation:
    """What is done to frames before the model sees them.

    Attributes:
        resize: Length of the shorter side, in pixels; 0 leaves frames as they are.
        crop_size: Side of a crop, in pixels.
        num_crops: 1, 5 or 10.
        scaling: One of `SCALINGS`.
        order: Axes of what the model takes, after that of the batch: "CTHW" as I3D,
            "TCHW", or "CHW" for a model of images; features are then the mean of the
            snippet's frames.
    """

    resize: int = 256
    crop_size: int = 224
    num_crops: int = 10
    scaling: str = "unit"
    order: str = "CTHW"

    def __post_init__(self) -> None:
        if self.num_crops not in (1, 5, 10):
            raise ValueError(f"num_crops: expected 1, 5 or 10, got {self.num_crops}")
        if self.scaling not in SCALINGS or self.order not in ("CTHW", "TCHW", "CHW"):
            raise ValueError(
                f"expected a scaling of {', '.join(SCALINGS)} and an order of CTHW, "
                f"TCHW, CHW, got {self.scaling} and {self.order}"
            )
        if self.crop_size < 1 or self.resize < 0:
            raise ValueError(
                "crop_size and resize: expected values >= 1 and >= 0, got "
                f"{self.crop_size} and {self.resize}"
            )

    def apply(self, snippet: Tensor) -> Tensor:
        """Resize, scale and cut a snippet.

        Args:
            snippet: `(16, 3, H, W)` uint8.

        Returns:
            `(N, 16, 3, S, S)` float32, S the side of a crop.

        Raises:
            ValueError: If a frame is smaller than a crop.
        """
        frames = snippet.float()
        height, width = frames.shape[-2:]
        if self.resize:
            scale = self.resize / min(height, width)
            size = (round(height * scale), round(width * scale))
            if size != (height, width):
                frames = functional.interpolate(
                    frames, size=size, mode="bilinear", antialias=True
                )
        mean, spread = (torch.tensor(v)[:, None, None] for v in SCALINGS[self.scaling])
        return cut((frames / 255 - mean) / spread, self.crop_size, self.num_crops)


def cut(frames: Tensor, size: int, num_crops: int) -> Tensor:
    """Cut crops out of frames `(..., H, W)`: `(N, ..., size, size)`.

    Raises:
        ValueError: If a frame is smaller than a crop.
    """
    height, width = frames.shape[-2:]
    bottom, right = height - size, width - size
    if bottom < 0 or right < 0:
        raise ValueError(f"frames of {height} x {width} hold no crop of {size}")
    centre = (round(bottom / 2), round(right / 2))
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
    places = [centre] if num_crops == 1 else [*corners, centre]
    views = [frames, frames.flip(-1)] if num_crops == 10 else [frames]
    return torch.stack(
        [
            view[..., top : top + size, left : left + size]
            for view in views
            for top, left in places
        ]
    )


def read_snippets(path: Path) -> Iterator[Tensor]:
    """Decode a video: snippets `(16, 3, H, W)` uint8, red first, one after another.

    Raises:
        ImportError: If PyAV is not installed; it names the extra.
        ValueError: If the file is not readable as video, or has less than 16 frames.
    """
    av = require("av", extra="video")
    frames: list[NDArray[np.uint8]] = []
    found = False
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: holds no video stream")
            for frame in container.decode(container.streams.video[0]):
                frames.append(frame.to_ndarray(format="rgb24"))  # (H, W, 3)
                if frames[-1].shape != frames[0].shape:
                    raise ValueError(f"{path}: the frames differ in size")
                if len(frames) == SNIPPET_FRAMES:
                    yield torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
                    frames, found = [], True
    except av.error.FFmpegError as error:
        raise ValueError(f"{path}: not readable as video: {error}") from error
    if not found:
        raise ValueError(
            f"{path}: expected at least {SNIPPET_FRAMES} frames, got {len(frames)}"
        )


def load_model(path: Path, device: torch.device) -> Extractor:
    """Load a frozen model; this runs the code in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model")
    try:
        if path.suffix == ".pt2":
            module = torch.export.load(path).module().to(device)
            return module  # exported as it was: in evaluation mode or not
        return torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-any-return]
    except Exception as error:  # whatever a broken file leads to
        raise ValueError(f"{path}: not readable as a model: {error}") from error


@torch.no_grad()
def extract(
    model: Extractor,
    path: Path,
    prepare: Preparation,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
) -> NDArray[np.float32]:
    """Extract the features of a video, `(T, N, D)`.

    Args:
        model: Of a batch in the order of `prepare`, float32, features `(B, D)`; axes
            of length 1 may follow.
        path: The video.
        prepare: What is done to its frames.
        device: Where the model is.
        batch_size: Crops of snippets that it gets at a time; at least those of one.

    Raises:
        ValueError: If the video is not usable, or the model gives no finite features.
    """
    snippets = read_snippets(path)
    rows = []
    while group := list(islice(snippets, max(1, batch_size // prepare.num_crops))):
        try:
            crops = torch.stack([prepare.apply(snippet) for snippet in group])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        batch = crops.flatten(0, 1).to(device)  # (S * N, 16, 3, H, W)
        if prepare.order == "CTHW":
            batch = batch.transpose(1, 2).contiguous()
        elif prepare.order == "CHW":
            batch = batch.flatten(0, 1)  # (S * N * 16, 3, H, W)
        found = model(batch)
        if (
            not isinstance(found, Tensor)
            or found.shape[:1] != batch.shape[:1]
            or found.numel() != found.shape[0] * found.shape[1]
        ):
            shape = getattr(found, "shape", type(found).__name__)
            raise ValueError(
                f"the model: expected features ({len(batch)}, D), got {shape}"
            )
        found = found.flatten(1)
        if prepare.order == "CHW":
            found = found.unflatten(0, (-1, SNIPPET_FRAMES)).mean(dim=1)
        rows.append(found.unflatten(0, (len(group), prepare.num_crops)).float().cpu())
    features: NDArray[np.float32] = torch.cat(rows).numpy()
    if not np.isfinite(features).all():
        raise ValueError(f"{path}: the model gave NaN or infinity")
    return features


def find_videos(path: Path) -> dict[Path, Path]:
    """Find the videos of a folder, a list file, or one file.

    Returns:
        For each video the name of its features, relative, as they are in the folder.

    Raises:
        FileNotFoundError: If there is no such path.
        ValueError: If there is no video, or two would have one name.
    """
    if path.is_dir():
        videos = sorted(p for p in path.rglob("*") if p.suffix.lower() in ENDINGS)
        if not videos:
            raise ValueError(f"{path}: expected videos, {', '.join(ENDINGS)}, got none")
        names = [video.relative_to(path) for video in videos]
    else:
        videos = [path] if path.suffix.lower() in ENDINGS else read_list(path)
        names = [Path(video.name) for video in videos]
    found: dict[Path, Path] = {}
    for video, name in zip(videos, names, strict=True):
        target = name.with_suffix(".npy")
        if target in found.values():
            raise ValueError(f"{video}: another video would be written to {target} too")
        found[video] = target
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 if a video was skipped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", type=Path, help="a folder, a list file or a video")
    parser.add_argument("model", type=Path, help="a file that you trust")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    usual = Preparation()
    parser.add_argument("--resize", type=int, default=usual.resize, help="[256]; 0: no")
    parser.add_argument("--crop-size", type=int, default=usual.crop_size, help="[224]")
    parser.add_argument(
        "--num-crops", type=int, default=usual.num_crops, choices=(1, 5, 10)
    )
    parser.add_argument("--scaling", default=usual.scaling, choices=tuple(SCALINGS))
    parser.add_argument("--order", default=usual.order, choices=("CTHW", "TCHW", "CHW"))
    parser.add_argument("--batch-size", type=int, default=16, help="crops at once [16]")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--skip-bad", action="store_true", help="go on after a video that is broken"
    )
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    prepare = Preparation(
        options.resize,
        options.crop_size,
        options.num_crops,
        options.scaling,
        options.order,
    )
    device = as_device(options.device)
    videos = find_videos(options.videos)
    model = load_model(options.model, device)
    digest = hashlib.sha256(options.model.read_bytes()).hexdigest()
    claim_folder(
        options.output, "extraction.json", {**asdict(prepare), "model_sha256": digest}
    )
    skipped = 0
    with progress_bar(len(videos), "videos", show=None) as step:
        for video, name in videos.items():
            target = options.output / name
            try:
                if not target.is_file():
                    features = extract(
                        model,
                        video,
                        prepare,
                        device=device,
                        batch_size=options.batch_size,
                    )
                    with atomic_path(target) as temporary:
                        np.save(temporary, features)
            except ValueError as error:
                if not options.skip_bad:
                    raise
                print(f"skipped {error}", file=sys.stderr)
                skipped += 1
            step()
    rows = [name for name in videos.values() if (options.output / name).is_file()]
    names = options.output / "features.list"
    with atomic_path(names) as temporary:
        temporary.write_text(
            "".join(f"{row.as_posix()}\n" for row in rows), encoding="utf-8"
        )
    print(f"wrote {len(rows)} of {len(videos)} videos (T, N, D), {names}")
    return int(skipped > 0)


if __name__ == "__main__":
    sys.exit(main())
