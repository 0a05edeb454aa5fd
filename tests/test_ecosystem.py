"""The page on other tools: its blocks run."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hosts import FEATURE_DIM, RtfmDataset, rtfm_loaders
from vad_pseudoaug import PseudoVideoSampler

PAGE = Path(__file__).parent.parent / "docs" / "ecosystem.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
SMALL = {
    "hidden_dims": (16,),
    "latent_dim": 4,
    "epochs": 1,
    "baseline_epochs": 1,
    "threshold": 0.0,
    "normal_quantile": 0.5,
    "progress": False,
}


def lightning_names():
    pl = pytest.importorskip("lightning.pytorch")

    class Model(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(FEATURE_DIM, 1)

        def forward(self, features):
            return torch.sigmoid(self.head(features)).squeeze(-1)

        def training_step(self, batch, batch_idx):
            (normal, _), (abnormal, _) = batch
            return self(normal).mean() - self(abnormal).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return rtfm_loaders(6, 2)

    return {"model": Model(), "datamodule": Data()}


@pytest.mark.filterwarnings("ignore::UserWarning:lightning")
@pytest.mark.filterwarnings("ignore::FutureWarning:lightning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("block", BLOCKS)
def test_the_blocks_run(block, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    fit = PseudoVideoSampler.fit
    monkeypatch.setattr(
        PseudoVideoSampler,
        "fit",
        lambda *sets, **given: fit(*sets, **{**given, **SMALL}),
    )
    normal, abnormal = RtfmDataset(6, 0.0), RtfmDataset(6, 1.0)
    rng = np.random.default_rng(0)
    names = {
        "train_nset": normal,
        "train_aset": abnormal,
        "sampler": PseudoVideoSampler.fit(normal, abnormal),
        "X": [rng.random((6, FEATURE_DIM), dtype=np.float32) for _ in range(9)],
        "y": [0] * 6 + [1] * 3,
    }
    names["train_nloader"], names["train_aloader"] = rtfm_loaders(6, 2)
    if "Trainer" in block:
        names |= lightning_names()
    if "hub" in block:
        request.getfixturevalue("hub")
    if "tensorboard" in block:
        pytest.importorskip("tensorboard")
    exec(compile(block, "ecosystem.md", "exec"), names)


def test_the_page_names_every_extra():
    for extra in ("lightning", "tensorboard", "hub", "video"):
        assert f"| `{extra}` |" in TEXT or f"`{extra}` |" in TEXT
