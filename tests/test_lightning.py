"""The Lightning callback, in a real trainer."""

import gc
import multiprocessing
import pickle
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from hosts import FEATURE_DIM, RtfmDataset, rtfm_loaders
from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.adapters import lightning, mixed

pl = pytest.importorskip("lightning.pytorch")

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SMALL = {
    "hidden_dims": (16,),
    "latent_dim": 4,
    "epochs": 2,
    "baseline_epochs": 2,
    "threshold": 0.0,
    "progress": False,
}


class Data(pl.LightningDataModule):
    def train_dataloader(self):
        return rtfm_loaders()


class Host(pl.LightningModule):
    """Scores segments, and keeps the batches that it saw."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(FEATURE_DIM, 1)
        self.frozen = nn.Dropout(0.5).eval()
        self.batches, self.modes = [], []

    def forward(self, features):
        return torch.sigmoid(self.head(features)).squeeze(-1)

    def training_step(self, batch, batch_idx):
        (normal, _), (abnormal, _) = batch
        self.batches.append(torch.cat([normal, abnormal]).clone())
        return self(normal).mean() - self(abnormal).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class HostWithLoaders(Host):
    def train_dataloader(self):
        return rtfm_loaders()


def score(module, features):
    module.modes.append((module.training, torch.is_grad_enabled()))
    return module(features).mean(dim=0)


def run(callbacks=(), host=None, *, data=None, epochs=3, reload=0, ckpt_path=None):
    torch.manual_seed(0)
    host = host or Host()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        reload_dataloaders_every_n_epochs=reload,
    )
    if data is None and not isinstance(host, HostWithLoaders):
        data = Data()
    if isinstance(data, list):
        trainer.fit(host, train_dataloaders=data, ckpt_path=ckpt_path)
    else:
        trainer.fit(host, datamodule=data, ckpt_path=ckpt_path)
    return trainer, host


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def plain():
    return run()[1].batches


@pytest.mark.parametrize("source", ["data module", "module", "loaders"])
def test_pseudo_videos_are_in_the_batches_from_the_first_epoch(sampler, plain, source):
    own = lightning.callback(sampler, p=1)
    assert repr(own).startswith("PseudoVideos(p=1, sampler=PseudoVideoSampler(rec")
    given = rtfm_loaders()
    host = HostWithLoaders() if source == "module" else Host()
    trainer, host = run([own], host, data=given if source == "loaders" else None)
    assert len(host.batches) == 6
    assert not any(torch.equal(a, b) for a, b in zip(host.batches, plain, strict=True))
    assert own.stats() == {"seen": 48, "replaced": 48}
    assert trainer.callback_metrics["pseudo/replaced"] == 48
    # All is given back as it was.
    assert "train_dataloader" not in vars(host)
    assert all(type(one) is DataLoader for one in given)


def test_with_p_0_it_is_the_run_without_the_callback(sampler, plain):
    own = lightning.callback(sampler, p=0)
    assert same(run([own])[1].batches, plain)
    assert own.stats()["replaced"] == 0


def test_it_fits_on_the_training_datasets(plain):
    own = lightning.callback(fit=SMALL, p=0.5, seed=1)
    host = run([own])[1]
    assert own.sampler.feature_dim == FEATURE_DIM
    assert 0 < own.stats()["replaced"] < 48
    assert not same(host.batches, plain)
    again = lightning.callback(fit=SMALL, p=0.5, seed=1)
    assert same(run([again])[1].batches, host.batches)


def fitted():
    pair = RtfmDataset(8, 0.0), RtfmDataset(8, 1.0)
    return PseudoVideoSampler.fit(*pair, recipe="paper", **SMALL)


def test_it_refreshes_by_the_models_scores():
    sampler = fitted()
    before, length = sampler.fingerprint(), len(sampler.history)
    own = lightning.callback(
        sampler, p=1, refresh_every=2, refresh_epochs=1, scores=score, start_after=1
    )
    host = run([own], epochs=6)[1]
    assert len(own.refreshed) == 2  # not after the last epoch: nothing would come of it
    assert set(host.modes) == {(False, False)}
    assert host.training
    assert not host.frozen.training
    accepted = sum(found.accepted for found in own.refreshed)
    assert (sampler.fingerprint() != before) == bool(accepted)
    assert len(sampler.history) == length + accepted
    # The warm-up is waited for once, and counted over all rounds.
    assert own.stats() == {"seen": 96, "replaced": 80}


def test_what_is_refreshed_is_mixed_in(monkeypatch):
    def refresh(self, scores, **options):
        with torch.no_grad():
            for parameter in self.vae.parameters():
                parameter.fill_(1.0)
        return Taken()

    class Taken:
        accepted = True

    monkeypatch.setattr(PseudoVideoSampler, "refresh", refresh)
    own = lightning.callback(fitted(), p=1, refresh_every=1, scores=score)
    host = run([own], epochs=2)[1]
    first, second = (torch.cat(host.batches[i : i + 2]) for i in (0, 2))
    assert second.max() > 3 * first.max()  # what such weights make is large


def test_a_copy_of_an_attached_loader_is_attached_to_anew(sampler):
    own = lightning.callback(fitted(), p=1, refresh_every=1, scores=score)
    given = rtfm_loaders()
    own._mix(given)

    class Trainer:
        train_dataloader = tuple(copy_of(one) for one in given)

    own.sampler.refresh = lambda scores, **how: type("", (), {"accepted": True})
    own._refresh(Trainer, None, 1)
    assert all(type(one).__bases__[0] is DataLoader for one in Trainer.train_dataloader)
    assert all(len(batch[0]) == 4 for one in Trainer.train_dataloader for batch in one)
    assert own.stats() == {"seen": 16, "replaced": 16}


def copy_of(loader):
    """As Lightning's for several processes: the same class and collate function."""
    return type(loader)(
        loader.dataset, batch_size=loader.batch_size, collate_fn=loader.collate_fn
    )


