"""First mistakes: each is refused with the sentence that mends it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from hosts import FEATURE_DIM
from vad_pseudoaug import PseudoVideoSampler, Recipe, read_features, read_list
from vad_pseudoaug.adapters import (
    batches,
    clip,
    generic,
    lightning,
    mil,
    mixed,
    pairs,
    rtfm,
    torchmil,
)
from vad_pseudoaug.items import ItemFormat
from vad_pseudoaug.mixing import Mixing

VIDEO = np.ones((6, FEATURE_DIM), np.float32)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([VIDEO])


@pytest.fixture
def twins(host_dataset):
    return host_dataset(5, 0.0), host_dataset(4, 1.0)


@pytest.fixture
def loaders(twins):
    return [DataLoader(dataset, batch_size=2) for dataset in twins]


def test_the_same_videos_twice(twins, loaders, sampler, tmp_path):
    videos = [VIDEO] * 3
    with pytest.raises(ValueError, match="very same"):
        PseudoVideoSampler.fit(videos, videos)
    np.save(tmp_path / "a.npy", VIDEO)
    np.save(tmp_path / "b.npy", VIDEO)
    (tmp_path / "normal.list").write_text("a.npy\nb.npy\n")
    (tmp_path / "abnormal.list").write_text("b.npy\n")
    with pytest.raises(ValueError, match=r"1 videos are both .* b\.npy|b\.npy"):
        PseudoVideoSampler.fit(tmp_path / "normal.list", tmp_path / "abnormal.list")
    with pytest.raises(ValueError, match="same dataset"):
        rtfm.wrap(twins[0], twins[0], sampler)
    with pytest.raises(ValueError, match="same dataset"):
        rtfm.attach(loaders[0], DataLoader(twins[0], batch_size=2), sampler)


@pytest.mark.parametrize(
    ("normal", "abnormal", "swapped"),
    [
        (0, 1, False),
        (1, 0, True),
        (torch.tensor(1.0), torch.tensor(0.0), True),
        (np.ones(1), np.zeros(1), True),
        ("Fighting", "Normal", True),
        ("Normal", "Fighting", False),
        (0, 0, False),  # say, the numbers of the items
        (1, 1, False),
        ([2, 3], {"a": 1}, False),
    ],
)
@pytest.mark.parametrize("kind", [tuple, dict])
def test_loaders_the_wrong_way_round(sampler, caplog, normal, abnormal, swapped, kind):
    def item(label):
        if kind is tuple:
            return VIDEO, label, "beside"
        return {"x": VIDEO, "label": label, "name": "beside"}

    twins = [[item(label)] * 4 for label in (normal, abnormal)]
    pair = [
        DataLoader(own, batch_size=2, collate_fn=list)  # type: ignore[arg-type]
        for own in twins
    ]
    rtfm.attach(*pair, sampler, p=0.5)
    told = [m for m in caplog.messages if "seem to be swapped" in m]
    assert len(told) == int(swapped)
    if swapped:
        assert f"normal has the label {normal!r}" in told[0]
        rtfm.wrap(*twins, sampler)
        assert caplog.text.count("seem to be swapped") == 2


def test_loaders_for_datasets_and_the_reverse(twins, loaders, sampler):
    with pytest.raises(TypeError, match=r"give its dataset, loader\.dataset"):
        PseudoVideoSampler.fit(*loaders)
    with pytest.raises(TypeError, match=r"give its dataset, loader\.dataset"):
        rtfm.wrap(*loaders, sampler)
    with pytest.raises(TypeError, match=r"give list\(\.\.\.\) of it"):
        PseudoVideoSampler.fit(iter([VIDEO]), [VIDEO])
    with pytest.raises(TypeError, match=r"with len\(\) and \[i\], got dict"):
        PseudoVideoSampler.fit({"a": VIDEO}, [VIDEO])
    calls = (
        lambda: rtfm.attach(*twins, sampler, p=0.5),
        lambda: mixed.attach(twins[0], sampler),
        lambda: pairs.attach(twins[0], sampler, normal_slot=0, abnormal_slot=1),
        lambda: generic.attach(twins[0], sampler, label=0),
    )
    for call in calls:
        with pytest.raises(TypeError, match="for datasets there is wrap"):
            call()


@pytest.mark.parametrize("dataset", [Stream(), 3])
def test_datasets_without_items(dataset, twins, sampler):
    with pytest.raises(TypeError, match=r"with len\(\) and \[i\]"):
        rtfm.wrap(dataset, twins[1], sampler)


def test_empty_datasets(twins, sampler):
    with pytest.raises(ValueError, match="normal videos: the dataset is empty"):
        mil.wrap([], twins[1], sampler)
    with pytest.raises(ValueError, match="at least one video"):
        PseudoVideoSampler.fit([], [VIDEO])


@pytest.mark.parametrize("sampler", [None, 3, [VIDEO]])
def test_samplers_that_are_none(sampler, loaders):
    with pytest.raises(TypeError, match="the folder of its checkpoint, got"):
        rtfm.attach(*loaders, sampler, p=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"p": 0.5, "ratio": 0.5}, "expected one of them"),
        ({"p": "half"}, r"p: expected a value in \[0, 1\], got 'half'"),
        ({"ratio": float("nan")}, "ratio: expected a value"),
        ({"start_after": -1}, "values >= 0"),
        ({"start_unit": "batches"}, "'steps' or 'epochs'"),
    ],
)
def test_mix_options(options, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**options)


VERBS = {
    "a fit": (PseudoVideoSampler.fit, {"sead": "seed", "epoch": "epochs"}),
    "attach": (rtfm.attach, {"slots": "slot", "ration": "ratio"}),
    "wrap": (rtfm.wrap, {"per_vid": "per_video"}),
    "videos": (rtfm.videos, {"layuot": "layout"}),
    "mil": (mil.attach, {"enable": "enabled"}),
    "clip": (clip.attach, {"lenght": "length", "pool_bite": "pool_bytes"}),
    "clip.wrap": (clip.wrap, {"lenght": "length", "sede": "seed"}),
    "mixed": (mixed.attach, {"labels_slot": "label_slot", "rato": "ratio"}),
    "mixed.wrap": (mixed.wrap, {"class_off": "class_of"}),
    "mixed.videos": (mixed.videos, {"lables": "labels"}),
    "torchmil": (torchmil.attach, {"anylength": "any_length"}),
    "torchmil.wrap": (torchmil.wrap, {"pervideo": "per_video"}),
    "pairs": (pairs.attach, {"normal_slots": "normal_slot"}),
    "generic": (generic.attach, {"source": "sources"}),
    "batches": (batches.attach, {"normal_frist": "normal_first"}),
    "lightning": (lightning.attach, {"orders": "order", "start_afer": "start_after"}),
    "callback": (lightning.callback, {"start_afer": "start_after"}),
}


@pytest.mark.parametrize("name", VERBS)
def test_unknown_options_are_refused_by_the_nearest_one(name):
    function, wrong = VERBS[name]
    for option, right in wrong.items():
        message = f"unknown option '{option}'; did you mean '{right}'\\?$"
        with pytest.raises(TypeError, match=message):
            function(**{option: 1})
    with pytest.raises(TypeError, match=r"unknown option 'qqq'; there is .*seed"):
        rtfm.attach(None, None, None, qqq=1)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"hidden_dims": 32}, "hidden_dims: expected a list of whole numbers"),
        ({"hidden_dims": (32, 0)}, "hidden_dims: expected"),
        ({"epochs": 2.5}, "epochs: expected a whole number, at least 1, got 2.5"),
        ({"epochs": 0}, "epochs: expected"),
        ({"lr": "1e-4"}, "lr: expected a number"),
        ({"lr": float("inf")}, "lr: expected a number"),
        ({"alpha": True}, "alpha: expected a number"),
        ({"reduction": "none"}, "'sum' or 'mean'"),
    ],
)
def test_choices_of_the_recipe(choices, message):
    with pytest.raises(ValueError, match=message):
        Recipe.named(**choices)


def test_devices_that_are_not_there(videos):
    with pytest.raises(ValueError, match="device 'gpu' is not available"):
        PseudoVideoSampler.fit(*videos, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' is not available"):
            PseudoVideoSampler.fit(*videos, device="cuda")


def test_samples_of_no_features(sampler):
    with pytest.raises(TypeError, match="an array or tensor, got str"):
        sampler.sample("video.npy", label=1)


def test_folders_that_are_files_and_unfinished_runs(sampler, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=r"expected a folder, .* is a file"):
        sampler.save_pretrained(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        PseudoVideoSampler.from_pretrained(tmp_path)
    (tmp_path / "training.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="has not finished"):
        PseudoVideoSampler.from_pretrained(tmp_path)


def test_sources_of_another_size(sampler, tmp_path):
    sampler.save_pretrained(tmp_path)
    expected = "feature size 12, the videos have 11"
    for name in ("normal", "abnormal"):
        with pytest.raises(ValueError, match=f"{name}: .*{expected}"):
            PseudoVideoSampler.from_pretrained(tmp_path, **{name: [VIDEO[:, :11]]})


def test_list_files(tmp_path):
    np.save(tmp_path / "a.npy", VIDEO)
    rows = tmp_path / "videos.list"
    rows.write_bytes(b"\xef\xbb\xbfa.npy\r\n")  # as some editors save a text
    assert read_list(rows) == [tmp_path / "a.npy"]
    rows.write_text("a.npy\n\na.npy\n")
    with pytest.raises(ValueError, match="rows 1 and 3 name the same file"):
        read_list(rows)
    rows.write_bytes("a.npy\n".encode("utf-16"))
    with pytest.raises(ValueError, match="a text with one path a row"):
        read_list(rows)
    with pytest.raises(ValueError, match="a text with one path a row"):
        read_list(tmp_path / "a.npy")
    with pytest.raises(FileNotFoundError, match="this is a folder"):
        read_list(tmp_path)


def test_a_text_that_is_called_npy(tmp_path):
    (tmp_path / "a.npy").write_text("1 2 3\n")
    with pytest.raises(ValueError, match=r"not that of a \.npy file") as caught:
        read_features(tmp_path / "a.npy")
    assert "pickle" not in str(caught.value)


def test_features_by_key_survive_a_checkpoint(vae, tmp_path):
    for name in ("a", "b"):
        np.savez(tmp_path / f"{name}.npz", rgb=VIDEO, flow=VIDEO[:, :3])
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    with pytest.raises(ValueError, match="pass key=, one of rgb, flow"):
        PseudoVideoSampler.fit(files[:1], files[1:])
    small = {"hidden_dims": (4,), "latent_dim": 2, "epochs": 1, "recipe": "paper"}
    small["threshold"] = 0.1
    PseudoVideoSampler.fit(
        files[:1], files[1:], key="rgb", folder=tmp_path / "run", **small
    )
    again = PseudoVideoSampler.from_pretrained(tmp_path / "run")
    assert again.draw(1, label=1).features.shape == (1, 1, *VIDEO.shape)


def test_what_objects_say_of_themselves(vae, loaders, sampler):
    assert repr(PseudoVideoSampler(vae, normal=[VIDEO] * 3)) == (
        "PseudoVideoSampler(recipe='paper', feature_dim=12, normal=3, abnormal=none)"
    )
    handle = rtfm.attach(*loaders, sampler, p=0.5)
    next(iter(loaders[0]))
    start, counts = repr(handle).split(", seen=")
    assert start == "Attachment(p=0.5, enabled=True"
    handle.detach()
    assert repr(handle) == f"Attachment(p=0.5, detached, seen={counts}"


def test_what_was_counted_is_there_after_detach(loaders, sampler):
    handle = rtfm.attach(*loaders, sampler, ratio=1)
    for loader in loaders:
        list(loader)
    stats = handle.stats()
    assert stats == {"seen": 9, "replaced": 9}
    for _ in range(2):
        handle.detach()
        assert handle.stats() == stats
        assert not handle.enabled
    assert repr(handle) == "Attachment(ratio=1, detached, seen=9, replaced=9)"


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (ItemFormat(), "features (N, T, D)"),
        (ItemFormat("X", "TD", any_length=True), "features (T, D) at 'X', of any leng"),
        (ItemFormat(0, dims=(0, 8), length=2), "at 0, of which 0 to 8 are generated, "),
        (ItemFormat(0, length=2), "padded, the true length at 2"),
        (ItemFormat(norm_channel=True), "(N, T, D), the last one the norm of the oth"),
        (ItemFormat(length="nonzero"), "padded with zeros"),
    ],
)
def test_how_items_are_read_is_said_in_words(form, text):
    assert text in str(form)


def test_the_log_speaks_the_users_language(loaders, sampler, caplog):
    with caplog.at_level("INFO", "vad_pseudoaug"):
        rtfm.attach(*loaders, sampler, p=0.25)
    assert "read as features (N, T, D) at 0" in caplog.text
    assert "attached, p=0.25" in caplog.text
    assert "ItemFormat" not in caplog.text
