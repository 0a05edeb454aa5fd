"""Hosts without an abnormal video: a working abnormal side of pseudo videos alone."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

import hosts
from vad_pseudoaug import PseudoVideoSampler, VideoSet
from vad_pseudoaug.adapters import mil, rtfm
from vad_pseudoaug.auto import choose_p
from vad_pseudoaug.relabelled import RelabelledDataset

VIDEO = np.ones((6, hosts.FEATURE_DIM), np.float32)


@pytest.fixture(scope="module")
def one_class():
    normal = hosts.RtfmDataset(9, 0.0)
    return PseudoVideoSampler.fit(
        normal,
        hidden_dims=(16,),
        latent_dim=4,
        epochs=1,
        steps_per_epoch=2,
        progress=False,
    )


@pytest.fixture(params=["none", "empty"])
def empty(request):
    if request.param == "none":
        return None
    dataset = hosts.RtfmDataset(3, 1.0)
    dataset.features = dataset.features[:0]
    return dataset


def test_an_rtfm_host_gets_an_abnormal_side(one_class, empty):
    real = hosts.RtfmDataset(9, 0.0)
    normal, abnormal = rtfm.wrap(real, empty, one_class, per_video=2)
    assert (len(normal), normal.num_pseudo) == (9, 0)
    assert (len(abnormal), abnormal.num_pseudo) == (18, 18)
    assert torch.equal(normal[0][1], torch.tensor(0.0))
    assert abnormal.get_num_frames() == 96
    assert len(abnormal.list) == (9 if empty is None else 3)
    for index in (*range(18), -1):
        features, label = abnormal[index]
        assert label.dtype == torch.float32
        assert torch.equal(label, torch.tensor(1.0))
        assert features.dtype == np.float32
        mask = abnormal.pseudo_mask(index).numpy()
        assert mask.sum() == 3
        same = (real.features == features).all(axis=(1, 3))  # (V, T)
        assert (same | mask).all(axis=1).sum() == 1  # beside the run, one real video
        assert not same.all(axis=1).any()
        assert np.array_equal(abnormal[index][0], features)
    with pytest.raises(IndexError):
        abnormal[18]
    again = pickle.loads(pickle.dumps(abnormal))
    assert np.array_equal(again[4][0], abnormal[4][0])
    # Normal items are as before.
    assert torch.equal(real[0][1], torch.tensor(0.0))


def test_its_loaders_make_batches(one_class, empty):
    pair = rtfm.wrap(hosts.RtfmDataset(9, 0.0), empty, one_class)
    for label, dataset in enumerate(pair):
        loader = DataLoader(dataset, 4, shuffle=True, drop_last=True)
        for features, labels in loader:
            assert features.shape == (4, 2, 6, 12)
            assert labels.tolist() == [label] * 4
        # An abnormal side can be attached to as any other dataset can.
    loaders = [DataLoader(dataset, 4, drop_last=True) for dataset in pair]
    handle = mil.attach(*loaders, one_class, p=1)
    assert [len(batch[0]) for loader in loaders for batch in loader] == [4] * 4
    assert handle.stats()["replaced"] == 8  # the recipe makes no pseudo normal videos


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ((VIDEO, 0), 1),
        ((VIDEO, 0.0), 1.0),
        ([VIDEO, np.float32(0), "caption"], np.float32(1)),
        ((VIDEO, np.zeros(1, np.int64)), np.ones(1, np.int64)),
        ((VIDEO, torch.zeros((), dtype=torch.int64)), torch.tensor(1)),
        ((False, VIDEO), True),
        ({"features": VIDEO, "label": 0, "name": "x"}, 1),
    ],
)
def test_mil_items_keep_the_type_of_their_label(one_class, item, expected):
    _, abnormal = mil.wrap([item] * 3, [], one_class, per_video=1)
    assert len(abnormal) == 3
    found = abnormal[0]
    assert type(found) is type(item)
    slots = {dict: "label", tuple: 1, list: 1}
    slot = 0 if item[0 if not isinstance(item, dict) else "label"] is False else None
    label = found[slots[type(item)] if slot is None else slot]
    assert type(label) is type(expected)
    assert label == expected
    if not isinstance(expected, bool | int | float):
        assert label.dtype == expected.dtype
    if isinstance(item, list):
        assert found[2] is item[2]


def test_bare_videos_need_no_label(one_class):
    _, abnormal = mil.wrap([VIDEO] * 3, None, one_class, per_video=1)
    assert abnormal[0].shape == VIDEO.shape
    assert not np.array_equal(abnormal[0], VIDEO)


def test_a_label_that_cannot_be_told_is_asked_for(one_class):
    named = (VIDEO, "Normal")
    for item in (named, (VIDEO, 1), (VIDEO, torch.zeros(4))):
        with pytest.raises(ValueError, match="pass abnormal_label="):
            mil.wrap([item] * 3, None, one_class)
    _, abnormal = mil.wrap([named] * 3, None, one_class, abnormal_label="Fighting")
    assert abnormal[0][1] == "Fighting"
    odd = (0, VIDEO, 0.0)
    with pytest.raises(ValueError, match=r"any of \[0, 2\]: pass label_slot="):
        mil.wrap([odd] * 3, None, one_class)
    _, abnormal = mil.wrap([odd] * 3, None, one_class, label_slot=2)
    assert (abnormal[0][0], abnormal[0][2]) == (0, 1.0)


def test_a_length_is_no_label(one_class):
    padded = np.zeros((9, hosts.FEATURE_DIM), np.float32)
    padded[:6] = 1
    item = (padded, 6, 0.0)
    _, abnormal = rtfm.wrap([item] * 3, None, one_class, length=1, per_video=1)
    features, length, label = abnormal[0]
    assert (features.shape, length, label) == (padded.shape, 6, 1.0)
    assert not features[6:].any()


def test_what_is_no_normal_dataset_is_refused(one_class):
    with pytest.raises(ValueError, match="normal videos: the dataset is empty"):
        rtfm.wrap([], None, one_class)
    real = hosts.RtfmDataset(9, 0.0)
    real.test_mode = True
    with pytest.raises(ValueError, match="normal: the dataset is in test mode"):
        rtfm.wrap(real, None, one_class)


def test_relabelled_items_are_the_hosts_but_for_the_label():
    real = hosts.RtfmDataset(4, 0.0)
    view = RelabelledDataset(real, beside=(0,))
    assert len(view) == 4
    assert view[2][0] is not None
    assert np.shares_memory(view[2][0], real[2][0])
    assert view.test_mode is False
    with pytest.raises(AttributeError):
        _ = view.no_such_thing


def test_a_sampler_of_both_classes_makes_an_abnormal_side_too(sampler):
    _, abnormal = rtfm.wrap(hosts.RtfmDataset(5, 0.0), None, sampler)
    assert len(abnormal) == 10


def test_videos_of_a_padded_host_of_normal_ones_alone(host_dataset):
    class Padded(host_dataset):
        def __getitem__(self, index):
            features, label = super().__getitem__(index)
            return np.pad(features, ((0, 0), (0, 6), (0, 0))), label, 6

    host = Padded(5, 0.0)
    for nothing in (None, []):
        normal, abnormal = rtfm.videos(host, nothing, length=2)
        assert abnormal is None
        assert [video.shape[1] for video in normal] == [6] * 5


def test_no_sampler_learns_of_pseudo_videos(host_dataset, sampler):
    twins = host_dataset(5, 0.0), host_dataset(4, 1.0)
    wrapped = rtfm.wrap(*twins, sampler)
    alone = rtfm.wrap(twins[0], None, sampler)
    for given in (wrapped, (twins[0], Subset(wrapped[1], [0, 1]))):
        with pytest.raises(ValueError, match="would be taken for real ones"):
            PseudoVideoSampler.fit(*given)
        with pytest.raises(ValueError, match="would be taken for real ones"):
            choose_p(*given)
    assert len(VideoSet(alone[0])) == 5  # nothing was appended
