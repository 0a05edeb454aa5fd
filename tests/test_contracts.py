"""One contract for every family of hosts: batches stay theirs but for the features."""

from __future__ import annotations

import functools
import logging
import pickle
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import hosts
from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig
from vad_pseudoaug.adapters import clip, mil, mixed, pairs, rtfm, torchmil

B = 4


class Family(NamedTuple):
    """A stand-in host: its datasets, and how the adapter is called."""

    datasets: Callable[[], list[Any]]
    adapter: Any
    form: dict[str, Any] = {}  # noqa: RUF012
    collate: Any = default_collate
    features: Any = 0  # slot in an item
    time: int = 0  # axis of time in an item's features


def twins(make):
    return lambda: [make(0), make(1)]


def single(make):
    return lambda: [make()]


PAIR = {"abnormal_slot": 0, "normal_slot": 1}
FAMILIES = {
    "A tuple": Family(
        lambda: [hosts.RtfmDataset(9, 0.0), hosts.RtfmDataset(8, 1.0)], rtfm, time=1
    ),
    "A magnitude": Family(twins(hosts.a_magnitude), rtfm, time=1),
    "B halves": Family(twins(hosts.b_halves), mil),
    "B dictionary": Family(twins(hosts.b_dictionary), mil, features="features"),
    "C bare": Family(twins(hosts.c_bare), mil, features=None),
    "D padded": Family(single(hosts.d_mixed), mixed, {"dims": (0, 12)}),
    "D strings": Family(single(hosts.d_strings), mixed, {"length": 2}),
    "D2 clip": Family(twins(hosts.d2_clip), clip),
    "E pairs": Family(single(hosts.e_pairs), pairs, PAIR),
    "G torchmil": Family(
        single(hosts.g_bags), torchmil, {}, hosts.collate_bags, features="X"
    ),
}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request) -> Family:
    return request.param


@pytest.fixture
def sampler() -> PseudoVideoSampler:
    vae = MultiTaskVAE(VAEConfig(hosts.FEATURE_DIM, (16,), 4), seed=1)
    return PseudoVideoSampler(vae)


def loaders(family: Family, **options: Any) -> list[DataLoader]:
    options = {
        "batch_size": B,
        "shuffle": True,
        "collate_fn": family.collate,
        **options,
    }
    return [DataLoader(dataset, **options) for dataset in family.datasets()]


def attach(family, group, sampler, **options):
    if "ratio" not in options:
        options.setdefault("p", 0.5)  # what is chosen where none is given: test_auto
    return family.adapter.attach(*group, sampler, **family.form, **options)


def seed():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


def states():
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        random.getstate(),
    )


def run(group, epochs=2):
    return [batch for _ in range(epochs) for loader in group for batch in loader]


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key in value for leaf in flat(value[key])]
    if isinstance(value, tuple | list):
        return [leaf for member in value for leaf in flat(member)]
    return [value]


def same(first: Any, second: Any) -> bool:
    pairs_of = list(zip(flat(first), flat(second), strict=True))
    return all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        if isinstance(a, torch.Tensor | np.ndarray)
        else a == b
        for a, b in pairs_of
    )


def slots(family: Family) -> list[Any]:
    return [0, 1] if family.adapter is pairs else [family.features]


def members(item: Any) -> dict[Any, Any]:
    if isinstance(item, dict):
        return item
    return dict(enumerate(item)) if isinstance(item, tuple | list) else {None: item}


@pytest.mark.parametrize("options", [{"p": 0}, {"enabled": False}, {"ratio": 0.0}])
def test_inert_is_identical(family, sampler, options):
    seed()
    plain = run(loaders(family))
    expected = states()
    seed()
    group = loaders(family)
    attach(family, group, sampler, **options)
    assert same(run(group), plain)
    assert states() == expected


def test_batches_keep_structure_and_random_states(family, sampler):
    seed()
    plain = run(loaders(family))
    expected = states()
    seed()
    group = loaders(family)
    handle = attach(family, group, sampler, p=0.6)
    mixed_batches = run(group)
    assert states() == expected
    assert not same(mixed_batches, plain)
    for new, old in zip(mixed_batches, plain, strict=True):
        assert type(new) is type(old)
        for slot, value in members(old).items():
            changed = members(new)[slot]
            assert type(changed) is type(value)
            if isinstance(value, torch.Tensor):
                assert changed.shape == value.shape
                assert changed.dtype == value.dtype
            # Labels, names and captions are the host's; a length goes with the video.
            is_length = slot == 2 and family.adapter in (clip, mixed)
            if slot not in slots(family) and not is_length:
                assert same(changed, value)
    stats = handle.stats()
    assert 0 < stats["replaced"] < stats["seen"]


def test_items_keep_padding_length_and_no_zero_row_inside(family, sampler):
    group = loaders(family, collate_fn=list)
    attach(family, group, sampler, p=1)
    for items in run(group):
        for item in items:
            for slot in slots(family):
                features = torch.as_tensor(members(item)[slot])
                rows = features.movedim(family.time, 0).flatten(1).any(dim=1)
                length = len(rows)
                if family.adapter is clip or family.form.get("length") == 2:
                    length = item[2]
                    assert type(length) is int
                elif family.adapter is mixed:
                    length = int(rows.sum())
                assert rows[:length].all()
                assert not rows[length:].any()


