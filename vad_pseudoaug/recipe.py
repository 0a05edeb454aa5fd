"""The choices from selection to mixing, by name.

One list of names, defaults and help texts: `PseudoVideoSampler.fit` takes them as
keywords, the command line as flags, and they are saved beside the weights.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .options import nearest


def _choice(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


def _making(default: Any, text: str) -> Any:
    """A choice of how pseudo videos are made, by a model that does not depend on it."""
    return field(default=default, metadata={"help": text, "making": True})


@dataclass(frozen=True)
class Recipe:
    """All choices of a run. The defaults are the paper's, `Recipe.named("paper")`.

    Where the paper is silent, the choice is marked "(ours)".
    """

    name: str = _choice("paper", "name of the set of choices")
    num_segments: int = _choice(
        32, "segments that each video is interpolated to for the baseline, S"
    )
    baseline_hidden_dims: tuple[int, ...] = _choice(
        (512, 128), "widths of the baseline's hidden layers (ours)"
    )
    baseline_epochs: int = _choice(100, "epochs of the baseline")
    baseline_lr: float = _choice(1e-3, "learning rate of the baseline (Adam)")
    baseline_batch_size: int = _choice(32, "videos in a batch of the baseline")
    baseline_pooling: Literal["mean", "top"] = _choice(
        "mean", "a video's score: the mean of its segments, or of the highest ones"
    )
    baseline_top: int = _choice(3, "how many segments are the highest ones")
    baseline_dropout: float = _choice(0.0, "dropout of the baseline's hidden layers")
    baseline_crops: Literal["all", "mean"] = _choice(
        "all", "what the baseline sees: every crop, or their mean: ten crops, a tenth"
    )
    selection: Literal["threshold", "ranked"] = _choice(
        "threshold",
        "which snippets of abnormal videos are abnormal: those above a threshold, or "
        "the highest of each video by a cross-fitted baseline",
    )
    threshold: float = _choice(
        0.5, "baseline score above which a snippet of an abnormal video is abnormal"
    )
    folds: int = _choice(5, "parts that a cross-fitted baseline leaves out in turn")
    top_share: float = _choice(0.2, "share of a video's snippets that are ranked high")
    normal_quantile: float = _choice(
        0.95, "share of normal snippets that a ranked snippet must exceed"
    )
    min_run: int = _choice(1, "fewest ranked snippets in a row, in videos that have it")
    weighting: Literal["equal", "score"] = _choice(
        "equal", "how often the VAE sees a selected snippet: all alike, or by its score"
    )
    hidden_dims: tuple[int, ...] = _choice(
        (1024, 512), "widths of the encoder's hidden layers; decoders mirror them"
    )
    latent_dim: int = _choice(256, "size of the latent space")
    shared_trunk: bool = _choice(False, "decoders share all layers but the last")
    standardise: bool = _choice(False, "centre and scale features for the VAE")
    alpha: float = _choice(0.01, "weight of the KL divergence, eq. 6 (ours)")
    reduction: Literal["sum", "mean"] = _choice(
        "sum", "squared error summed ('sum') or averaged ('mean') over features (ours)"
    )
    variance: Literal["fixed", "fitted"] = _choice(
        "fixed", "variance of the decoders: that of alpha, or learned from their errors"
    )
    free_bits: float = _choice(0.0, "nats that a latent unit carries at no cost")
    kl_warmup: float = _choice(0.0, "share of the epochs in which alpha rises from 0")
    batching: Literal["video", "mixed"] = _choice(
        "video", "a VAE batch: one video, or as many snippets of each class"
    )
    batch_size: int = _choice(256, "snippets in a mixed batch")
    steps_per_epoch: int = _choice(100, "mixed batches in an epoch")
    epochs: int = _choice(100, "epochs of the VAE")
    lr: float = _choice(1e-4, "learning rate of the VAE (Adam)")
    schedule: Literal["exponential", "cosine"] = _choice(
        "exponential", "how the rate falls over the epochs"
    )
    lr_decay: float = _choice(0.95, "factor on an exponential rate after each epoch")
    max_snippets: int = _choice(1024, "most snippets of a video in one VAE batch")
    validation_share: float = _choice(
        0.0, "share of the videos held out to stop the VAE by; 0 trains on all"
    )
    patience: int = _choice(10, "epochs without a better held-out loss that stop it")
    share: float = _making(
        0.5, "share of a normal video's snippets that a pseudo abnormal video replaces"
    )
    share_spread: float = _making(
        0.0, "standard deviation of that share from video to video (a beta prior)"
    )
    placement: Literal["scattered", "run"] = _making(
        "scattered", "where they are: anywhere, or in one run"
    )
    taper: int = _making(0, "snippets at each end of a run that fade in or out")
    translation: Literal["swap", "residual", "graft", "shift", "disturb"] = _making(
        "swap",
        "what is generated: the decoder's output; the source and the difference of the "
        "two decoders; a real run of the other class, varied by its decoder; the "
        "source and the difference of the class means, without a network; or "
        "(abnormal) a disturbed run of normal snippets",
    )
    disturbance: Literal[
        "any",
        "course",
        "far",
        "skip",
        "repeat",
        "shuffle",
        "foreign",
        "tail",
        "offset",
    ] = _making(
        "any",
        "of disturbed runs: one of all kinds; one that needs several snippets to be "
        "seen (skip, repeat, shuffle); one seen in a snippet (tail, offset); or a kind",
    )
    min_strength: float = _making(0.5, "lowest weight of what is added or varied")
    max_strength: float = _making(1.5, "highest weight of what is added or varied")
    temperature: float = _making(1.0, "spread of the latent noise, 1 as in training")
    noise: Literal["independent", "correlated"] = _making(
        "independent", "latent noise over time: drawn anew, or as real codes go on"
    )
    norms: Literal["free", "matched"] = _making(
        "free", "norms of generated snippets: as they come, or as real ones have them"
    )
    scope: Literal["all", "suspicious"] = _making(
        "all", "what a pseudo normal video replaces: all, or what scores as abnormal"
    )
    suspicious_quantile: float = _making(
        0.75, "share of normal snippets that score below what is suspicious"
    )
    candidates: int = _making(
        1, "draws for each snippet, of which the baseline takes the likeliest"
    )
    per_video: float = _making(
        2.0, "pseudo videos per real video; below 1, a random part of the videos"
    )
    normal_rate: float = _making(
        1.0, "share of the pseudo normal videos to make; 0 makes none unasked"
    )
    abnormal_rate: float = _making(
        1.0, "share of the pseudo abnormal videos to make; 0 makes none unasked"
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(one.default, tuple):
                good = isinstance(value, list | tuple) and all(map(_is_count, value))
                expected = "a list of whole numbers, at least 1"
            elif isinstance(one.default, str):
                good, expected = isinstance(value, str), "a text"
            elif isinstance(one.default, bool):
                good, expected = value in (True, False), "true or false"
            elif isinstance(one.default, int):
                least = min(one.default, 1)
                good = _is_count(value, least)
                expected = f"a whole number, at least {least}"
            else:
                good = isinstance(value, int | float) and 0 <= value < math.inf
                expected = "a number, at least 0"
            if not good or isinstance(value, bool) is not isinstance(one.default, bool):
                raise ValueError(f"{one.name}: expected {expected}, got {value!r}")
            if isinstance(value, list):  # from JSON
                object.__setattr__(self, one.name, tuple(value))
        for name, known in ALTERNATIVES.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f"{name}: expected {' or '.join(map(repr, known))}, got {value!r}"
                )
        for name in ("share", "top_share"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ValueError(f"{name}: expected a value in (0, 1], got {value}")
        for name in (
            "normal_quantile",
            "suspicious_quantile",
            "kl_warmup",
            "share_spread",
            "normal_rate",
            "abnormal_rate",
        ):
            value = getattr(self, name)
            if value > 1:
                raise ValueError(f"{name}: expected a value in [0, 1], got {value}")
        for name in ("validation_share", "baseline_dropout"):
            value = getattr(self, name)
            if value >= 1:
                raise ValueError(f"{name}: expected a value in [0, 1), got {value}")
        if not self.normal_rate and not self.abnormal_rate:
            raise ValueError(
                "normal_rate and abnormal_rate: one of them must be above 0"
            )
        if self.min_strength > self.max_strength:
            raise ValueError(
                f"expected min_strength <= max_strength, got {self.min_strength} and "
                f"{self.max_strength}"
            )

    @property
    def making(self) -> dict[str, Any]:
        """The choices of how pseudo videos are made."""
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if "making" in one.metadata
        }

    @property
    def learning(self) -> dict[str, Any]:
        """What selection and model depend on: recipes of the same learn the same."""
        own = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if "making" not in one.metadata and one.name != "name"
        }
        needs = {"abnormal": self.learns_abnormal, "model": self.needs_model}
        return {**own, **needs}

    def rate(self, label: int) -> float:
        """Return the factor on the number of pseudo videos of a class, at most 1."""
        return self.normal_rate if label == 0 else self.abnormal_rate

    def decodes_source(self, label: int) -> bool:
        """Tell whether the codes of a source make its pseudo video of a class."""
        how = self.translation
        return how in ("swap", "residual") or (how == "disturb" and label == 0)

    @property
    def adds_to_source(self) -> bool:
        """Whether the features of a source are a part of what replaces them."""
        return self.translation != "swap" or self.taper > 0

    @property
    def learns_abnormal(self) -> bool:
        """Whether abnormal training videos are learned of."""
        return self.translation != "disturb"

    @property
    def needs_model(self) -> bool:
        """Whether pseudo videos are made by a trained VAE."""
        return self.translation != "shift"

    @property
    def needs_scorer(self) -> bool:
        """Whether pseudo videos are made by the scores of a baseline."""
        return self.scope == "suspicious" or self.candidates > 1

    @property
    def needs_banks(self) -> tuple[int, ...]:
        """The classes, 0 normal and 1 abnormal, of which real runs are needed."""
        return {"graft": (0, 1), "disturb": (0,)}.get(self.translation, ())

    @classmethod
    def named(cls, recipe: str | Recipe = "paper", /, **choices: Any) -> Recipe:
        """Take a recipe by its name, with some choices changed.

        Raises:
            ValueError: If the recipe, or a choice, is not known; the message names
                the nearest one.

        Example:
            >>> Recipe.named("paper", epochs=20).epochs
            20
        """
        known = [one.name for one in fields(cls)]
        unknown = sorted(set(choices) - set(known))
        if unknown:
            raise ValueError(
                f"unknown choice {', '.join(unknown)}; {nearest(unknown[0], known)}"
            )
        if isinstance(recipe, Recipe):
            return replace(recipe, **choices)
        if recipe not in RECIPES:
            raise ValueError(
                f"unknown recipe {recipe!r}; {nearest(str(recipe), RECIPES)}"
            )
        return replace(RECIPES[recipe], **choices)

    @staticmethod
    def default_name(*, abnormal: bool) -> str:
        """Return the recipe for sets with, or without, abnormal training videos.

        The evidence made it: docs/evidence.md.
        """
        return "robust" if abnormal else "one-class"

    @classmethod
    def parse(cls, text: str) -> dict[str, Any]:
        """Read choices from `choice=value,choice=value`; several widths as `512/256`.

        Raises:
            ValueError: If a choice is not known, or a value is not readable.

        Example:
            >>> Recipe.parse("epochs=20,hidden_dims=512/256")
            {'epochs': 20, 'hidden_dims': (512, 256)}
        """
        defaults = {one.name: one.default for one in fields(cls)}
        found: dict[str, Any] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            default = defaults.get(name)
            try:
                if isinstance(default, tuple):
                    found[name] = tuple(int(width) for width in value.split("/"))
                else:
                    read: Any = str if default is None else type(default)
                    read = _read_bool if read is bool else read
                    found[name] = read(value)
            except ValueError as error:
                raise ValueError(f"{name}: {value!r} is not readable") from error
        cls.check(found)
        return found

    @classmethod
    def check(cls, choices: Mapping[str, Any]) -> None:
        """Check names and values of some choices, whatever the others are.

        Raises:
            ValueError: If a choice is not known, or its value is none.
        """
        # A bound that is a choice itself is that of the recipe, which is not known.
        cls.named(
            **{"min_strength": 0.0, "max_strength": sys.float_info.max, **choices}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the choices as JSON values."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()
        }


def _is_count(value: object, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _read_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"expected true or false, got {text!r}")
    return text.lower() == "true"


ALTERNATIVES: Mapping[str, tuple[str, ...]] = {
    one.name: get_args(get_type_hints(Recipe)[one.name])
    for one in fields(Recipe)
    if get_origin(get_type_hints(Recipe)[one.name]) is Literal
}
# What `robust` changes in the selection and in the model, each as a whole.
RANKED_SELECTION: Mapping[str, Any] = {
    "baseline_pooling": "top",
    "baseline_dropout": 0.5,
    "baseline_crops": "mean",
    "selection": "ranked",
    "top_share": 0.3,
    "min_run": 2,
}
FITTED_MODEL: Mapping[str, Any] = {
    "hidden_dims": (512,),
    "latent_dim": 64,
    "standardise": True,
    "alpha": 1.0,
    "variance": "fitted",
    "kl_warmup": 0.2,
    "batching": "mixed",
    "batch_size": 128,
    "steps_per_epoch": 40,
    "epochs": 20,
    "lr": 1e-3,
    "schedule": "cosine",
}
RECIPES: Mapping[str, Recipe] = {
    "paper": Recipe(),
    "robust": Recipe(
        name="robust",
        placement="run",
        translation="residual",
        noise="correlated",
        norms="matched",
        per_video=1.0,
        normal_rate=0.0,
        **RANKED_SELECTION,
        **FITTED_MODEL,
    ),
    # A control, and the best arm of one host (docs/evidence.md): no network is trained.
    "mean-shift": Recipe(
        name="mean-shift",
        translation="shift",
        min_strength=1.0,
        max_strength=1.0,
        hidden_dims=(1,),
        latent_dim=1,
    ),
    "one-class": Recipe(
        name="one-class",
        placement="run",
        translation="disturb",
        disturbance="offset",
        min_strength=1.0,
        max_strength=2.0,
        per_video=1.0,
        normal_rate=0.0,
        **FITTED_MODEL,
    ),
}
