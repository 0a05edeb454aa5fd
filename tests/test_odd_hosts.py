"""Hosts that are no DataLoader or build theirs late, and guards against real traps."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

import hosts
from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, Recipe, VAEConfig
from vad_pseudoaug.adapters import (
    batches,
    generic,
    lightning,
    mil,
    mixed,
    pairs,
    rtfm,
)
from vad_pseudoaug.contracts import class_of_label
from vad_pseudoaug.profile import FeatureProfile
from vad_pseudoaug.vae import CLASS_NAMES


def test_batch_iterables(vae):
    loader = hosts.BatchIterable()
    sampler = PseudoVideoSampler(vae, profile=FeatureProfile(unit_norm=True))
    plain = list(hosts.BatchIterable())
    handle = batches.attach(loader, sampler, p=0.5, normal_first=True)
    first, second = list(loader), list(loader)
    assert isinstance(loader, hosts.BatchIterable)
    assert len(first) == len(second) == len(plain) == len(loader)
    before = loader.features.clone()
    for (features, labels), (real, same_labels) in zip(first, plain, strict=True):
        assert features.shape == real.shape
        assert torch.equal(labels, same_labels)
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(8, 6))
    assert torch.equal(loader.features, before)  # never written in place
    assert not torch.equal(first[0][0], second[0][0])
    stats = handle.stats()
    assert stats["seen"] == 80
    assert 0 < stats["replaced"] < 80
    with pytest.raises(ValueError, match="attached already"):
        batches.attach(loader, sampler, normal_first=True, p=0.5)
    handle.detach()
    assert type(loader) is hosts.BatchIterable
    assert torch.equal(next(iter(loader))[0], plain[0][0])


@pytest.mark.parametrize("normal_first", [True, False])
def test_batch_halves_make_pseudo_videos_of_each_other(vae, normal_first):
    class Generator:
        def __iter__(self):
            features = torch.cat([torch.full((3, 6, 12), 5.0), torch.ones(3, 6, 12)])
            yield features
            yield features

    loader = Generator()
    batches.attach(
        loader, PseudoVideoSampler(vae), p=1, normal_first=normal_first, slot=None
    )
    for features in loader:
        first, second = features.chunk(2)
        abnormal, kept = (second, 5.0) if normal_first else (first, 1.0)
        assert ((abnormal == kept).all(dim=-1).sum(dim=1) == 3).all()
        normal = first if normal_first else second
        assert not ((normal == 5) | (normal == 1)).all(dim=-1).any()


def test_batch_iterables_inert_warm_up_ratio_and_videos(vae):
    sampler = PseudoVideoSampler(vae)
    plain = [features for features, _ in hosts.BatchIterable()]
    for options, untouched in (
        ({"p": 0}, 5),
        ({"enabled": False}, 5),
        ({"p": 1, "start_after": 2}, 2),
    ):
        loader = hosts.BatchIterable()
        batches.attach(loader, sampler, normal_first=True, **options)
        found = [features for features, _ in loader]
        for number, (a, b) in enumerate(zip(found, plain, strict=True)):
            assert torch.equal(a, b) == (number < untouched)
    loader = hosts.BatchIterable()
    handle = batches.attach(loader, sampler, normal_first=True, ratio=0.25)
    list(loader)
    assert handle.stats() == {"seen": 40, "replaced": 10}
    few = itertools.islice(copy.deepcopy(hosts.BatchIterable()), 2)
    normal, abnormal = batches.videos(few, normal_first=True)
    assert (len(normal), len(abnormal)) == (8, 8)


def test_batches_go_on_in_a_run_that_is_resumed(vae):
    def run(steps_done):
        loader = hosts.BatchIterable()
        handle = batches.attach(
            loader, PseudoVideoSampler(vae), normal_first=True, p=0.5, start_after=6
        )
        handle.steps_done = steps_done
        return handle, loader

    whole, loader = run(0)
    _, again = list(loader), list(loader)
    assert whole.steps_done == 10
    _, loader = run(5)
    for (features, _), (expected, _) in zip(loader, again, strict=True):
        assert torch.equal(features, expected)
    with pytest.raises(AttributeError, match="see steps_done"):
        whole.epochs_done = 1


@pytest.mark.parametrize(
    "loader", [[torch.zeros(2, 3, 12)], map(len, ()), (x for x in ())]
)
def test_batches_of_what_is_no_class_of_the_hosts_are_refused(loader, vae):
    with pytest.raises(TypeError, match="of a class of the host's own, got"):
        batches.attach(loader, PseudoVideoSampler(vae), normal_first=True, p=0.5)


@pytest.mark.parametrize("made", [0, 1])
@pytest.mark.parametrize("normal_first", [True, False])
def test_batches_of_a_recipe_that_makes_one_class_alone(vae, normal_first, made):
    rates = {"normal_rate": 1.0 - made, "abnormal_rate": 1.0 * made}
    sampler = PseudoVideoSampler(vae, recipe=Recipe.named(**rates))
    plain = [features for features, _ in hosts.BatchIterable()]
    loader = hosts.BatchIterable()
    handle = batches.attach(loader, sampler, normal_first=normal_first, p=1)
    for (features, _), before in zip(loader, plain, strict=True):
        for first, (new, old) in enumerate(
            zip(features.chunk(2), before.chunk(2), strict=True)
        ):
            label = int(bool(first) is normal_first)
            assert torch.equal(new, old) == (label != made)
    assert handle.stats() == {"seen": 40, "replaced": 20}


class DataModule:
    """As a Lightning module's: the loaders are made when asked for."""

    def __init__(self):
        self.normal, self.abnormal = hosts.c_bare(0), hosts.c_bare(1)

    def train_dataloader(self):
        return [DataLoader(d, batch_size=4) for d in (self.abnormal, self.normal)]


