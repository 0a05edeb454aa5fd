"""Small models, videos and hosts, shared by the tests."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

from hosts import FEATURE_DIM, RtfmDataset
from vad_pseudoaug import MultiTaskVAE, PseudoVideoSampler, VAEConfig, gates
from vad_pseudoaug.check import Check, check_sampler, refit_on_part

# Tiny products: threads would only wait for each other.
torch.set_num_threads(1)
# No bound on an example's time: on a busy machine any of them may take long once.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def vae() -> MultiTaskVAE:
    return MultiTaskVAE(VAEConfig(FEATURE_DIM, hidden_dims=(16,), latent_dim=4), seed=1)


@pytest.fixture
def sampler(vae: MultiTaskVAE) -> PseudoVideoSampler:
    return PseudoVideoSampler(vae)


@pytest.fixture
def host_dataset() -> Callable[..., RtfmDataset]:
    return RtfmDataset


@pytest.fixture
def videos() -> tuple[list[Any], list[Any]]:
    """Normal and abnormal videos `(N, T, D)` of several lengths, easy to tell apart."""
    rng = np.random.default_rng(0)

    def make(count: int, shift: float) -> list[Any]:
        return [
            rng.random((2, int(rng.integers(3, 9)), FEATURE_DIM), dtype=np.float32)
            + shift
            for _ in range(count)
        ]

    return make(8, 0.0), make(6, 0.5)


SMALL = {
    "hidden_dims": (16,),
    "latent_dim": 4,
    "epochs": 3,
    "baseline_epochs": 40,
    "baseline_hidden_dims": (16,),
}


@pytest.fixture
def small() -> dict[str, Any]:
    """Choices of a small fit by the paper's recipe."""
    return {"recipe": "paper", **SMALL}


@pytest.fixture(scope="session")
def many_videos() -> tuple[list[Any], list[Any]]:
    """Normal videos, and abnormal ones of which the second half is abnormal."""
    rng = np.random.default_rng(0)

    def make(shift: float) -> list[Any]:
        found = []
        for _ in range(10):
            video = rng.random((2, int(rng.integers(8, 13)), FEATURE_DIM)) + 1
            video[:, video.shape[1] // 2 :] += shift
            found.append(video.astype(np.float32))
        return found

    return make(0.0), make(0.8)


@pytest.fixture(scope="session")
def few_draws() -> Iterator[None]:
    """Quality gates by fewer draws than a user gets."""
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("REPEATS", 4), ("CLASSIFIER_REPEATS", 1), ("TREES", 20)):
            patch.setattr(gates, name, count)
        yield


@pytest.fixture(scope="session")
def checked(few_draws: None, many_videos: tuple[list[Any], list[Any]]) -> Check:
    """The check of a small sampler on the half of the videos that it never saw."""
    choices: dict[str, Any] = {"recipe": "paper", **SMALL, "baseline_lr": 0.01}
    sampler = PseudoVideoSampler.fit(*many_videos, **choices)
    return check_sampler(*refit_on_part(sampler))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The functions of huggingface_hub that are called, on folders."""
    root, calls = tmp_path / "hub", []

    class HfApi:
        def create_repo(self, repo_id, **options):
            calls.append(("create_repo", {"repo_id": repo_id, **options}))
            (root / repo_id).mkdir(parents=True, exist_ok=True)

        def upload_folder(self, **options):
            calls.append(("upload_folder", options))
            repo = root / options["repo_id"]
            for old in list(repo.iterdir()):
                if any(fnmatch(old.name, p) for p in options["delete_patterns"]):
                    old.unlink()
            shutil.copytree(options["folder_path"], repo, dirs_exist_ok=True)
            return SimpleNamespace(commit_url=f"hub/{options['repo_id']}/commit/1")

    def snapshot_download(repo_id, **options):
        calls.append(("snapshot_download", {"repo_id": repo_id, **options}))
        patterns, folder = options["allow_patterns"], tmp_path / "cache"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in (root / repo_id).iterdir():
            if any(fnmatch(file.name, pattern) for pattern in patterns):
                shutil.copy(file, folder)
        return str(folder)

    module = ModuleType("huggingface_hub")
    module.HfApi, module.snapshot_download = HfApi, snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return SimpleNamespace(root=root, calls=calls)
