"""Hosts' datasets that change when they are read, or hold others."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

import hosts
from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig
from vad_pseudoaug.adapters import generic, mil, mixed, rtfm, torchmil
from vad_pseudoaug.mixing import Mixing
from vad_pseudoaug.relabelled import RelabelledDataset
from vad_pseudoaug.untouched import left_as_it_was, parts_of, read_item
from vad_pseudoaug.videos import VideoSet

NUM_VIDEOS = 12


@pytest.fixture
def sampler():
    config = VAEConfig(hosts.FEATURE_DIM, hidden_dims=(16,), latent_dim=4)
    return PseudoVideoSampler(MultiTaskVAE(config, seed=1))


class Lazy:
    """Opens its file when first read, so that each worker has its own."""

    def __init__(self, path: Any, label: float):
        self.path, self.label, self.file, self.times = path, label, None, []

    def __len__(self):
        return NUM_VIDEOS

    def __getitem__(self, index):
        if self.file is None:
            self.file = np.load(self.path)
            self.times.append(index)
        return self.file[str(index)], self.label


class Several(Lazy):
    """Keeps its open files in a dictionary."""

    def __init__(self, path: Any, label: float):
        super().__init__(path, label)
        self.files: dict[str, Any] = {}

    def __getitem__(self, index):
        if self.path not in self.files:
            self.files[self.path] = np.load(self.path)
            self.times.append(index)
        return self.files[self.path][str(index)], self.label


class Both(Lazy):
    """Videos of both classes, turn by turn."""

    def __getitem__(self, index):
        return super().__getitem__(index)[0], index % 2


class Wrapper(Dataset):
    """A host's own, around another dataset."""

    def __init__(self, inner: Any):
        self.anything = inner

    def __len__(self):
        return len(self.anything)

    def __getitem__(self, index):
        return self.anything[index]


@pytest.fixture
def path(tmp_path):
    videos = {
        str(i): np.full((6, hosts.FEATURE_DIM), i + 1, np.float32)
        for i in range(NUM_VIDEOS)
    }
    np.savez(tmp_path / "videos.npz", **videos)
    return tmp_path / "videos.npz"


@pytest.mark.parametrize("kind", [Lazy, Several])
@pytest.mark.parametrize("way", ["attach", "wrap", "videos"])
def test_a_dataset_that_opens_its_file_when_read_is_left_closed(
    kind, way, path, sampler
):
    pair = [kind(path, 0.0), kind(path, 1.0)]
    before = [pickle.dumps(dataset) for dataset in pair]
    if way == "attach":
        mil.attach(*(DataLoader(own, batch_size=4) for own in pair), sampler, p=0)
    elif way == "wrap":
        normal, _ = mil.wrap(*pair, sampler)
        assert normal.pseudo_mask(NUM_VIDEOS) is not None
    else:
        for videos in mil.videos(*pair):
            assert len(list(videos)) == NUM_VIDEOS
    for dataset, was in zip(pair, before, strict=True):
        assert dataset.times  # it was read
        dataset.times.clear()
        assert pickle.dumps(dataset) == was


def test_a_fit_and_a_pool_open_each_file_once(path):
    pair = [Lazy(path, 0.0), Lazy(path, 1.0)]
    small = {"hidden_dims": (8,), "latent_dim": 2, "epochs": 2, "baseline_epochs": 2}
    sampler = PseudoVideoSampler.fit(*pair, recipe="paper", threshold=0.0, **small)
    # The first item of each to see what it is, and all of them for all epochs.
    assert [len(dataset.times) for dataset in pair] == [2, 2]
    loaders = [DataLoader(own, batch_size=4) for own in pair]
    mil.attach(*loaders, sampler, p=0.5)
    looks = [len(dataset.times) for dataset in pair]
    for dataset in pair:
        assert dataset.file is None
    loaders[0]._get_iterator()
    loaders[0].collate_fn.next_epoch()  # fills the pool
    assert all(len(d.times) <= n + 2 for d, n in zip(pair, looks, strict=True))
    for dataset in pair:
        assert dataset.file is None


@pytest.mark.parametrize(
    "around",
    [
        lambda dataset: Subset(dataset, range(NUM_VIDEOS)),
        lambda dataset: ConcatDataset([dataset]),
        lambda dataset: Wrapper(Subset(dataset, range(NUM_VIDEOS))),
        VideoSet,
    ],
)
def test_files_of_inner_datasets_are_left_closed(around, path, sampler):
    inner = [Lazy(path, 0.0), Lazy(path, 1.0)]
    loaders = [DataLoader(around(own), batch_size=4) for own in inner]
    mil.attach(*loaders, sampler, p=0)
    for dataset in inner:
        assert dataset.times
        assert dataset.file is None