class InOrder(pl.LightningDataModule):
    """Loaders that are not shuffled: what differs is what was replaced."""

    def train_dataloader(self):
        return [DataLoader(RtfmDataset(8, label), batch_size=4) for label in (0.0, 1.0)]


def attached(kind, sampler, **options):
    data = InOrder()
    if kind == "data module":
        options["order"] = ("normal", "abnormal")
        return [], data, lightning.attach(data, sampler, **options)
    own = lightning.callback(sampler, **options)
    return [own], InOrder().train_dataloader() if kind == "loaders" else data, own


every_kind = pytest.mark.parametrize("kind", ["data module", "callback", "loaders"])


@every_kind
@pytest.mark.parametrize("start_after", [0, 2])
def test_what_is_drawn_goes_on_where_loaders_are_made_anew(sampler, kind, start_after):
    def batches(**how):
        callbacks, data, _ = attached(kind, sampler, p=0.5, start_after=start_after)
        return run(callbacks, data=data, epochs=4, **how)[1].batches

    once = batches()
    assert not same(once[4:6], once[6:8])
    assert same(batches(reload=1), once)


@pytest.mark.parametrize("kind", ["data module", "callback"])
def test_a_shorter_loader_that_is_cycled_goes_on_too(sampler, kind, monkeypatch):
    def uneven(self):
        sizes = ((12, 0.0), (4, 1.0))
        return [DataLoader(RtfmDataset(n, label), batch_size=4) for n, label in sizes]

    monkeypatch.setattr(InOrder, "train_dataloader", uneven)

    def batches(**how):
        callbacks, data, _ = attached(kind, sampler, p=0.5)
        found = run(callbacks, data=data, epochs=3, **how)[1].batches
        return [batch[4:] for batch in found]  # the abnormal ones, three times an epoch

    once = batches()
    assert len(once) == 9
    assert len({tuple(one.flatten().tolist()) for one in once}) > 6
    assert same(batches(reload=1), once)


@every_kind
@pytest.mark.parametrize("start_after", [0, 1, 3])
def test_what_is_drawn_goes_on_in_a_resumed_run(sampler, kind, start_after, tmp_path):
    def fit(epochs, **how):
        callbacks, data, _ = attached(kind, sampler, p=0.5, start_after=start_after)
        return run(callbacks, data=data, epochs=epochs, **how)

    whole = fit(4)[1].batches
    fit(2)[0].save_checkpoint(tmp_path / "two.ckpt")
    later = fit(4, ckpt_path=tmp_path / "two.ckpt")[1].batches
    assert same(later, whole[4:])


class Given:
    """As a data module without Lightning: what its loaders are is told from outside."""

    def __init__(self, make):
        self.train_dataloader = make


def normal_and_abnormal(*, pick=None, **options):
    datasets = [RtfmDataset(8, label) for label in (0.0, 1.0)]
    if pick is not None:
        datasets = [Subset(dataset, pick) for dataset in datasets]
    return [DataLoader(dataset, batch_size=4, **options) for dataset in datasets]


def module_of(make, sampler, **options):
    module = Given(make)
    options = {"order": ("normal", "abnormal"), "p": 1, **options}
    return module, lightning.attach(module, sampler, **options)


def batches_of(loaders):
    return [batch[0].clone() for loader in loaders for batch in loader]


both_kinds = pytest.mark.parametrize("kind", ["data module", "callback"])