def test_a_class_gets_pseudo_videos_of_its_own_class(family, sampler):
    # A pseudo abnormal video keeps half of a normal source, which lies below 1.5; of
    # a pseudo normal video nothing is kept, and the decoder's output is below 1.
    group = loaders(family, collate_fn=list)
    attach(family, group, sampler, p=1)
    for number, loader in enumerate(group):
        for item in (i for items in loader for i in items):
            for slot in slots(family):
                features = torch.as_tensor(members(item)[slot]).float()
                values = features[..., : hosts.FEATURE_DIM]
                label = number if len(group) == 2 else _label(family, item, slot)
                rows = values.movedim(family.time, 0).flatten(1).mean(dim=1)
                if label == 1 and family.datasets()[0] is not None:
                    assert (rows > 0.25).any()
                else:
                    assert (rows < 0.9).all()


def _label(family, item, slot):
    if family.adapter is pairs:
        return int(slot == 0)
    if family.adapter is torchmil:
        return int(item["Y"])
    return int(item[1] != "A") if isinstance(item[1], str) else int(item[1])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_change_nothing(family, sampler, context):
    if context == "spawn" and family is not FAMILIES["D padded"]:
        context = "fork"  # each family once, spawn is slow
    expected = None
    for num_workers in (0, 1, 2):
        seed()
        # Not shuffled: a host that draws in __getitem__ has its own order per worker.
        options = {"num_workers": num_workers, "shuffle": False}
        if num_workers:
            options["multiprocessing_context"] = context
        group = loaders(family, **options)
        handle = attach(family, group, sampler, p=0.5, seed=3)
        found = (run(group), handle.stats())
        expected = expected or found
        assert same(found[0], expected[0])
        assert found[1] == expected[1]


def test_items_that_are_not_loaded_change_nothing(family, sampler, monkeypatch):
    # Datasets that draw at random are always loaded: here none does.
    monkeypatch.setattr(hosts.Items, "__getitem__", lambda self, i: self.items[i])

    def batches(**options):
        seed()
        group = loaders(family)
        handle = attach(family, group, sampler, seed=3, **options)
        found = run(group, 3), states(), handle.stats()
        mixers = [loader.collate_fn for loader in group]
        return found, all(mixer.defers for mixer in mixers)

    for options in ({"p": 0.6}, {"ratio": 0.5, "give_mask": True}):
        lazy, deferred = batches(**options)
        assert deferred == (family.adapter is not torchmil)
        with monkeypatch.context() as patch:
            patch.setattr("vad_pseudoaug.deferred.Survey.useful", False)
            eager, deferred = batches(**options)
        assert not deferred
        assert same(lazy[0], eager[0])
        assert lazy[1:] == eager[1:]


def test_epochs_differ_and_runs_repeat(family, sampler):
    def epochs():
        seed()
        group = loaders(family, shuffle=False)
        attach(family, group, sampler, p=1, seed=3)
        return run(group, 1), run(group, 1)

    first, second = epochs()
    assert not same(first, second)
    assert same(epochs()[0], first)


def test_second_attach_refused_and_detach_restores(family, sampler):
    group = loaders(family)
    before = [dict(loader.__dict__) for loader in group]
    handle = attach(family, group, sampler)
    with pytest.raises(ValueError, match="attached already"):
        attach(family, group, sampler)
    handle.detach()
    assert [type(loader) for loader in group] == [DataLoader] * len(group)
    assert [loader.__dict__ for loader in group] == before


def test_wrap_appends_items_of_the_same_kind(family, sampler):
    datasets = family.datasets()
    wrapped = family.adapter.wrap(*datasets, sampler, **family.form)
    wrapped = wrapped if isinstance(wrapped, tuple) else (wrapped,)
    for new, real in zip(wrapped, datasets, strict=True):
        assert new.num_pseudo > 0
        assert len(new) == len(real) + new.num_pseudo
        assert same(new[0], real[0])
        for index in range(len(real), len(new)):
            item = new[index]
            assert type(item) is type(real[0])
            assert same(item, new[index])
            for slot, value in members(real[0]).items():
                assert type(members(item)[slot]) is type(value)
            assert new.pseudo_mask(index).any()
            assert new.pseudo_mask(0) is None
        if isinstance(real, hosts.Items):
            assert new.modality == "rgb"
            assert new.num_frames() == 96
        again = pickle.loads(pickle.dumps(new))
        assert same(again[len(new) - 1], new[len(new) - 1])


def test_videos_can_be_fitted_on(family):
    normal, abnormal = family.adapter.videos(*family.datasets(), **family.form)
    assert normal.feature_dim == abnormal.feature_dim
    for videos, shift in ((normal, 0), (abnormal, 1)):
        for video in videos:
            assert video.any(axis=(0, 2)).all()
            if family is not FAMILIES["A tuple"]:
                rgb = video[..., : hosts.FEATURE_DIM]
                assert shift <= rgb.min() or family.adapter is rtfm


