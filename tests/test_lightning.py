"""The Lightning callback, in a real trainer."""

import pickle
import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

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
