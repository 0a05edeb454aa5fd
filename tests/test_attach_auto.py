"""`attach(p="auto")`: tried on the host's training videos, and inert where it is 0."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import hosts
from vad_pseudoaug import PseudoVideoSampler, auto
from vad_pseudoaug.adapters import batches, generic, lightning, mixed, rtfm
from vad_pseudoaug.auto import Choice
from vad_pseudoaug.mixing import Mixing


@pytest.fixture
def choose(monkeypatch):
    """Choose as told, and keep what was asked."""
    asked = []

    def tell(p):
        def choice(normal, abnormal, **options):
            asked.append((normal, abnormal, options))
            return Choice(p, {0.5: np.array([0.1, 0.1])})

        monkeypatch.setattr(auto, "choose_p", choice)
        return asked

    return tell


def loaders():
    pair = hosts.RtfmDataset(9, 0.0), hosts.RtfmDataset(8, 1.0)
    return [DataLoader(own, batch_size=4, shuffle=True) for own in pair]


def run(pair):
    torch.manual_seed(0)
    return [batch for loader in pair for batch in loader]


def test_what_is_chosen_is_what_is_mixed_in(choose, sampler):
    asked = choose(1.0)
    pair = loaders()
    handle = rtfm.attach(*pair, sampler, p="auto", seed=3)
    run(pair)
    assert handle.stats() == {"seen": 17, "replaced": 17}
    assert handle.choice.p == 1.0
    [(normal, abnormal, options)] = asked
    assert (len(normal), len(abnormal)) == (9, 8)
    np.testing.assert_array_equal(normal[2], pair[0].dataset.features[2])
    np.testing.assert_array_equal(abnormal[7], pair[1].dataset.features[7])
    assert options["recipe"] is sampler.recipe
    assert options["seed"] == 3


def test_none_is_inert_to_the_bit(choose, sampler):
    choose(0.0)
    plain = run(loaders())
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    pair = loaders()
    handle = rtfm.attach(*pair, sampler, p="auto")
    for ours, theirs in zip(run(pair), plain, strict=True):
        assert torch.equal(ours[0], theirs[0])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert handle.stats()["replaced"] == 0
    assert handle.choice.p == 0


def test_a_number_is_not_tried(choose, sampler):
    asked = choose(0.0)
    assert rtfm.attach(*loaders(), sampler, p=0.5).choice is None
    assert not asked


def test_a_dataset_of_both_classes_is_tried_by_class(choose, sampler):
    asked = choose(0.25)
    dataset = hosts.d_strings()
    handle = mixed.attach(DataLoader(dataset, 4), sampler, p="auto", length=2)
    assert handle.choice.p == 0.25
    [(normal, abnormal, _)] = asked
    assert len(normal) + len(abnormal) == len(dataset)


def test_trying_leaves_the_hosts_random_states_alone(sampler, monkeypatch, caplog):
    # The real thing, with a small sampler and host.
    small = {"hidden_dims": (16,), "latent_dim": 4, "epochs": 1}
    quick = {"baseline_epochs": 20, "baseline_hidden_dims": (8,), "baseline_lr": 0.01}
    sampler.recipe = type(sampler.recipe).named(**small, **quick)
    monkeypatch.setattr(
        auto, "train_baseline", lambda *a, **kw: lambda v: v.mean(axis=(0, 2))
    )
    pair = loaders()
    for loader in pair:
        loader.dataset.features[...] += loader.dataset.label
    torch.manual_seed(4)
    states = torch.get_rng_state(), random.getstate()
    with caplog.at_level("INFO", "vad_pseudoaug"):
        handle = rtfm.attach(*pair, sampler, p="auto")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert handle.choice.p == 0  # a host that learns nothing gains nothing
    assert handle.choice.reason in caplog.text


def test_bad_uses_are_refused(sampler):
    with pytest.raises(ValueError, match="per_video='auto' tries pseudo videos on"):
        rtfm.wrap(hosts.RtfmDataset(9, 0.0), None, sampler, per_video="auto")
    for open_one in (Mixing(), Mixing(p="auto")):
        with pytest.raises(ValueError, match="p is yet to be chosen"):
            open_one.limit([0.1])
    with pytest.raises(ValueError, match="p and ratio: expected one"):
        Mixing(p="auto", ratio=0.5)
    for bad in ({"p": "all"}, {"ratio": "auto"}):
        with pytest.raises(ValueError, match=r"expected a value in \[0, 1\]"):
            Mixing(**bad)


def test_it_is_tried_where_nothing_is_given(choose, sampler, caplog):
    asked = choose(1.0)
    assert rtfm.attach(*loaders(), sampler).choice.p == 1.0
    assert rtfm.attach(*loaders(), sampler, ratio=0.5).choice is None
    assert len(asked) == 1
    assert "give p to decide" in caplog.text
    assert "no pseudo videos are mixed in" not in caplog.text
    choose(0.0)
    pair = loaders()
    assert rtfm.attach(*pair, sampler).choice.p == 0
    assert "no pseudo videos are mixed in" in caplog.text
    assert "Give p to mix them in all the same" in caplog.text


@pytest.mark.parametrize("options", [{}, {"p": "auto"}])
def test_a_trial_that_fails_mixes_nothing_in_and_says_so(sampler, caplog, options):
    small = {"hidden_dims": (16,), "latent_dim": 4, "baseline_epochs": 2}
    sampler.recipe = type(sampler.recipe).named("paper", threshold=1.0, **small)
    plain, pair = run(loaders()), loaders()
    handle = rtfm.attach(*pair, sampler, **options)
    told = caplog.messages[-1]
    assert caplog.text.count("WARNING") == (1 if options else 2)  # that it is tried
    assert handle.choice.p == 0
    assert "no snippet of the" in handle.choice.failed
    assert handle.choice.failed in told
    assert "Give p to mix them in all the same" in told
    for ours, theirs in zip(run(pair), plain, strict=True):
        assert torch.equal(ours[0], theirs[0])
    pair[1].dataset.features[3] = np.nan
    handle.detach()
    with pytest.raises(ValueError, match="finite"):
        rtfm.attach(*pair, sampler, **options)


def few_loaders():
    pair = hosts.RtfmDataset(9, 0.0), hosts.RtfmDataset(2, 1.0)
    return [DataLoader(own, batch_size=2) for own in pair]


@pytest.mark.parametrize("options", [{}, {"p": "auto"}])
def test_of_too_few_videos_nothing_can_be_told(choose, sampler, caplog, options):
    asked = choose(1.0)
    pair = few_loaders()
    handle = rtfm.attach(*pair, sampler, **options)
    assert handle.choice.p == 0
    assert "there are 9 normal ones and 2 abnormal ones" in handle.choice.failed
    [told] = caplog.messages
    assert told.startswith("no pseudo videos are mixed in: p=0, for trying failed: it")
    run(pair)
    assert handle.stats()["replaced"] == 0
    assert not asked


def test_of_one_class_alone_it_is_tried_on_the_samplers_videos(choose, vae):
    asked = choose(1.0)
    normal, abnormal = (hosts.RtfmDataset(9, label) for label in (0.0, 1.0))
    sampler = PseudoVideoSampler(vae, normal=normal, abnormal=abnormal)
    handle = generic.attach(DataLoader(abnormal, batch_size=2), sampler, label=1)
    assert handle.choice.p == 1
    [(*videos, _)] = asked
    assert [len(own) for own in videos] == [9, 9]


def test_whole_batches_are_tried_on_what_the_sampler_was_fitted_on(choose, vae):
    asked = choose(0.0)
    normal, abnormal = (
        torch.from_numpy(hosts.RtfmDataset(9, label).features) for label in (0.0, 1.0)
    )
    sampler = PseudoVideoSampler(vae, normal=normal, abnormal=abnormal)
    batch = torch.cat((normal[:2], abnormal[:2]))
    for options, count in (({}, 1), ({"p": 0.5}, 1), ({"p": "auto"}, 2)):
        host = Batches([(batch, torch.zeros(4))])
        handle = batches.attach(host, sampler, normal_first=True, **options)
        assert len(asked) == count
        assert (handle.choice is None) == ("p" in options and options["p"] == 0.5)
    [(given, _)] = list(host)
    assert torch.equal(given, batch)
    told = "BatchAttachment(p=0, {}, seen=0, replaced=0)"
    assert repr(handle) == told.format("enabled=True")
    handle.detach()
    assert repr(handle) == told.format("detached")


class Batches(list):
    """Whole batches."""


@pytest.mark.parametrize(("p", "extra"), [(0.0, (0, 0)), (0.5, (9, 8)), (0.25, (3, 3))])
def test_so_many_are_appended_as_training_videos_speak_for(choose, sampler, p, extra):
    choose(p)
    pair = hosts.RtfmDataset(9, 0.0), hosts.RtfmDataset(8, 1.0)
    wrapped = rtfm.wrap(*pair, sampler, per_video="auto")
    assert tuple(own.num_pseudo for own in wrapped) == extra
    assert all(own.choice.p == p for own in wrapped)
    assert rtfm.wrap(*pair, sampler, per_video=1)[0].choice is None


class DataModule:
    """As a Lightning module's: the loaders are made when asked for."""

    def train_dataloader(self):
        return loaders()


def test_a_data_module_chooses_once(choose, sampler):
    asked = choose(1.0)
    module = DataModule()
    handle = lightning.attach(
        module, sampler, order=("normal", "abnormal"), p="auto", pool=None
    )
    assert handle.choice is None
    told = "ModuleAttachment(p={}, {}, seen={}, replaced={})"
    assert repr(handle) == told.format("auto", "enabled=True", 0, 0)
    for _ in range(2):
        run(module.train_dataloader())
    assert len(asked) == 1
    assert handle.choice.p == 1.0
    assert handle.stats() == {"seen": 34, "replaced": 34}
    assert repr(handle) == told.format(1, "enabled=True", 34, 34)
    handle.detach()
    assert repr(handle) == told.format(1, "detached", 34, 34)