@both_kinds
def test_workers_go_with_the_loaders_that_are_dropped(sampler, kind, monkeypatch):
    class Counting(Host):
        def on_train_epoch_end(self):
            gc.collect()
            self.modes.append(len(multiprocessing.active_children()))

    monkeypatch.setattr(
        InOrder,
        "train_dataloader",
        lambda self: normal_and_abnormal(num_workers=1, persistent_workers=True),
    )
    callbacks, data, own = attached(kind, sampler, p=1)
    host = run(callbacks, Counting(), data=data, epochs=3, reload=1)[1]
    assert host.modes == [2, 2, 2]
    assert own.stats()["seen"] == own.stats()["replaced"] >= 48


@both_kinds
@pytest.mark.parametrize("reload", [0, 1])
def test_loaders_that_are_given_again_stay_attached(sampler, kind, reload, monkeypatch):
    def batches(make, reload):
        monkeypatch.setattr(InOrder, "train_dataloader", make)
        callbacks, data, own = attached(kind, sampler, p=0.5)
        hosts = [
            run(callbacks, data=data, epochs=2, reload=reload)[1] for _ in range(2)
        ]
        assert own.stats()["seen"] == 64
        return hosts[0].batches + hosts[1].batches

    expected = batches(lambda self: normal_and_abnormal(), 0)
    kept = normal_and_abnormal()
    assert same(batches(lambda self: kept, reload), expected)


def test_a_loader_that_is_given_again_beside_a_new_one(sampler):
    def batches(make):
        module, handle = module_of(make, sampler, p=0.5)
        found = []
        for _ in range(3):
            found += batches_of(module.train_dataloader())
        return found, handle

    options = {"num_workers": 1, "persistent_workers": True}
    kept = normal_and_abnormal(**options)[0]
    found, handle = batches(lambda: [kept, normal_and_abnormal(**options)[1]])
    assert same(found, batches(normal_and_abnormal)[0])
    assert handle.stats()["seen"] == 48
    handle.detach()
    assert type(kept) is DataLoader


def test_a_loader_that_somebody_looked_at_changes_nothing(sampler):
    module, handle = module_of(normal_and_abnormal, sampler)
    used = module.train_dataloader()
    module.train_dataloader()  # say, for its length
    assert not same(batches_of(used), batches_of(normal_and_abnormal()))
    assert handle.stats() == {"seen": 16, "replaced": 16}


def test_other_videos_get_a_pool_of_their_own(sampler, tmp_path):
    # The first video is the same, and so is their number.
    picks = [[0, 1, 2, 3], [0, 5, 6, 7], [0, 5, 6, 7], [0, 1]]

    def run_all(**options):
        left = iter(picks)
        module, handle = module_of(
            lambda: normal_and_abnormal(pick=next(left)), sampler, seed=1, **options
        )
        rounds = []
        for _ in picks:
            loaders = module.train_dataloader()
            rounds.append((batches_of(loaders), handle.place()))
        return rounds

    entry = 2 * 6 * FEATURE_DIM * 4
    rounds = run_all(pool_bytes=4 * entry)
    places = [place for _, place in rounds]
    assert len(set(places)) == 3
    assert places[1] == places[2]
    assert [place.exists() for place in places] == [False, False, False, True]
    # What is read from a pool is what would be made without it.
    for (found, _), (made, _) in zip(rounds, run_all(pool_bytes=0), strict=True):
        assert same(found, made)
    with pytest.raises(ValueError, match="take another folder"):
        run_all(pool=tmp_path / "named")


def test_loaders_of_other_videos_that_are_still_in_use_find_a_pool(sampler, caplog):
    left = iter([[0, 1, 2, 3], [4, 5, 6, 7]])
    module, _ = module_of(lambda: normal_and_abnormal(pick=next(left)), sampler)
    used = module.train_dataloader()
    module.train_dataloader()
    assert len(batches_of(used)) == 2
    assert not caplog.records


@every_kind
@pytest.mark.parametrize("start_after", [3, 5])
def test_warm_up_in_steps_goes_on(sampler, kind, start_after, tmp_path):
    def fit(epochs, **how):
        options = {"p": 0.5, "start_after": start_after, "start_unit": "steps"}
        callbacks, data, own = attached(kind, sampler, **options)
        return *run(callbacks, data=data, epochs=epochs, **how), own

    _, host, own = fit(4)
    whole = host.batches
    assert own.stats()["replaced"] > 0
    assert same(fit(4, reload=1)[1].batches, whole)
    fit(2)[0].save_checkpoint(tmp_path / "two.ckpt")
    assert same(fit(4, ckpt_path=tmp_path / "two.ckpt")[1].batches, whole[4:])


def test_a_state_of_before_steps_were_counted_loads(sampler):
    own = lightning.callback(sampler)
    own.load_state_dict({"epochs_done": 3})
    assert own.state_dict() == {"epochs_done": 3, "steps_done": 0}