def test_lightning_data_module(sampler):
    module = DataModule()
    handle = lightning.attach(module, sampler, order=("abnormal", "normal"), p=1)
    assert hasattr(module.train_dataloader, "__code__")
    with pytest.raises(ValueError, match="attached already"):
        lightning.attach(module, sampler, order=("abnormal", "normal"), p=0.5)
    for _ in range(2):
        abnormal, normal = module.train_dataloader()
        assert all((batch < 0.95).any() for batch in normal)
        assert sum(len(batch) for batch in abnormal) == 8
    assert handle.stats() == {"seen": 34, "replaced": 34}
    place = handle.place()
    assert len(list(place.glob("*abnormal*"))) == 2 * 9  # one pool for all loaders
    handle.enabled = False
    abnormal, _ = module.train_dataloader()
    assert torch.equal(next(iter(abnormal))[0], torch.from_numpy(module.abnormal[0]))
    handle.detach()
    assert not place.exists()
    assert type(module.train_dataloader()[0].collate_fn).__name__ == "function"
    with pytest.raises(ValueError, match="order: expected"):
        lightning.attach(module, sampler, order=("abnormal", "abnormal"))


def test_generic_takes_sources_from_anywhere(vae):
    dataset = hosts.c_bare(1)
    normal = list(hosts.c_bare(0))
    own = PseudoVideoSampler(vae, normal=normal)
    for sampler, sources in ((PseudoVideoSampler(vae), normal), (own, None)):
        loader = DataLoader(dataset, batch_size=4)
        handle = generic.attach(loader, sampler, label=1, sources=sources, p=1)
        for batch in loader:
            assert ((batch < 1).all(dim=-1).sum(dim=1) >= 3).all()
        assert handle.stats()["replaced"] == 8
        wrapped = generic.wrap(dataset, sampler, label=1, sources=sources)
        assert len(wrapped) == 8 + 18
        assert wrapped[9].shape == (6, 12)
    with pytest.raises(ValueError, match="no normal videos"):
        generic.attach(
            DataLoader(dataset, batch_size=4), PseudoVideoSampler(vae), label=1
        )


@pytest.mark.parametrize("label", [0, 1])
def test_a_loader_of_a_class_that_the_recipe_does_not_make_stays_as_it_was(
    label, vae, caplog
):
    recipe = Recipe.named("paper", **{f"{CLASS_NAMES[label]}_rate": 0})
    sampler = PseudoVideoSampler(vae, recipe=recipe)
    loader = DataLoader(hosts.c_bare(label), batch_size=4)
    plain = list(loader)
    sources = list(hosts.c_bare(1 - label))
    handle = generic.attach(loader, sampler, label=label, sources=sources, p=1)
    assert f"makes no pseudo {CLASS_NAMES[label]} videos" in caplog.text
    assert all(map(torch.equal, loader, plain))
    assert handle.stats()["replaced"] == 0