def test_detection_is_logged_once_and_test_mode_refused(family, sampler, caplog):
    with caplog.at_level(logging.INFO, "vad_pseudoaug"):
        attach(family, loaders(family), sampler)
    found = [r.getMessage() for r in caplog.records if "read as" in r.getMessage()]
    assert (
        len(found)
        == len(set(found))
        == (1 if family.adapter in (mixed, torchmil) else 2)
    )
    group = loaders(family)
    group[-1].dataset.__dict__["test_mode"] = True
    with pytest.raises(ValueError, match="test mode"):
        attach(family, group, sampler)
    group = loaders(family, batch_size=1)
    with pytest.raises(ValueError, match="allow_single=True"):
        attach(family, group, sampler)
    attach(family, group, sampler, allow_single=True)


def test_masks_are_handed_out(family, sampler):
    group = loaders(family, collate_fn=list)
    attach(family, group, sampler, p=0.5, give_mask=True)
    for item in (i for items in run(group, 1) for i in items):
        mask = item["pseudo_mask"] if isinstance(item, dict) else item[-1]
        assert mask.dtype == torch.bool
        slot = slots(family)[0] or (0 if isinstance(item, tuple) else None)
        features = torch.as_tensor(members(item)[slot])
        assert mask.shape[-1] == features.shape[family.time]


def test_ratio_replaces_an_exact_share(family, sampler):
    group = loaders(family, collate_fn=list, drop_last=True)
    handle = attach(family, group, sampler, ratio=0.5)
    num_batches = len(run(group, 1))
    per_batch = 2 * B if family.adapter is pairs else B
    assert handle.stats() == {
        "seen": num_batches * per_batch,
        "replaced": num_batches * per_batch // 2,
    }


@pytest.mark.parametrize("unit", ["steps", "epochs"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_warm_up(family, sampler, unit, num_workers):
    if num_workers and family is not FAMILIES["A tuple"]:
        return
    group = loaders(family, shuffle=False, num_workers=num_workers)
    per_epoch = len(group[0])
    start = {"steps": per_epoch + 1, "epochs": 1}[unit]
    attach(family, group, sampler, p=1, start_after=start, start_unit=unit)
    plain = run(loaders(family, shuffle=False)[:1], 1)
    first, second = run(group[:1], 1), run(group[:1], 1)
    assert same(first, plain)
    untouched = 1 if unit == "steps" else 0
    assert same(second[:untouched], plain[:untouched])
    assert not same(second[untouched], plain[untouched])


def test_target_share_of_abnormal_videos(sampler):
    for share, label in ((1.0, 1.0), (0.0, 0.0)):
        family = FAMILIES["D padded"]
        [loader] = loaders(family)
        mixed.attach(loader, sampler, **family.form, p=1, abnormal_share=share)
        for _, labels in loader:
            assert (labels == label).all()
            assert labels.dtype == torch.float64  # python floats, as the host's


def test_target_share_without_loading(sampler, monkeypatch):
    monkeypatch.setattr(hosts.Items, "__getitem__", lambda self, i: self.items[i])
    found = []
    for useful in (True, False):
        if not useful:
            monkeypatch.setattr("vad_pseudoaug.deferred.Survey.useful", False)
        family = FAMILIES["D strings"]
        group = loaders(family, shuffle=False)
        mixed.attach(*group, sampler, **family.form, p=0.7, abnormal_share=0.3)
        assert not group[0].collate_fn.defers  # before the first iteration
        found.append(run(group, 3))
    assert same(*found)


def test_norm_channel_is_computed_anew(sampler):
    group = loaders(FAMILIES["A magnitude"])
    rtfm.attach(*group, sampler, p=1)
    for features, *_ in run(group, 1):
        norm = features[..., :-1].norm(dim=-1)
        torch.testing.assert_close(features[..., -1], norm)


def test_audio_stays_that_of_the_source(sampler):
    family = FAMILIES["D padded"]
    [loader] = loaders(family)
    mixed.attach(loader, sampler, **family.form, p=1)
    audio = torch.stack([torch.from_numpy(i[0][:, 12:]) for i in family.datasets()[0]])
    for features, _ in loader:
        for video in features[..., 12:].float():
            assert (audio == video).flatten(1).all(dim=1).any()


def only_first_letter(label):
    return int(label.startswith("G"))


def test_a_rule_of_ones_own(sampler):
    [dataset] = FAMILIES["D strings"].datasets()
    normal, abnormal = mixed.videos(
        dataset, length=2, class_of=only_first_letter, labels=[i[1] for i in dataset]
    )
    assert (len(normal), len(abnormal)) == (9, 3)
    bad = functools.partial(mixed.videos, hosts.Items([(dataset[0][0], "A", 6)] * 2))
    with pytest.raises(ValueError, match="no abnormal video"):
        bad(length=2)
    with pytest.raises(ValueError, match="expected 12, got 3"):
        mixed.videos(dataset, labels=[0, 1, 0])
    odd = hosts.Items([(np.ones((6, 12), "f4"), 7)])
    with pytest.raises(ValueError, match="pass class_of="):
        mixed.videos(odd)