def test_what_a_dataset_had_before_stays_as_it_is():
    class Counting(Lazy):
        def __getitem__(self, index):
            self.times.append(index)
            self.cache[index] = index
            self.last = self.label = index
            return self.cache[index]

    dataset = Counting("", 0.0)
    file, cache = object(), {}
    dataset.file, dataset.cache = file, cache
    read_item(dataset, 3)
    assert dataset.cache is cache
    assert cache == {3: 3}  # what is learned is kept
    assert dataset.file is file
    assert dataset.label == 0.0
    assert not hasattr(dataset, "last")


def test_attributes_are_set_back_after_an_error_and_after_the_outermost_block(path):
    dataset = Lazy(path, 0.0)
    with pytest.raises(KeyError), left_as_it_was(dataset):
        read_item(dataset, 3)
        assert dataset.file is not None
        read_item(dataset, 99)
    assert dataset.file is None
    assert dataset.times == [3]
    read_item(dataset, 3)
    assert dataset.file is None


def test_parts_are_found_each_once():
    twin = hosts.RtfmDataset(3, 0.0)
    outer = ConcatDataset([Subset(twin, [0]), Wrapper(Subset(twin, [1])), twin])
    twin.itself = outer
    kinds = [type(part).__name__ for part in parts_of(outer)]
    assert sorted(kinds) == [
        *("ConcatDataset", "RtfmDataset", "Subset", "Subset", "Wrapper")
    ]
    assert parts_of([1, 2]) == [[1, 2]]


def test_forked_workers_read_what_they_read_without_the_library(path, sampler):
    pair = [Lazy(path, 0.0), Lazy(path, 1.0)]
    loaders = [DataLoader(own, batch_size=1, num_workers=2) for own in pair]
    mil.attach(*loaders, sampler, p=0, allow_single=True)
    for loader in loaders:
        values = [features.unique().tolist() for features, _ in loader]
        assert values == [[i + 1] for i in range(NUM_VIDEOS)]


@pytest.mark.parametrize("options", [{}, {"refresh_every": 1}, {"pool_bytes": 500}])
def test_videos_made_on_the_way_leave_the_sources_file_closed(options, path, sampler):
    pair = [Lazy(path, 0.0), Lazy(path, 1.0)]
    loaders = [DataLoader(own, batch_size=4) for own in pair]
    mil.attach(*loaders, sampler, p=1, **options)
    for _ in range(3):
        assert len(list(loaders[1])) == 3  # of normal videos, made here
    assert pair[0].times
    assert pair[0].file is None


class Noisy:
    """Draws from random generators of its own."""

    def __init__(self, label: float):
        self.label = label
        self.numpy = np.random.default_rng(0)
        self.old = np.random.RandomState(0)
        self.torch = torch.Generator().manual_seed(0)
        self.python = random.Random(0)

    def __len__(self):
        return NUM_VIDEOS

    def __getitem__(self, index):
        draws = [
            self.numpy.uniform(),
            self.old.uniform(),
            torch.rand((), generator=self.torch).item(),
            self.python.random(),
        ]
        noise = np.resize(np.float32(draws), (6, hosts.FEATURE_DIM))
        return index + noise, self.label


@pytest.mark.parametrize("switch", [{"p": 0}, {"p": 0.5, "enabled": False}])
def test_a_datasets_own_generators_go_on_where_they_were(switch, sampler):
    runs = []
    for attached in (False, True):
        loaders = [DataLoader(Noisy(label), batch_size=4) for label in (0.0, 1.0)]
        if attached:
            mil.attach(*loaders, sampler, **switch)
        runs.append([batch[0] for loader in loaders for batch in loader])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
    assert not torch.equal(runs[0][0][0], runs[0][0][1] - 1)  # it does draw


def test_finding_labels_opens_a_file_once(path, sampler):
    dataset = Both(path, 0)
    mixed.attach(DataLoader(dataset, batch_size=4), sampler, p=0)
    assert dataset.file is None
    assert dataset.times == [0, 0, 0]  # two looks at the first item, then all labels


def test_trying_p_opens_a_file_once(path, sampler, monkeypatch):
    def settle(mixing, sampler, normal, abnormal):
        for dataset in pair:
            dataset.times.clear()
        assert [len(list(videos)) for videos in (normal, abnormal)] == [NUM_VIDEOS] * 2
        assert [dataset.times for dataset in pair] == [[], []]
        return replace(mixing, p=0.0), None

    monkeypatch.setattr("vad_pseudoaug.hosts.settle", settle)
    pair = [Lazy(path, 0.0), Lazy(path, 1.0)]
    mil.attach(*(DataLoader(own, batch_size=4) for own in pair), sampler, p="auto")
    assert [dataset.file for dataset in pair] == [None, None]