@pytest.mark.parametrize("length", [2, "nonzero"])
@pytest.mark.parametrize("way", [mixed.attach, mixed.wrap])
def test_the_padding_of_items_of_any_length_stays(way, length, vae):
    items = []
    for number in range(8):
        padded = np.zeros((6 + number, 12), np.float32)
        padded[: 3 + number] = 1 + number
        items.append((torch.from_numpy(padded), number % 2, 3 + number))
    sampler = PseudoVideoSampler(vae)
    options = {"length": length, "any_length": True}
    if way is mixed.attach:
        found = DataLoader(hosts.Items(items), batch_size=8, collate_fn=list)
        handle = way(found, sampler, p=1, **options)
        made = next(iter(found))
        assert handle.stats()["replaced"] == 8
    else:
        wrapped = way(hosts.Items(items), sampler, per_video=1, **options)
        made = [wrapped[number] for number in range(8, 16)]
    for features, _, true in made:
        assert true == len(features) - 3
        assert not features[true:].any()
        assert features[:true].any(dim=-1).all()


def test_two_videos_of_an_item_are_in_two_places(sampler):
    loader = DataLoader([0], batch_size=1)
    with pytest.raises(ValueError, match="two different ones, got 0 twice"):
        pairs.attach(loader, sampler, normal_slot=0, abnormal_slot=0)


# What breaks hosts: each guard has a test that fails without it.


def test_a_new_iterator_every_step_draws_anew_and_reads_only_its_batch(sampler):
    # Hosts call next(iter(loader)) each step.
    reads = []

    class Counted(hosts.Items):
        def __getitem__(self, index):
            reads.append(index)
            return self.items[index]

    normal = DataLoader(Counted(hosts.c_bare(0).items), batch_size=4)
    abnormal = DataLoader(Counted(hosts.c_bare(1).items), batch_size=4)
    handle = mil.attach(normal, abnormal, sampler, p=1, pool=None)
    reads.clear()
    first, second = next(iter(normal)), next(iter(normal))
    assert len(reads) == 2 * (4 + 4)  # own items and one source each
    handle.detach()
    mil.attach(normal, abnormal, sampler, p=1)
    next(iter(normal))
    reads.clear()
    first, second = next(iter(normal)), next(iter(normal))
    assert reads == []  # every video is in the pool, none of the batch was needed
    assert not torch.equal(first, second)


def test_hosts_read_the_attached_loader_as_before(sampler):
    pair = [DataLoader(hosts.RtfmDataset(9, k), batch_size=4) for k in (0.0, 1.0)]
    lengths = [len(loader) for loader in pair]
    rtfm.attach(*pair, sampler, p=0.5)
    assert [len(loader) for loader in pair] == lengths
    assert pair[0].batch_size == 4
    assert len(pair[0].dataset) == 9
    assert pair[0].dataset[0][0].shape == (2, 6, 12)
    assert pair[0].dataset.get_num_frames() == 96


def test_label_kinds_do_not_clash_in_the_collate(sampler):
    # [0-d tensor, float] raises in torch's collate, [float, 0-d tensor] gives float64.
    for label in (torch.tensor(1.0), 1.0, 1, np.float32(1), "Fighting"):
        video = np.ones((6, 12), np.float32)
        abnormal = [(video * (1 + i / 10), label) for i in range(6)]
        plain = next(iter(DataLoader(abnormal, batch_size=6)))[1]
        pair = [
            DataLoader([(video, label)] * 6, batch_size=6),
            DataLoader(abnormal, batch_size=6),
        ]
        mil.attach(*pair, sampler, p=0.5)
        mixed_labels = next(iter(pair[1]))[1]
        assert type(mixed_labels) is type(plain)
        if isinstance(plain, torch.Tensor):
            assert mixed_labels.dtype == plain.dtype


def test_a_dead_segment_is_never_emitted():
    # A decoder whose output is clamped to zero everywhere: hosts would cut the video.
    vae = MultiTaskVAE(VAEConfig(12, (16,), 4))
    with torch.no_grad():
        for decoder in vae.decoders:
            decoder[-1].weight.zero_()
            decoder[-1].bias.fill_(-1)
    sampler = PseudoVideoSampler(vae, profile=FeatureProfile(non_negative=True))
    dataset = hosts.d_mixed()
    loader = DataLoader(dataset, batch_size=4)
    mixed.attach(loader, sampler, p=1, dims=(0, 12), give_mask=True)
    for features, _, mask in loader:
        lengths = features.any(dim=-1).sum(dim=1)
        for video, length in zip(features, lengths.tolist(), strict=True):
            assert video[:length].any(dim=-1).all()
        assert not mask.any()


