"""Videos given to a run that was fitted: read as its own were, and told apart."""

import numpy as np
import pytest
import torch

from vad_pseudoaug import CheckpointError, PseudoVideoSampler, VideoSet
from vad_pseudoaug.check import check_sampler
from vad_pseudoaug.cli import main

LENGTH = 6  # no longer than crops may be many: the axes of a file do not tell which


def write(folder, shape, *, count=6, seed=0):
    """Write files of three axes, and a list of them."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    for i in range(count):
        np.save(folder / f"{i}.npy", rng.random(shape, dtype=np.float32))
    (folder / "x.list").write_text("".join(f"{i}.npy\n" for i in range(count)))
    return folder / "x.list"


@pytest.fixture
def run(vae, tmp_path):
    """A run that was fitted on normal files `(N, T, D)`, of 3 crops."""
    files = write(tmp_path / "own", (3, LENGTH, 12), count=2)
    normal = VideoSet(files, layout="NTD")
    PseudoVideoSampler(vae, normal=normal).save_pretrained(tmp_path / "run")
    return tmp_path / "run"


def test_other_files_are_read_in_the_layout_of_the_fit(run, tmp_path):
    listed = write(tmp_path / "new", (3, LENGTH, 12))
    files = [listed.parent / "0.npy"]
    for given in (listed, str(listed), files, tuple(files)):
        sampler = PseudoVideoSampler.from_pretrained(run, normal=given)
        assert sampler.sources(1)[0].shape == (3, LENGTH, 12)
    # More snippets than there may be crops do not matter.
    long = write(tmp_path / "long", (3, 40, 12))
    sampler = PseudoVideoSampler.from_pretrained(run, normal=long)
    assert sampler.sources(1)[0].shape == (3, 40, 12)


def test_other_files_are_read_by_the_key_of_the_fit(vae, tmp_path):
    files = [tmp_path / "own.npz", tmp_path / "new.npz"]
    for file in files:
        np.savez(file, rgb=np.zeros((4, 12)), flow=np.ones((4, 12)))
    normal = VideoSet(files[:1], key="flow")
    PseudoVideoSampler(vae, normal=normal).save_pretrained(tmp_path / "run")
    sampler = PseudoVideoSampler.from_pretrained(tmp_path / "run", normal=files[1:])
    assert (sampler.sources(1)[0] == 1).all()


def test_what_has_axes_of_its_own_keeps_them(run, tmp_path):
    listed = write(tmp_path / "new", (LENGTH, 3, 12))
    array = np.ones((1, LENGTH, 12), np.float32)
    for given, shape in (
        (VideoSet(listed), (3, LENGTH, 12)),
        (VideoSet(listed, layout="TND"), (3, LENGTH, 12)),
        ([array], (1, LENGTH, 12)),  # other crops are no mistake
        ([torch.from_numpy(array[0])], (1, LENGTH, 12)),
    ):
        sampler = PseudoVideoSampler.from_pretrained(run, normal=given)
        assert sampler.sources(1)[0].shape == shape


def test_generate_and_check_read_lists_as_the_fit_did(tmp_path, few_draws):
    shape = (3, LENGTH, 12)
    lists = {}
    for number, name in enumerate(("normal", "abnormal", "new", "newer")):
        lists[name] = str(write(tmp_path / name, shape, seed=number, count=8))
    run, out = str(tmp_path / "run"), tmp_path / "out"
    both = ["--normal", lists["normal"], "--abnormal", lists["abnormal"]]
    quick = ["--epochs", "1", "--steps-per-epoch", "2", "--baseline-epochs", "2"]
    quick += ["--normal-quantile", "0", "--min-run", "1"]
    assert main(["fit", *both, "-o", run, "--layout", "NTD", *quick]) == 0
    command = ["generate", run, "-o", str(out), "--normal", lists["new"]]
    assert main([*command, "--layout", "NTD"]) == 0
    for number in range(8):
        [made] = out.glob(f"pseudo_abnormal/*_{number}.npy")
        features = np.load(made)
        assert features.shape == shape
        changed = features != np.load(tmp_path / "new" / f"{number}.npy")
        # Half of the snippets, and of these all crops.
        assert changed.any(axis=(0, 2)).sum() == LENGTH // 2
        assert changed.any(axis=2).all(axis=0).sum() == LENGTH // 2
    sampler = PseudoVideoSampler.from_pretrained(run)
    swapped = VideoSet(lists["new"]), VideoSet(lists["newer"])
    with pytest.raises(ValueError, match=r"normal: expected 3 crops .*, got 6 of 12"):
        check_sampler(sampler, *swapped)
    single = [[np.ones((1, LENGTH, 12), np.float32)] * 4 for _ in range(2)]
    with pytest.raises(ValueError, match="was fitted on, got 1 of 12"):
        check_sampler(sampler, *single)
    check = ["check", run, "--normal", lists["new"], "--abnormal", lists["newer"]]
    assert main([*check, "-o", str(tmp_path / "report")]) in (0, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.full((1, 3, 12), np.nan, "f4")], r"normal\[0\]: expected finite values"),
        ([np.ones((1, 3, 20), "f4")], "normal: the sampler was fitted on feature size"),
        ([], "normal: expected at least one video"),
    ],
)
def test_what_is_wrong_with_given_videos_is_not_wrong_with_the_run(run, given, message):
    with pytest.raises(ValueError, match=rf"^{message}") as raised:
        PseudoVideoSampler.from_pretrained(run, normal=given)
    assert not isinstance(raised.value, CheckpointError)
    with pytest.raises(TypeError, match="normal: expected a list file"):
        PseudoVideoSampler.from_pretrained(run, normal=3)


@pytest.mark.parametrize(
    "changes", [{"layout": "DTN"}, {"key": 3}, {"files": None}, {"files": [3]}]
)
def test_a_broken_record_is_wrong_with_the_run(run, changes):
    sampler = PseudoVideoSampler.from_pretrained(run)
    record = {**sampler.normal.record(), **changes}

    class Broken(VideoSet):
        def record(self):
            return record

    sampler.normal = Broken(sampler.normal)
    sampler.save_pretrained(run)
    for given in (None, sampler.normal):
        with pytest.raises(CheckpointError, match="an entry is broken"):
            PseudoVideoSampler.from_pretrained(run, normal=given)


class Items:
    """A host's dataset, of which only `len` and `[i]` are known."""

    def __init__(self, videos):
        self.videos = videos

    def __len__(self):
        return len(self.videos)

    def __getitem__(self, index):
        return self.videos[index]


@pytest.mark.parametrize("around", [list, tuple, Items])
@pytest.mark.parametrize("layout", ["TD", "TND", "NTD", None])
def test_a_part_has_the_axes_of_the_whole(around, layout):
    rng = np.random.default_rng(0)
    shapes = {"TD": (7, 4), "TND": (7, 3, 4), "NTD": (20, 7, 4), None: (3, 7, 4)}
    videos = [rng.random(shapes[layout]) for _ in range(4)]
    whole = VideoSet(around(videos), layout=layout)
    part = whole.part([2, 0])
    again = part.part([1])
    for own, numbers in ((part, [2, 0]), (again, [0])):
        assert len(own) == len(numbers)
        for video, number in zip(own, numbers, strict=True):
            assert np.array_equal(video, whole[number])
