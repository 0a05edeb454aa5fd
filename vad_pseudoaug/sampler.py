"""Pseudo videos: from real videos, in their temporal order (section 3.2.3)."""

from __future__ import annotations

import copy
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .checkpoint import (
    TRAINING_STATE,
    CheckpointError,
    read_checkpoint,
    write_checkpoint,
)
from .extras import as_device
from .features import Layout, to_segments
from .fitting import fit_vae
from .generation import (
    PseudoVideo,
    count_pseudo_videos,
    draw_mask,
    order_sources,
    translate_rows,
)
from .randomness import make_generator
from .recipe import Recipe
from .training import History
from .vae import ABNORMAL, NORMAL, MultiTaskVAE
from .videos import VideoSet, VideoSource, as_pair


class PseudoVideoSampler:
    """Makes pseudo normal and pseudo abnormal videos of real ones.

    Args:
        vae: A trained model.
        recipe: Share and number of pseudo videos, and how the model was made.
        normal: Normal videos that `draw` makes pseudo abnormal ones of.
        abnormal: Abnormal videos that `draw` makes pseudo normal ones of.
        non_negative: Clamp generated features at 0, as those of I3D are.
        unit_norm: Scale generated snippets to L2 norm 1, as some hosts' are.
        seed: Seed of the sampler's own generator, for calls that give none.

    Attributes:
        history: One entry an epoch of the model's training, see `train_vae`.
        selection: What the abnormal decoder was trained on, see `Selection.to_dict`.
    """

    def __init__(
        self,
        vae: MultiTaskVAE,
        *,
        recipe: Recipe | None = None,
        normal: VideoSource | None = None,
        abnormal: VideoSource | None = None,
        non_negative: bool = False,
        unit_norm: bool = False,
        seed: int = 0,
    ):
        self.vae = vae.eval()
        self.recipe = recipe or Recipe.named("paper")
        self.non_negative = non_negative
        self.unit_norm = unit_norm
        self.seed = seed
        self.generator = make_generator(seed)
        self.history: History = []
        self.selection: dict[str, Any] = {}
        self.normal = self._own("normal", normal)
        self.abnormal = self._own("abnormal", abnormal)

    def _own(self, name: str, source: VideoSource | None) -> VideoSet | None:
        if source is None:
            return None
        videos = VideoSet(source, name=name)
        if videos.feature_dim != self.feature_dim:
            raise ValueError(
                f"{name}: the sampler was fitted on feature size {self.feature_dim}, "
                f"the videos have {videos.feature_dim}"
            )
        return videos

    def __repr__(self) -> str:
        counts = [
            f"{name}={'none' if videos is None else len(videos)}"
            for name, videos in (("normal", self.normal), ("abnormal", self.abnormal))
        ]
        return (
            f"{type(self).__name__}(recipe={self.recipe.name!r}, "
            f"feature_dim={self.feature_dim}, {', '.join(counts)})"
        )

    @property
    def feature_dim(self) -> int:
        """Feature size D."""
        return self.vae.config.feature_dim

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.vae.mean_head.weight.device

    def fingerprint(self) -> str:
        """Return a short text that differs from one model or recipe to another."""
        digest = hashlib.sha256(repr(self.recipe).encode())
        for tensor in self.vae.state_dict().values():
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def worker_copy(self) -> PseudoVideoSampler:
        """Return a copy on the CPU without sources: what worker processes can hold."""
        vae = self.vae if self.device.type == "cpu" else copy.deepcopy(self.vae).cpu()
        return PseudoVideoSampler(
            vae,
            recipe=self.recipe,
            non_negative=self.non_negative,
            unit_norm=self.unit_norm,
            seed=self.seed,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "generator": None}  # not every torch pickles one

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, generator=make_generator(state["seed"]))

    @torch.no_grad()
    def sample(
        self,
        features: Tensor | NDArray[Any],
        *,
        label: int,
        generator: torch.Generator | None = None,
        lengths: Tensor | None = None,
    ) -> PseudoVideo:
        """Make one pseudo video of each video given.

        A pseudo abnormal video (`label=1`) keeps a part of its normal source and has
        the share of the recipe, T/2 randomly chosen snippets and at least one, sent
        through the encoder and the abnormal decoder. Of a pseudo normal video
        (`label=0`), every snippet of its abnormal source went through the encoder and
        the normal decoder. Order and length are the source's. The crops of a snippet
        share its mask and its latent noise.

        Args:
            features: One source `(T, D)` or `(N, T, D)`, or a batch `(B, N, T, D)`,
                of the class opposite to `label`. It is not changed.
            label: The class to make, 0 normal or 1 abnormal.
            generator: Where mask and noise come from, video after video, so that one
                seed gives the same videos however they are split over batches. None
                takes the sampler's own.
            lengths: `(B,)`, true lengths of zero-padded videos; the padding stays.

        Returns:
            The pseudo videos, features in the shape, dtype and on the device given.

        Raises:
            TypeError: If the features are no array and no tensor.
            ValueError: If label, shape or feature size is not as said, or a value is
                not finite.
        """
        if label not in (NORMAL, ABNORMAL):
            raise ValueError(f"label: expected 0 or 1, got {label!r}")
        if isinstance(features, np.ndarray):
            features = torch.from_numpy(features)
        if not isinstance(features, Tensor):
            raise TypeError(
                f"features: expected an array or tensor, got {type(features).__name__}"
            )
        given = features
        batch = given.reshape((1,) * (4 - given.ndim) + given.shape)  # (B, N, T, D)
        if given.ndim not in (2, 3, 4) or 0 in given.shape:
            raise ValueError(
                f"features: expected (T, D), (N, T, D) or (B, N, T, D), got shape "
                f"{tuple(given.shape)}"
            )
        if given.shape[-1] != self.feature_dim:
            raise ValueError(
                f"features: the sampler was fitted on feature size {self.feature_dim}, "
                f"got shape {tuple(given.shape)}"
            )
        if not batch.isfinite().all():
            raise ValueError("features: expected finite values, got NaN or infinity")
        num_videos, num_crops, num_snippets, _ = batch.shape
        if lengths is None:
            lengths = torch.full(
                (num_videos,), num_snippets, dtype=torch.int64, device="cpu"
            )
        if lengths.shape != (num_videos,) or not (
            int(lengths.min()) >= 1 and int(lengths.max()) <= num_snippets
        ):
            raise ValueError(
                f"lengths: expected {num_videos} values from 1 to {num_snippets}, got "
                f"{lengths.tolist()}"
            )
        generator = generator or self.generator
        mask = torch.zeros(
            (num_videos, num_snippets), dtype=torch.bool, device=batch.device
        )
        noise, strength = [], []
        for video, length in enumerate(lengths.tolist()):
            where = draw_mask(
                length,
                label,
                self.recipe.share,
                generator=generator,
                placement=self.recipe.placement,
            )
            mask[video, where.to(mask.device)] = True
            noise.append(
                torch.randn(
                    (len(where), self.vae.config.latent_dim),
                    generator=generator,
                    device=generator.device,
                    dtype=torch.float32,
                )
            )
            if self.recipe.translation == "residual":
                strength.append(self._strength(generator).expand(len(where)))
        by_snippet = batch.transpose(1, 2).clone()  # (B, T, N, D)
        chosen = by_snippet[mask]  # (M, N, D)
        shared = torch.cat(noise)[:, None].expand(-1, num_crops, -1)  # (M, N, latent)
        translated = translate_rows(
            self.vae,
            chosen.flatten(0, 1),
            shared.flatten(0, 1),
            label,
            strength=(
                torch.cat(strength).repeat_interleave(num_crops) if strength else None
            ),
        )
        if self.non_negative:
            translated = translated.clamp_(min=0)
        if self.unit_norm:
            translated = functional.normalize(translated, dim=1)
        by_snippet[mask] = translated.view_as(chosen).to(batch)
        pseudo = by_snippet.transpose(1, 2).contiguous()  # (B, N, T, D)
        source = torch.arange(num_videos, dtype=torch.int64, device="cpu")
        lengths = lengths.to(device="cpu", dtype=torch.int64)
        if given.ndim < 4:
            mask, source, lengths = mask[0], source[0], lengths[0]
        return PseudoVideo(pseudo.view(given.shape), label, mask, source, lengths)

    def _strength(self, generator: torch.Generator) -> Tensor:
        """Draw the weight of the difference of the decoders, for one video."""
        draw = torch.rand(
            (), generator=generator, device=generator.device, dtype=torch.float32
        )
        low, high = self.recipe.min_strength, self.recipe.max_strength
        return low + (high - low) * draw

    def sources(self, label: int) -> VideoSet:
        """Return the real videos that pseudo videos of class `label` are made of.

        Raises:
            ValueError: If the sampler has none.
        """
        videos = self.normal if label == ABNORMAL else self.abnormal
        if videos is None:
            which = "normal" if label == ABNORMAL else "abnormal"
            raise ValueError(
                f"the sampler has no {which} videos to make pseudo videos of class "
                f"{label} of: give {which}= to from_pretrained, or use sample"
            )
        return videos

    def draw(
        self,
        num_videos: int | None = None,
        *,
        label: int,
        num_segments: int | None = None,
        generator: torch.Generator | None = None,
    ) -> PseudoVideo:
        """Make pseudo videos of the sampler's own sources.

        Args:
            num_videos: How many; each source serves equally often, a last incomplete
                round is drawn at random. None takes the recipe's `per_video`, two per
                source in the paper.
            label: The class to make, 0 normal or 1 abnormal.
            num_segments: Pool the sources to so many segments first (mean of bins).
                None keeps their snippets; shorter ones are then padded with zeros.
            generator: See `sample`.

        Returns:
            A batch; `unbind()` gives single videos of their true lengths.

        Raises:
            ValueError: If the sampler has no sources of the other class.
        """
        sources = self.sources(label)
        generator = generator or self.generator
        if num_videos is None:
            num_videos = count_pseudo_videos(len(sources), self.recipe.per_video)
        if num_videos < 1:
            raise ValueError(f"num_videos: expected at least 1, got {num_videos}")
        order = order_sources(len(sources), num_videos, generator=generator)
        videos = [
            sources[i]
            if num_segments is None
            else to_segments(sources[i], num_segments)
            for i in order
        ]
        lengths = torch.tensor(
            [video.shape[1] for video in videos], dtype=torch.int64, device="cpu"
        )
        num_crops, _, feature_dim = videos[0].shape
        batch = torch.zeros(
            (num_videos, num_crops, int(lengths.max()), feature_dim),
            dtype=torch.float32,
            device="cpu",
        )
        for padded, video in zip(batch, videos, strict=True):
            padded[:, : video.shape[1]] = torch.from_numpy(np.array(video, order="C"))
        pseudo = self.sample(batch, label=label, generator=generator, lengths=lengths)
        return pseudo._replace(
            source=torch.tensor(order, dtype=torch.int64, device="cpu")
        )

    @classmethod
    def fit(
        cls,
        normal: VideoSource,
        abnormal: VideoSource,
        *,
        recipe: str | Recipe = "paper",
        seed: int = 0,
        device: torch.device | str = "cpu",
        layout: Layout | None = None,
        key: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
        **choices: Any,
    ) -> PseudoVideoSampler:
        """Learn from training videos: baseline, selection of snippets, VAE.

        Args:
            normal: Normal training videos: a list file, files, arrays or a host's
                dataset, see `VideoSet`.
            abnormal: Abnormal training videos.
            recipe: A set of choices by name, or a `Recipe`.
            seed: Seed of everything that is random.
            device: Where to train and to sample.
            layout: Order of the axes of the features, see `VideoSet`.
            key: Name of the features in files that hold several arrays.
            folder: Where to keep the state of training, to go on after an
                interruption, and the finished checkpoint. None keeps nothing.
            progress: Show bars; None decides by the terminal.
            **choices: Single choices of the recipe to change, as `epochs=20`.

        Returns:
            A sampler that has the videos given as its sources.

        Raises:
            ValueError: If videos, recipe or choices are not usable, or the baseline
                finds no abnormal snippet.
        """
        chosen, device = Recipe.named(recipe, **choices), as_device(device)
        normal, abnormal = as_pair(normal, abnormal, layout=layout, key=key)
        state_path = None if folder is None else Path(folder) / TRAINING_STATE
        fitted = fit_vae(
            normal,
            abnormal,
            chosen,
            seed=seed,
            device=device,
            state_path=state_path,
            progress=progress,
        )
        sampler = cls(
            fitted.vae,
            recipe=chosen,
            normal=normal,
            abnormal=abnormal,
            non_negative=fitted.non_negative,
            unit_norm=fitted.unit_norm,
            seed=seed,
        )
        sampler.history = fitted.history
        sampler.selection = fitted.selection.to_dict()
        if folder is not None and state_path is not None:
            sampler.save_pretrained(folder)
            state_path.unlink(missing_ok=True)
        return sampler

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a checkpoint to a folder, replacing an old one in one step.

        The paths of the sources go with it where they are files; their features do
        not.
        """
        sources: dict[str, Any] = {}
        for name, videos in (("normal", self.normal), ("abnormal", self.abnormal)):
            paths = videos.paths if videos is not None else None
            sources[name] = paths and {
                "files": [str(path.resolve()) for path in paths],
                "layout": videos.layout if videos is not None else None,
                "key": videos.key if videos is not None else None,
            }
        config = {
            "vae": self.vae.config.to_dict(),
            "recipe": self.recipe.to_dict(),
            "non_negative": self.non_negative,
            "unit_norm": self.unit_norm,
            "seed": self.seed,
            "selection": self.selection,
            "history": self.history,
            "sources": sources,
        }
        write_checkpoint(folder, type(self).__name__, config, self.vae.state_dict())

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        normal: VideoSource | None = None,
        abnormal: VideoSource | None = None,
        device: torch.device | str = "cpu",
    ) -> PseudoVideoSampler:
        """Read a sampler that `save_pretrained` or `fit(folder=...)` wrote.

        Args:
            folder: The checkpoint.
            normal: Normal videos for `draw`; None takes the files it was fitted on,
                if all of them are still there.
            abnormal: Abnormal videos for `draw`, likewise.
            device: Where to sample.

        Raises:
            FileNotFoundError: If there is no checkpoint.
            CheckpointError: If it is broken, of another kind or of a newer version.
        """
        config, tensors = read_checkpoint(folder, cls.__name__, _ENTRIES)
        vae = MultiTaskVAE.from_tensors(
            config["vae"], tensors, device=as_device(device)
        )
        try:
            sampler = cls(
                vae,
                recipe=Recipe(**config["recipe"]),
                normal=_find(config["sources"]["normal"], normal),
                abnormal=_find(config["sources"]["abnormal"], abnormal),
                non_negative=bool(config["non_negative"]),
                unit_norm=bool(config["unit_norm"]),
                seed=int(config["seed"]),
            )
        except (TypeError, KeyError) as error:
            raise CheckpointError(f"{folder}: an entry is broken: {error}") from error
        sampler.history, sampler.selection = config["history"], config["selection"]
        return sampler


_ENTRIES = (
    "vae",
    "recipe",
    "non_negative",
    "unit_norm",
    "seed",
    "selection",
    "history",
    "sources",
)


def _find(saved: Any, given: VideoSource | None) -> VideoSource | None:
    """Take the videos given, else those that were saved if they are still there."""
    if given is not None or saved is None:
        return given
    files = [Path(file) for file in saved["files"]]
    if not all(file.is_file() for file in files):
        return None
    return VideoSet(files, layout=saved["layout"], key=saved["key"])