def test_no_factory_call_relies_on_torchs_defaults(sampler):
    pair = [DataLoader(hosts.RtfmDataset(9, k), batch_size=4) for k in (0.0, 1.0)]
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        items = [[loader.dataset[i] for i in range(4)] for loader in pair]
        handle = rtfm.attach(*pair, sampler, p=1)
        for loader, group in zip(pair, items, strict=True):
            made = loader.collate_fn.mix(group)
            assert all(isinstance(item[0], np.ndarray) for item in made)
        wrapped = rtfm.wrap(*[loader.dataset for loader in pair], sampler)
        assert wrapped[0][-1][0].dtype == np.float32
    finally:
        torch.set_default_device("cpu")
        torch.set_default_dtype(torch.float32)
    assert handle.stats()["replaced"] == 8


def test_datasets_that_are_no_datasets():
    dataset = hosts.b_halves(0)
    assert isinstance(dataset, DataLoader)
    assert not isinstance(dataset, Dataset)


def test_class_names():
    names = ["A", "a", "normal", "Normal_Videos", "B1-0-0", "B2-G-0", "Abuse", "fire"]
    assert [class_of_label(name) for name in names] == [0, 0, 0, 0, 1, 1, 1, 1]
    numbers = [0, 1, 0.0, 1.0, np.int64(1), torch.tensor([1.0]), True]
    assert [class_of_label(number) for number in numbers] == [0, 1, 0, 1, 1, 1, 1]
    for label in (2, 0.5, [0, 1], None):
        with pytest.raises(ValueError, match="pass class_of="):
            class_of_label(label)


@settings(max_examples=60)
@given(
    num_crops=st.integers(0, 10),
    length=st.integers(1, 300),
    feature_dim=st.integers(1, 64),
    norm=st.booleans(),
    position=st.integers(0, 2),
    label=st.sampled_from([1, 1.0, "name", torch.tensor(1.0), None]),
    batch_size=st.integers(2, 5),
    data=st.data(),
)
def test_random_contracts(
    num_crops, length, feature_dim, norm, position, label, batch_size, data
):
    rng = np.random.default_rng(length)
    shape = (num_crops, length, feature_dim) if num_crops else (length, feature_dim)

    def item():
        features = rng.random(shape, dtype=np.float32) + 0.1
        if norm:
            norms = np.linalg.norm(features, axis=-1, keepdims=True)
            features = np.concatenate([features, norms], axis=-1)
        rest = [label, 7]
        rest.insert(position, features)
        return tuple(rest)

    vae = MultiTaskVAE(VAEConfig(feature_dim, (8,), 2))
    twins = [[item() for _ in range(batch_size)] for _ in range(2)]
    pair = [DataLoader(t, batch_size=batch_size, collate_fn=list) for t in twins]
    rtfm.attach(*pair, PseudoVideoSampler(vae), p=1, seed=data.draw(st.integers(0, 99)))
    for loader, real in zip(pair, twins, strict=True):
        for made, old in zip(next(iter(loader)), real, strict=True):
            assert len(made) == len(old)
            assert made[position].shape == old[position].shape
            assert made[position].dtype == np.float32
            assert np.isfinite(made[position]).all()
            assert not np.array_equal(made[position], old[position])
            if norm:
                np.testing.assert_allclose(
                    made[position][..., -1],
                    np.linalg.norm(made[position][..., :-1], axis=-1),
                    rtol=1e-4,
                )
            others = [i for i in range(3) if i != position]
            assert all(is_like(made[i], old[i]) for i in others)


@pytest.mark.filterwarnings("ignore:'pin_memory'")  # without a GPU, nothing is pinned
def test_pinned_memory_persistent_workers_and_dropped_batches(sampler):
    def epochs(**options):
        twins = [
            DataLoader(hosts.RtfmDataset(9, k), batch_size=4, **options)
            for k in (0.0, 1.0)
        ]
        handle = mil.attach(*twins, sampler, p=0.5, seed=3)
        found = [batch[0].clone() for _ in range(2) for batch in twins[1]]
        return found, handle.stats()

    options = {"pin_memory": True, "persistent_workers": True, "num_workers": 2}
    expected, stats = epochs(drop_last=True)
    found, same_stats = epochs(drop_last=True, **options)
    assert len(found) == 4
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))
    assert 0 < stats["replaced"] == same_stats["replaced"] < stats["seen"] == 16
    assert len(epochs(drop_last=False, **options)[0]) == 6


def is_like(new, old):
    """The same object; of an item that was not loaded, a tensor or array like it."""
    if isinstance(old, torch.Tensor | np.ndarray):
        kind = type(new) is type(old) and new.dtype == old.dtype
        return kind and np.array_equal(np.asarray(new), np.asarray(old))
    return new is old
