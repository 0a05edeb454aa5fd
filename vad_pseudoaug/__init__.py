"""Pseudo normal and abnormal videos for weakly supervised video anomaly detection."""

from importlib import metadata

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
