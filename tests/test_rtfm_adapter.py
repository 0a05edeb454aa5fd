"""The RTFM adapter: batches stay the host's, pseudo videos get in, and out again."""

import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vad_pseudoaug import PseudoVideoSampler, Recipe
from vad_pseudoaug.adapters import mil, rtfm

B = 4


@pytest.fixture
def twins(host_dataset):
    return host_dataset(9, 0.0), host_dataset(7, 1.0)


def loaders(twins, **options):
    options = {"batch_size": B, "shuffle": True, "drop_last": True, **options}
    return [DataLoader(dataset, **options) for dataset in twins]


def states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
    )


def seed():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


def run(pair, epochs=2):
    """All batches of a training run, in the loop style of RTFM."""
    return [batch for _ in range(epochs) for loader in pair for batch in loader]


def equal(first, second):
    return all(
        torch.equal(a, b)
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_wrap_appends_the_papers_counts(sampler, host_dataset):
    normal, abnormal = host_dataset(175, 0.0), host_dataset(63, 1.0)
    wrapped = rtfm.wrap(normal, abnormal, sampler)
    assert [len(dataset) for dataset in wrapped] == [175 + 126, 63 + 350]
    ratios = [rtfm.wrap(normal, abnormal, sampler, per_video=r) for r in (0.5, 1, 2)]
    assert [(n.num_pseudo, a.num_pseudo) for n, a in ratios] == [
        (32, 88),
        (63, 175),
        (126, 350),
    ]


def test_wrapped_items_are_the_hosts_but_for_the_features(sampler, twins):
    for label, (wrapped, real) in enumerate(
        zip(rtfm.wrap(*twins, sampler), twins, strict=True)
    ):
        for index in range(len(real)):
            assert wrapped[index][0] is real[index][0] or np.array_equal(
                wrapped[index][0], real[index][0]
            )
            assert wrapped.pseudo_mask(index) is None
        for index in range(len(real), len(wrapped)):
            features, label_tensor = wrapped[index]
            assert features.dtype == np.float32
            assert features.shape == real[0][0].shape
            assert torch.equal(label_tensor, torch.tensor(float(label)))
            assert np.array_equal(wrapped[index][0], features)
        with pytest.raises(IndexError):
            wrapped[len(wrapped)]
        assert wrapped[-1][0].shape == real[0][0].shape
        assert wrapped.list == real.list
        assert wrapped.get_num_frames() == 96
        with pytest.raises(AttributeError):
            _ = wrapped.no_such_thing


def test_wrapped_pseudo_abnormal_videos_keep_half_of_a_normal_one(sampler, twins):
    _, wrapped = rtfm.wrap(*twins, sampler)
    for index in range(7, len(wrapped)):
        features = torch.from_numpy(wrapped[index][0])
        mask = wrapped.pseudo_mask(index)
        assert mask.sum() == 3
        sources = torch.from_numpy(twins[0].features[:, :, ~mask])
        same = (sources == features[:, ~mask]).flatten(1).all(dim=1)
        assert same.sum() == 1


def test_wrapped_datasets_pickle_and_depend_on_the_seed(sampler, twins):
    normal, _ = rtfm.wrap(*twins, sampler, seed=1)
    again = pickle.loads(pickle.dumps(normal))
    assert np.array_equal(again[-1][0], normal[-1][0])
    assert again.list == normal.list
    other, _ = rtfm.wrap(*twins, sampler, seed=2)
    assert not np.array_equal(other[-1][0], normal[-1][0])


@pytest.mark.parametrize("options", [{"p": 0}, {"p": 0.5, "enabled": False}])
def test_an_inert_attachment_changes_not_a_bit(sampler, twins, options):
    seed()
    plain = run(loaders(twins))
    expected = states()
    seed()
    pair = loaders(twins)
    handle = rtfm.attach(*pair, sampler, **options)
    assert equal(run(pair), plain)
    assert states() == expected
    assert handle.stats()["replaced"] == 0


def test_a_real_attachment_leaves_the_hosts_random_states_alone(sampler, twins):
    seed()
    plain = run(loaders(twins))
    expected = states()
    seed()
    pair = loaders(twins)
    rtfm.attach(*pair, sampler, p=0.5)
    assert not equal(run(pair), plain)
    assert states() == expected


def test_batches_keep_arity_shape_dtype_and_labels(sampler, twins):
    pair = loaders(twins)
    handle = rtfm.attach(*pair, sampler, p=0.5)
    for label, loader in enumerate(pair):
        for features, labels in loader:
            assert features.shape == (B, 2, 6, 12)
            assert features.dtype == torch.float32
            assert torch.equal(labels, torch.full((B,), float(label)))
            assert features.any(dim=-1).all()
    stats = handle.stats()
    assert stats["seen"] == 3 * B
    assert 0 < stats["replaced"] < stats["seen"]


def test_classes_are_never_mixed(sampler, twins):
    # Sources far apart: a pseudo normal video is wholly generated, a pseudo abnormal
    # one has half of its segments from a normal source.
    twins[0].features += 100
    pair = loaders(twins)
    rtfm.attach(*pair, sampler, p=1)
    for features, _ in pair[0]:
        assert (features < 99).all()
    for features, _ in pair[1]:
        assert ((features > 99).all(dim=-1).sum(dim=-1) == 3).all()


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_the_number_of_workers_changes_nothing(sampler, twins, context):
    def batches(num_workers):
        seed()
        options = {"num_workers": num_workers}
        if num_workers:
            options["multiprocessing_context"] = context
        pair = loaders(twins, **options)
        handle = rtfm.attach(*pair, sampler, p=0.5, seed=3)
        return run(pair), handle.stats()

    expected, stats = batches(0)
    for num_workers in (1, 2):
        found, counted = batches(num_workers)
        assert equal(found, expected)
        assert counted == stats


def test_epochs_differ_and_runs_repeat(sampler, twins):
    def epochs():
        seed()
        pair = loaders(twins, shuffle=False)
        rtfm.attach(*pair, sampler, p=1, seed=3)
        return run(pair, epochs=1), run(pair, epochs=1)

    first, second = epochs()
    assert not equal(first, second)
    again, _ = epochs()
    assert equal(first, again)


def test_persistent_workers_see_switch_and_epochs(sampler, twins):
    pair = loaders(twins, shuffle=False, num_workers=1, persistent_workers=True)
    handle = rtfm.attach(*pair, sampler, p=1)
    first, second = run(pair, epochs=1), run(pair, epochs=1)
    assert not equal(first, second)
    handle.enabled = False
    assert equal(run(pair, epochs=1), run(loaders(twins, shuffle=False), epochs=1))
    assert not handle.enabled
    del pair


def test_detach_restores_the_loaders(sampler, twins):
    pair = loaders(twins)
    before = [dict(loader.__dict__) for loader in pair]
    handle = rtfm.attach(*pair, sampler, p=0.5)
    assert all(isinstance(loader, DataLoader) for loader in pair)
    with pytest.raises(ValueError, match="attached already"):
        rtfm.attach(*pair, sampler, p=0.5)
    handle.detach()
    assert [type(loader) for loader in pair] == [DataLoader, DataLoader]
    assert [loader.__dict__ for loader in pair] == before
    rtfm.attach(*pair, sampler, p=0.5)


def test_nothing_is_attached_where_one_loader_cannot_be(sampler, twins):
    pair = loaders(twins)
    with pytest.raises(TypeError, match="expected a DataLoader, got DatasetHolder"):
        rtfm.attach(pair[0], DatasetHolder(twins[1]), sampler)
    assert type(pair[0]) is DataLoader
    running = DataLoader(twins[1], batch_size=B, num_workers=1, persistent_workers=True)
    next(iter(running))
    with pytest.raises(ValueError, match="before the first iter"):
        rtfm.attach(pair[0], running, sampler, p=0.5)
    with pytest.raises(ValueError, match="no batches"):
        rtfm.attach(pair[0], DataLoader(twins[1], batch_size=None), sampler)
    with pytest.raises(ValueError, match="the same dataset"):
        rtfm.attach(pair[0], pair[0], sampler, p=0.5)
    assert type(pair[0]) is DataLoader


class DatasetHolder:
    """Has a dataset, as a loader does, but is none."""

    def __init__(self, dataset):
        self.dataset = dataset


def test_test_videos_other_sizes_and_bad_options_are_refused(sampler, twins):
    with pytest.raises(ValueError, match=r"p: expected a value in \[0, 1\]"):
        rtfm.attach(*loaders(twins), sampler, p=1.5)
    twins[1].test_mode = True
    for call, pair in ((rtfm.wrap, twins), (rtfm.attach, loaders(twins))):
        with pytest.raises(ValueError, match="abnormal: the dataset is in test mode"):
            call(*pair, sampler)
    twins[1].test_mode = False
    twins[0].features = twins[0].features[..., :5]
    with pytest.raises(ValueError, match="fitted on feature size 12"):
        rtfm.wrap(*twins, sampler)


def test_bare_items_tuples_and_dictionaries(sampler):
    video = np.ones((6, 12), np.float32)
    kinds = [
        video,
        torch.ones(6, 12),
        (video, 1),
        [video, 1.0, "caption"],
        {"features": video, "label": 1},
    ]
    for item in kinds:
        normal, _ = mil.wrap([item] * 3, [item] * 2, sampler)
        pseudo = normal[3]
        assert type(pseudo) is type(item)
        if isinstance(item, dict):
            assert pseudo["label"] == 1
            pseudo = pseudo["features"]
        elif isinstance(item, tuple | list):
            assert type(pseudo[1]) is type(item[1])
            assert pseudo[1:] == item[1:]
            pseudo = pseudo[0]
        assert pseudo.shape == (6, 12)


def test_items_without_or_with_several_features(sampler):
    with pytest.raises(TypeError, match=r"got \(int, str\)"):
        mil.wrap([(1, "a")], [(1, "a")], sampler)
    two = (np.ones((6, 12), "f4"), np.ones((6, 12), "f4"))
    with pytest.raises(ValueError, match="pass slot=, one of"):
        mil.wrap([two], [two], sampler)
    normal, _ = mil.wrap([two], [two], sampler, slot=1)
    assert normal[1][0] is two[0]
    assert not np.array_equal(normal[1][1], two[1])


def test_a_sampler_with_sources_does_not_travel_with_them(vae, twins):
    videos = [np.ones((2, 6, 12), np.float32)] * 400
    sampler = PseudoVideoSampler(vae, normal=videos, abnormal=videos)
    normal, _ = rtfm.wrap(*twins, sampler)
    assert len(pickle.dumps(normal)) < 40_000


@pytest.mark.parametrize("how", ["p", "ratio"])
def test_half_by_the_robust_recipe_is_a_quarter_of_all(sampler, host_dataset, how):
    sampler.recipe = Recipe.named("robust", translation="swap")
    pair = loaders((host_dataset(40, 0.0), host_dataset(40, 1.0)))
    handle = rtfm.attach(*pair, sampler, **{how: 0.5}, pool=None)
    list(pair[0])
    assert handle.stats()["replaced"] == 0
    for _ in range(5):
        list(pair[1])
    stats = handle.stats()
    assert stats["replaced"] / (stats["seen"] - 40) == pytest.approx(0.5, abs=0.1)