def test_a_file_is_left_closed_where_there_are_no_abnormal_videos(path, sampler):
    dataset = Lazy(path, 0.0)
    RelabelledDataset(dataset, beside=(0, None))
    assert dataset.file is None


class Bags:
    """Bags of both classes whose length differs from reading to reading."""

    def __init__(self):
        self.length = 4

    def __len__(self):
        return 8

    def __getitem__(self, index):
        bag = hosts.random_videos(1, index % 2, 12, hosts.FEATURE_DIM)[0]
        bag = torch.from_numpy(bag)[: self.length]
        return {"X": bag, "Y": torch.tensor([index % 2])}


@pytest.mark.parametrize("pool_bytes", [0, 10**6])
def test_appended_bags_have_the_length_of_each_reading(pool_bytes, sampler):
    bags = Bags()
    wrapped = torchmil.wrap(bags, sampler, pool_bytes=pool_bytes)
    first = wrapped[8]["X"]
    for length in (9, 12, 4):
        bags.length = length
        assert [len(wrapped[i]["X"]) for i in range(8, 12)] == [length] * 4
    assert torch.equal(wrapped[8]["X"], first)


def audio_visual(label: int, *, length: int = 6) -> list[Any]:
    """Features (6, 12 + 3) of rgb + audio, zero-padded, a label, the true length."""
    items = []
    for video in hosts.random_videos(6, label, 6, hosts.FEATURE_DIM + 3) + 0.1:
        video[length:] = 0
        items.append((video, float(label), length))
    return items


def first_batch(loader: DataLoader) -> Any:
    return next(iter(loader))


@pytest.mark.parametrize("bare", [False, True])
def test_dims_of_generic_hold_for_the_sources_too(bare, sampler):
    sources = audio_visual(0)
    audio = {item[0][:, 12:].tobytes() for item in sources}
    loader = DataLoader(audio_visual(1), batch_size=3)
    generic.attach(
        loader,
        sampler,
        label=1,
        sources=[item[0] for item in sources] if bare else sources,
        dims=(0, 12),
        p=1,
    )
    features = first_batch(loader)[0].numpy()
    assert features.shape == (3, 6, 15)
    assert {video[:, 12:].tobytes() for video in features} <= audio


@pytest.mark.parametrize("length", [2, "nonzero"])
def test_the_length_of_generic_is_that_of_the_sources(length, sampler):
    loader = DataLoader(audio_visual(1, length=5), batch_size=3)
    generic.attach(
        loader,
        sampler,
        label=1,
        sources=audio_visual(0, length=2),
        dims=(0, 12),
        length=length,
        p=1,
    )
    features, _, lengths = first_batch(loader)
    assert features.any(dim=2).sum(dim=1).tolist() == [2, 2, 2]
    assert lengths.tolist() == [2 if length == 2 else 5] * 3


def test_a_slot_that_sources_do_not_have_is_not_looked_for(sampler):
    sampler.normal = VideoSet([item[0][:, :12] for item in audio_visual(0)])
    own = [(f[:, :12], label, length) for f, label, length in audio_visual(1)]
    wrapped = generic.wrap(own, sampler, label=1, slot=0, length=2, dims=(0, 12))
    features, label, length = wrapped[len(own)]
    assert features.shape == (6, 12)
    assert (label, length) == (1.0, 6)


def test_the_layout_of_generic_holds_for_items_but_not_for_the_samplers_videos(sampler):
    # Six crops of six segments: no error tells one from the other.
    own, sources = (hosts.random_videos(5, label, 6, 6, 12) for label in (1, 0))
    sampler.normal = VideoSet(list(sources.swapaxes(1, 2)))
    made = [
        generic.wrap(list(own), sampler, label=1, sources=given, layout="TND")[5]
        for given in (list(sources), None)
    ]
    np.testing.assert_array_equal(*made)
    kept = (made[0] == sources[0]).all(axis=(1, 2))  # by segment, which come first
    assert 0 < kept.sum() < 6


def test_sources_without_all_features_are_refused(sampler):
    loader = DataLoader(audio_visual(1), batch_size=3)
    narrow = [item[0][:, :12] for item in audio_visual(0)]
    with pytest.raises(ValueError, match=r"sources: .* size 15 as the items, got 12"):
        generic.attach(loader, sampler, label=1, sources=narrow, dims=(0, 12), p=1)
    sampler.normal = VideoSet(narrow)
    with pytest.raises(ValueError, match=r"own videos have 12 .* the items 15"):
        generic.attach(loader, sampler, label=1, dims=(3, 15), p=1)


