"""Pseudo normal and abnormal videos for weakly supervised video anomaly detection."""

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .baseline import Baseline
    from .checkpoint import CheckpointError
    from .features import read_features, read_list, to_segments
    from .generation import PseudoVideo
    from .recipe import Recipe
    from .sampler import PseudoVideoSampler
    from .vae import MultiTaskVAE, VAEConfig
    from .videos import VideoSet

__version__ = metadata.version("vad-pseudoaug")
__all__ = [
    "Baseline",
    "CheckpointError",
    "MultiTaskVAE",
    "PseudoVideo",
    "PseudoVideoSampler",
    "Recipe",
    "VAEConfig",
    "VideoSet",
    "read_features",
    "read_list",
    "to_segments",
]
_MODULES = {
    "Baseline": "baseline",
    "CheckpointError": "checkpoint",
    "MultiTaskVAE": "vae",
    "PseudoVideo": "generation",
    "PseudoVideoSampler": "sampler",
    "Recipe": "recipe",
    "VAEConfig": "vae",
    "VideoSet": "videos",
    "read_features": "features",
    "read_list": "features",
    "to_segments": "features",
}


def __getattr__(name: str) -> Any:
    # Loaded when used: the command line answers before torch is imported.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