def test_the_switch_is_that_of_the_options_and_stays_over_reloads(sampler):
    module, handle = module_of(normal_and_abnormal, sampler, enabled=False)
    real = batches_of(normal_and_abnormal())
    assert not handle.enabled
    assert "enabled=False" in repr(handle)
    assert same(batches_of(module.train_dataloader()), real)
    handle.enabled = True
    first = module.train_dataloader()
    assert not any(map(torch.equal, batches_of(first), real))
    assert handle.enabled
    handle.enabled = False
    assert same(batches_of(first), real)
    assert same(batches_of(module.train_dataloader()), real)
    assert handle.stats() == {"seen": 64, "replaced": 16}


def test_loaders_by_name_and_those_that_cannot_be(sampler):
    normal, abnormal = normal_and_abnormal()
    module, handle = module_of(
        lambda: {"abnormal": abnormal, "normal": normal},
        sampler,
        order=("abnormal", "normal"),
    )
    assert list(module.train_dataloader()) == ["abnormal", "normal"]
    batches_of([normal, abnormal])
    assert handle.stats() == {"seen": 16, "replaced": 16}
    handle.detach()
    for made, message in [
        ({"a": normal, "b": abnormal}, r"a dictionary with the names \['a', 'b'\]"),
        ([normal, abnormal, normal], "expected two, .* got 3"),
        (iter([normal, abnormal]), "expected two, .* got list_iterator"),
        (normal, r"train_dataloader\(\) returned one loader"),
    ]:
        module, _ = module_of(lambda made=made: made, sampler)
        with pytest.raises(ValueError, match=message):
            module.train_dataloader()


def test_loaders_come_back_after_an_error(sampler):
    class Broken(Host):
        def training_step(self, batch, batch_idx):
            raise KeyError("broken")

    data = Data()
    with pytest.raises(KeyError, match="broken"):
        run([lightning.callback(sampler, p=1)], Broken(), data=data)
    assert "train_dataloader" not in vars(data)


def test_one_loader_of_both_classes(sampler):
    items = [
        (torch.from_numpy(v), torch.tensor(label))
        for label in (0.0, 1.0)
        for v in RtfmDataset(6, label).features
    ]

    class Mixed(Host):
        def training_step(self, batch, batch_idx):
            return self(batch[0][0]).mean()

    loader = DataLoader(items, batch_size=4)
    own = lightning.callback(sampler, attach=mixed.attach, p=1)
    run([own], Mixed(), data=[loader], epochs=1)
    assert own.stats()["replaced"] == 12


def test_the_base_is_the_lightning_in_use(sampler, monkeypatch):
    assert isinstance(lightning.callback(sampler), pl.Callback)
    other = pytest.importorskip("pytorch_lightning")
    monkeypatch.delitem(sys.modules, "lightning.pytorch")
    assert isinstance(lightning.callback(sampler), other.Callback)


def test_it_pickles(sampler):
    own = lightning.callback(sampler, order=("abnormal", "normal"), p=0.25)
    copy = pickle.loads(pickle.dumps(own))
    assert isinstance(copy, pl.Callback)
    assert copy.sampler.fingerprint() == sampler.fingerprint()
    assert (copy._order, copy._options) == (("abnormal", "normal"), {"p": 0.25})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": ("normal", "normal")}, "order: expected"),
        ({"refresh_every": 1}, "refresh_every: expected"),
        ({"fit": {"epochs": 1}}, "expected one of them"),
        ({"p": 2}, "p: expected a value"),
        (
            {
                "refresh_every": 1,
                "scores": score,
                "start_after": 3,
                "start_unit": "steps",
            },
            "expected 'epochs'",
        ),
    ],
)
def test_bad_options_are_refused(sampler, options, message):
    with pytest.raises(ValueError, match=message):
        lightning.callback(sampler, **options)


def test_loaders_that_do_not_fit_are_refused(sampler):
    single = DataLoader(RtfmDataset(4, 0.0), batch_size=2)
    own = lightning.callback(sampler)
    with pytest.raises(ValueError, match=r"attach=mixed\.attach"):
        own._mix(single)
    with pytest.raises(ValueError, match="the names 'normal' and 'abnormal'"):
        own._mix({"a": single, "b": single})
    with pytest.raises(ValueError, match="expected a fitted one"):
        lightning.callback(attach=mixed.attach)._mix(single)
    kept = [
        DataLoader(
            RtfmDataset(4, label), batch_size=2, num_workers=1, persistent_workers=True
        )
        for label in (0.0, 1.0)
    ]
    own = lightning.callback(sampler, refresh_every=1, scores=score)
    with pytest.raises(ValueError, match="persistent_workers=False"):
        own._mix(kept)