@pytest.mark.parametrize("label", [2, -1, "1", None])
def test_a_label_that_is_no_class_is_refused(label, sampler):
    own, sources = hosts.RtfmDataset(4, 1.0), hosts.RtfmDataset(4, 0.0)
    message = r"label: expected 0 \(normal\) or 1 \(abnormal\), got"
    with pytest.raises(ValueError, match=message):
        generic.wrap(own, sampler, label=label, sources=sources)
    with pytest.raises(ValueError, match=message):
        loader = DataLoader(own, batch_size=2)
        generic.attach(loader, sampler, label=label, sources=sources)


@pytest.mark.parametrize("way", ["attach", "wrap"])
def test_a_wrapped_dataset_is_not_wrapped_or_attached_to_again(way, sampler):
    pair = rtfm.wrap(hosts.RtfmDataset(5, 0.0), hosts.RtfmDataset(4, 1.0), sampler)
    pair = pair[0], Subset(pair[1], range(5))
    for given in (pair, (hosts.RtfmDataset(5, 0.0), pair[1])):
        with pytest.raises(
            ValueError, match=r"appended to the dataset already, .* give"
        ):
            if way == "wrap":
                rtfm.wrap(*given, sampler)
            else:
                rtfm.attach(*(DataLoader(d, batch_size=2) for d in given), sampler)


def test_a_wrapped_dataset_without_pseudo_videos_is_like_the_hosts(sampler):
    pair = hosts.RtfmDataset(5, 0.0), hosts.RtfmDataset(4, 1.0)
    pair = rtfm.wrap(*pair, sampler, per_video=0)
    assert [len(own) for own in rtfm.wrap(*pair, sampler, per_video=1)] == [9, 9]


@pytest.mark.parametrize(
    "around", [lambda d: Subset(d, [0]), lambda d: ConcatDataset([Subset(d, [0])])]
)
def test_test_mode_is_seen_through_subsets(around, sampler):
    pair = [hosts.RtfmDataset(5, 0.0), hosts.RtfmDataset(4, 1.0)]
    rtfm.wrap(*map(around, pair), sampler)
    pair[1].test_mode = True
    with pytest.raises(ValueError, match="abnormal: the dataset is in test mode"):
        rtfm.wrap(*map(around, pair), sampler)


@pytest.mark.parametrize("per_video", [-1, float("nan"), float("inf"), "all", [1]])
def test_a_per_video_that_is_no_number_of_videos_is_refused(per_video, sampler):
    normal, abnormal = hosts.RtfmDataset(5, 0.0), hosts.RtfmDataset(4, 1.0)
    for other in (abnormal, None):
        with pytest.raises(ValueError, match="per_video: expected a number >= 0"):
            rtfm.wrap(normal, other, sampler, per_video=per_video)


def test_numbers_of_numpy_are_taken(sampler):
    pair = hosts.RtfmDataset(5, 0.0), hosts.RtfmDataset(4, 1.0)
    wrapped = rtfm.wrap(*pair, sampler, per_video=np.float32(0.5))
    assert [own.num_pseudo for own in wrapped] == [2, 3]
    loaders = [DataLoader(own, batch_size=4) for own in pair]
    handle = rtfm.attach(*loaders, sampler, p=np.float32(0.5))
    assert repr(handle).startswith("Attachment(p=0.5, ")
    assert Mixing(ratio=np.float16(0.25)).ratio == 0.25
    with pytest.raises(ValueError, match=r"p: expected a value in \[0, 1\]"):
        Mixing(p=np.float32(1.5))


def test_a_label_that_is_not_where_it_is_looked_for_is_asked_for(sampler):
    video = np.ones((6, hosts.FEATURE_DIM), np.float32)
    items = [{"features": video, "label": i % 2, "name": "x"} for i in range(8)]
    message = r"label_slot=1: .* pass label_slot=, one of \['label', 'name'\]"
    with pytest.raises(ValueError, match=message):
        mixed.attach(DataLoader(items, batch_size=4), sampler, p=0)
    mixed.attach(DataLoader(items, batch_size=4), sampler, p=0, label_slot="label")
    bare = [item["features"] for item in items]
    with pytest.raises(ValueError, match="expected items with a label beside the feat"):
        mixed.wrap(bare, sampler)


def test_an_attribute_set_on_a_wrapped_dataset_is_the_hosts(sampler):
    pair = hosts.RtfmDataset(5, 0.0), hosts.RtfmDataset(4, 1.0)
    wrapped, _ = rtfm.wrap(*pair, sampler)
    wrapped.label = 7.0
    assert pair[0].label == 7.0
    assert wrapped[0][1] == 7.0
    wrapped.new = 1  # which the host's own does not have
    assert not hasattr(pair[0], "new")
    again = pickle.loads(pickle.dumps(wrapped))
    again.label = 8.0
    assert (again[0][1], again.new, wrapped.label) == (8.0, 1, 7.0)
