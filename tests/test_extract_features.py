"""From video files to features, against a direct numpy oracle."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from vad_pseudoaug import read_features, read_list
from vad_pseudoaug.examples import extract_features
from vad_pseudoaug.examples.extract_features import SCALINGS, Preparation, cut, main

av = pytest.importorskip("av")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SIZE, CROP = (40, 56), 32  # height and width of the frames, side of a crop


class Probe(nn.Module):
    """Features of (B, 3, T, H, W) that tell colours, places and order in time apart."""

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        means = clips.mean(dim=(2, 3, 4))
        first, last = clips[:, :, 0, 0, 0], clips[:, :, -1, -1, -1]
        return torch.cat([means, first, last], dim=1)[:, :, None, None, None]


class ImageProbe(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.mean(dim=(2, 3)), images[:, :, 0, 0]], dim=1)


def probe(clip):
    """The same of one clip (3, T, H, W), in numpy."""
    return np.concatenate(
        [clip.mean(axis=(1, 2, 3)), clip[:, 0, 0, 0], clip[:, -1, -1, -1]]
    )


def write_video(path, num_frames, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for number in range(num_frames):
            image = np.zeros((*size, 3), np.uint8)
            image[: size[0] // 2, :, 0] = 10 * number % 250
            image[:, : size[1] // 2, 1] = 250 - 5 * number
            image[..., 2] = rng.integers(0, 255, (size[0] // 8, 1)).repeat(8, axis=0)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def decode(path):
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return np.stack(frames).astype(np.float64)  # (F, H, W, 3)


def crops_of(frames, num_crops, size=CROP):
    """Corners and centre, then the same of the mirrored frames, spelled out."""
    height, width = frames.shape[1:3]
    found = []
    for view in (frames, frames[:, :, ::-1]):
        top = (height - size) // 2
        left = (width - size) // 2
        found += [
            view[:, :size, :size],
            view[:, :size, width - size :],
            view[:, height - size :, :size],
            view[:, height - size :, width - size :],
            view[:, top : top + size, left : left + size],
        ]
    return {1: found[4:5], 5: found[:5], 10: found}[num_crops]


def oracle(path, num_crops, scaling="unit"):
    frames = decode(path)
    mean, spread = (np.array(v) for v in SCALINGS[scaling])
    rows = []
    for start in range(0, len(frames) - 15, 16):
        snippet = (frames[start : start + 16] / 255 - mean) / spread
        rows.append(
            [probe(c.transpose(3, 0, 1, 2)) for c in crops_of(snippet, num_crops)]
        )
    return np.array(rows)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.pt"
    torch.jit.script(Probe()).save(str(path))
    return path


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    write_video(folder / "a.mp4", 37)
    write_video(folder / "deep" / "b.mp4", 16, seed=1)
    return folder


def run(videos, model, output, *more):
    sizes = ["--resize", "0", "--crop-size", str(CROP)]
    return main([str(videos), str(model), "-o", str(output), *sizes, *more])


@pytest.mark.parametrize("num_crops", [1, 5, 10])
def test_features_are_those_of_a_direct_computation(
    tmp_path, videos, model, num_crops, capsys
):
    out = tmp_path / "features"
    assert run(videos, model, out, "--num-crops", str(num_crops)) == 0
    assert "wrote 2 of 2 videos" in capsys.readouterr().out
    for name, length in (("a", 2), ("deep/b", 1)):
        found = np.load(out / f"{name}.npy")
        assert found.shape == (length, num_crops, 9)
        assert found.dtype == np.float32
        expected = oracle(videos / f"{name}.mp4", num_crops)
        assert np.allclose(found, expected, atol=1e-5)
    listed = read_list(out / "features.list")
    assert [path.name for path in listed] == ["a.npy", "b.npy"]
    assert read_features(listed[0]).shape == (num_crops, 2, 9)


def test_batches_and_scaling(tmp_path, videos, model):
    for batch in ("1", "64"):
        out = tmp_path / batch
        more = ("--scaling", "imagenet", "--batch-size", batch, "--num-crops", "5")
        assert run(videos / "a.mp4", model, out, *more) == 0
        expected = oracle(videos / "a.mp4", 5, "imagenet")
        assert np.allclose(np.load(out / "a.npy"), expected, atol=1e-4)


def test_a_model_of_images(tmp_path, videos):
    model = tmp_path / "images.pt"
    torch.jit.script(ImageProbe()).save(str(model))
    out = tmp_path / "out"
    more = ("--order", "CHW", "--num-crops", "1")
    assert run(videos / "a.mp4", model, out, *more) == 0
    found = np.load(out / "a.npy")
    frames = decode(videos / "a.mp4") / 255
    for number in range(2):
        [crop] = crops_of(frames[16 * number : 16 * number + 16], 1)
        expected = [*crop.mean(axis=(0, 1, 2)), *crop[:, 0, 0].mean(axis=0)]
        assert np.allclose(found[number, 0], expected, atol=1e-5)


def test_an_exported_program(tmp_path, videos):
    batch = torch.zeros(2, 3, 16, CROP, CROP)
    sizes = {"clips": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(Probe(), (batch,), dynamic_shapes=sizes)
    torch.export.save(program, tmp_path / "model.pt2")
    out = tmp_path / "out"
    assert run(videos / "a.mp4", tmp_path / "model.pt2", out, "--num-crops", "1") == 0
    assert np.allclose(np.load(out / "a.npy"), oracle(videos / "a.mp4", 1), atol=1e-5)


def test_the_shorter_side_is_resized():
    snippet = torch.zeros(16, 3, 40, 60, dtype=torch.uint8)
    snippet[..., 30:] = 255
    crops = Preparation(20, 16, 10, "bytes").apply(snippet)
    assert crops.shape == (10, 16, 3, 16, 16)
    assert crops[0][..., :13].max() < 20  # the left 15 of 30 pixels are dark
    assert crops[1][..., 3:].min() > 235
    assert torch.equal(crops[5], crops[1].flip(-1))  # mirrored, then cut
    assert torch.equal(cut(snippet, 40, 1)[0], snippet[..., 10:50])


def test_it_goes_on_where_it_stopped(tmp_path, videos, model, monkeypatch):
    out = tmp_path / "features"
    extract, done = extract_features.extract, []

    def interrupted(model, path, *args, **options):
        if done:
            raise KeyboardInterrupt
        done.append(path)
        return extract(model, path, *args, **options)

    monkeypatch.setattr(extract_features, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(videos, model, out)
    assert not (out / "features.list").exists()
    before = (out / "a.npy").stat().st_mtime_ns
    monkeypatch.setattr(extract_features, "extract", extract)
    assert run(videos, model, out) == 0
    assert (out / "a.npy").stat().st_mtime_ns == before
    assert len(read_list(out / "features.list")) == 2
    record = json.loads((out / "extraction.json").read_text())
    assert (record["num_crops"], record["crop_size"]) == (10, CROP)
    assert run(videos, model, out, "--num-crops", "5") == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "a.mp4").write_bytes(b"no"), "not readable as video"),
        (lambda folder: write_video(folder / "a.mp4", 15), "at least 16 frames, got"),
        (lambda folder: write_video(folder / "a.mp4", 16, (16, 16)), "hold no crop"),
        (lambda folder: write_video(folder / "a.avi", 16), "another video would be"),
    ],
)
def test_bad_videos_are_named(tmp_path, videos, model, capsys, spoil, message):
    spoil(videos)
    out = tmp_path / "features"
    assert run(videos, model, out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (out / "a.npy").exists()
    if not (videos / "a.avi").exists():
        assert run(videos, model, out, "--skip-bad") == 1
        assert "skipped" in capsys.readouterr().err
        assert [p.name for p in read_list(out / "features.list")] == ["b.npy"]


def test_bad_models_and_options_are_named(tmp_path, videos, model, capsys):
    class Odd(nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return clips[:, :, 0]

    odd, broken = tmp_path / "odd.pt", tmp_path / "broken.pt"
    torch.jit.script(Odd()).save(str(odd))
    broken.write_bytes(b"no")
    for path, message in (
        (odd, "expected features (10, D), got"),
        (broken, "not readable as a model"),
        (tmp_path / "none.pt", "no such model"),
    ):
        assert run(videos, path, tmp_path / "out") == 2
        assert message in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", model, tmp_path / "out") == 2
    assert "got none" in capsys.readouterr().err
    for bad in ({"num_crops": 3}, {"scaling": "odd"}, {"crop_size": 0}):
        with pytest.raises(ValueError, match="expected"):
            Preparation(**bad)
