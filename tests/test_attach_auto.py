"""`attach(p="auto")`: tried on the host's training videos, and inert where it is 0."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import hosts
from vad_pseudoaug import auto
from vad_pseudoaug import hosts as module
from vad_pseudoaug.adapters import batches, lightning, mixed, rtfm
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

        monkeypatch.setattr(module, "choose_p", choice)
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
        auto, "_train_baseline", lambda *a: lambda video: video.mean(axis=(0, 2))
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
    with pytest.raises(ValueError, match="needs a dataset to try"):
        batches.attach(iter([]), sampler, normal_first=True, p="auto")
    with pytest.raises(ValueError, match="needs a dataset to try"):
        Mixing(p="auto").limit([0.1])
    with pytest.raises(ValueError, match="p and ratio: expected one"):
        Mixing(p="auto", ratio=0.5)
    for bad in ({"p": "all"}, {"ratio": "auto"}):
        with pytest.raises(ValueError, match=r"expected a value in \[0, 1\]"):
            Mixing(**bad)


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
    for _ in range(2):
        run(module.train_dataloader())
    assert len(asked) == 1
    assert handle.choice.p == 1.0
    assert handle.stats() == {"seen": 34, "replaced": 34}
