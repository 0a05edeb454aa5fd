"""Fitting the Multi-Task VAE (section 4.1): one video a batch, resumable."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoint import CheckpointError, read_tensors, write_tensors
from .extras import progress_bar
from .losses import VAELoss
from .randomness import make_generator
from .recipe import Recipe
from .selection import Selection
from .vae import ABNORMAL, NORMAL, MultiTaskVAE
from .videos import VideoSet

History = list[dict[str, float]]
TERMS = VAELoss._fields[1:]
SECONDS_BETWEEN_SAVES = 30.0
VIDEOS_PER_CLASS = 8  # in a mixed batch


def train_vae(
    model: MultiTaskVAE,
    normal: VideoSet,
    abnormal: VideoSet | None,
    selection: Selection,
    recipe: Recipe,
    *,
    seed: int = 0,
    state_path: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> History:
    """Train a model in place, with Adam and an exponentially decaying rate.

    A batch is one video: all its snippets (of an abnormal video the selected ones),
    with all their crops, at most `recipe.max_snippets` of them, drawn anew each epoch.
    With `recipe.batching="mixed"` it holds as many snippets of each class, of several
    videos.

    Args:
        model: Trained where it lives.
        normal: Normal videos.
        abnormal: Abnormal videos; None trains the normal decoder alone.
        selection: Which snippets of the abnormal videos are abnormal.
        recipe: Epochs, rates and the size of a batch.
        seed: Seed of the order of videos, the draws of snippets and the latent noise.
        state_path: A `.safetensors` file. If it exists, training goes on from it, and
            ends on the CPU bit for bit as if it had never stopped. The last complete
            epoch is written to it every 30 seconds, and when training ends for
            whatever reason, Ctrl-C included. None keeps nothing.
        progress: Show a bar; None decides by the terminal.

    Returns:
        One entry an epoch: the learning rate and the terms of `VAELoss`, means over
        the snippets of the epoch; with `recipe.validation_share` also "validation",
        the joint loss of the held-out videos. Training then stops after
        `recipe.patience` epochs without a better one, and the best weights are kept.

    Raises:
        CheckpointError: If `state_path` holds another run's state.
        FloatingPointError: If the loss is no longer finite. The model then has the
            weights of the last complete epoch.
    """
    model.train()
    optimiser = _adam(model, recipe.lr)
    feed = _Feed(normal, abnormal, selection, recipe, seed)
    run = {"seed": seed, "recipe": recipe.to_dict(), "selection": selection.to_dict()}
    history: History = []
    best = _Best(recipe.patience)
    if state_path is not None and Path(state_path).exists():
        history = _load_state(state_path, model, optimiser, run, best)
    device, dtype = model.mean_head.weight.device, model.mean_head.weight.dtype
    # The last complete epoch: what an interrupted or diverged run falls back to.
    complete = _get_state(model, optimiser, best)
    saved_epochs, saved_at = len(history), time.monotonic()
    total = recipe.epochs * len(feed)
    try:
        with progress_bar(total, "multi-task VAE", show=progress) as step:
            for _ in range(len(history) * len(feed)):
                step()
            for epoch in range(len(history), recipe.epochs):
                if best.is_old:
                    break
                lr = learning_rate(recipe, epoch)
                kl_weight = warm_up(recipe, epoch)
                for group in optimiser.param_groups:
                    group["lr"] = lr
                generator = make_generator(seed, epoch)
                terms = torch.zeros(4, dtype=torch.float64, device="cpu")
                counts = torch.zeros(2, dtype=torch.float64, device="cpu")
                for batch in feed.epoch(generator):
                    loss = model.loss(
                        batch.features.to(device, dtype),
                        batch.labels.to(device),
                        generator=generator,
                        kl_weight=kl_weight,
                    )
                    if not math.isfinite(loss.total.item()):
                        raise FloatingPointError(
                            f"training diverged in epoch {epoch + 1}, at "
                            f"{batch.title}: lower the learning rate "
                            f"({recipe.lr}); the last complete epoch is kept"
                        )
                    optimiser.zero_grad(set_to_none=True)
                    loss.total.backward()
                    optimiser.step()
                    values = torch.stack([t.detach() for t in loss[1:]])
                    own = torch.bincount(batch.labels, minlength=2)
                    terms += values.double().cpu() * own.repeat(2)
                    counts += own
                    step(loss=loss.total.item(), epoch=epoch + 1)
                means = (terms / counts.repeat(2).clamp(min=1)).tolist()
                entry = {"lr": lr, **dict(zip(TERMS, means, strict=True))}
                if recipe.validation_share:
                    entry["validation"] = _validate(model, feed, seed)
                    best.note(entry["validation"], model)
                history.append(entry)
                complete = _get_state(model, optimiser, best)
                if time.monotonic() - saved_at > SECONDS_BETWEEN_SAVES:
                    _save_state(state_path, complete, run, history)
                    saved_epochs, saved_at = len(history), time.monotonic()
    except BaseException:
        _set_state(model, optimiser, complete)
        raise
    finally:
        if len(history) > saved_epochs:
            _save_state(state_path, complete, run, history)
    if best.weights:
        model.load_state_dict(best.weights)
    return history


class _Best:
    """The weights of the epoch with the lowest held-out loss."""

    def __init__(self, patience: int):
        self.weights: dict[str, Tensor] = {}
        self.loss = math.inf
        self._age, self._patience = 0, patience

    def note(self, loss: float, model: MultiTaskVAE | None = None) -> None:
        """Count an epoch; of a model, its weights are kept if it is the best."""
        self._age += 1
        if loss < self.loss:
            self.loss, self._age = loss, 0
            if model is not None:
                self.weights = {k: v.clone() for k, v in model.state_dict().items()}

    @property
    def is_old(self) -> bool:
        """Whether the last epochs brought nothing better."""
        return self._age >= self._patience


@torch.no_grad()
def _validate(model: MultiTaskVAE, feed: _Feed, seed: int) -> float:
    """Return the joint loss of the held-out videos, the same noise in each epoch."""
    model.eval()
    device, dtype = model.mean_head.weight.device, model.mean_head.weight.dtype
    generator = make_generator(seed, 3)
    losses = [
        model.loss(
            batch.features.to(device, dtype),
            batch.labels.to(device),
            generator=generator,
        ).total.item()
        for batch in feed.held_out(generator)
    ]
    model.train()
    return sum(losses) / len(losses)


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Return the rate of an epoch, counted from 0.

    Exponential: `lr_decay` times the one before (section 4.1). Cosine: half a wave
    from `lr` down to a hundredth of it.

    Example:
        >>> paper = Recipe.named("paper")
        >>> f"{learning_rate(paper, 0):.2g} {learning_rate(paper, 99):.2g}"
        '0.0001 6.2e-07'
    """
    if recipe.schedule == "exponential":
        return recipe.lr * recipe.lr_decay**epoch
    wave = (1 + math.cos(math.pi * epoch / max(recipe.epochs - 1, 1))) / 2
    return recipe.lr * (0.01 + 0.99 * wave)


def warm_up(recipe: Recipe, epoch: int) -> float:
    """Return the share of alpha that counts in an epoch, counted from 0."""
    length = recipe.kl_warmup * recipe.epochs
    return min(1.0, (epoch + 1) / length) if length else 1.0


def _adam(model: MultiTaskVAE, lr: float) -> torch.optim.Adam:
    """Make Adam, fused where this torch can: twice as fast a step on a CPU."""
    try:
        return torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    except RuntimeError:
        return torch.optim.Adam(model.parameters(), lr=lr)


class _Batch(NamedTuple):
    """Rows for one step `(M, D)`, the class of each `(M,)`, and where they are from."""

    features: Tensor
    labels: Tensor
    title: str


class _Feed:
    """Gives the batches of an epoch: of one video each, or mixed over videos."""

    def __init__(
        self,
        normal: VideoSet,
        abnormal: VideoSet | None,
        selection: Selection,
        recipe: Recipe,
        seed: int,
    ):
        self._sets = (normal, normal if abnormal is None else abnormal)
        self._masks, self._weights = selection.masks, selection.weights
        self._recipe = recipe
        chosen = [i for i, mask in enumerate(selection.masks) if mask.any()]
        self._videos: list[list[int]] = []
        self._held_out: list[list[int]] = []
        for label, numbers in ((NORMAL, list(range(len(normal)))), (ABNORMAL, chosen)):
            count = round(len(numbers) * recipe.validation_share)
            if numbers and recipe.validation_share and not 0 < count < len(numbers):
                raise ValueError(
                    f"validation_share={recipe.validation_share}: expected some videos "
                    f"of {len(numbers)} to train and some to validate, in each class"
                )
            generator = make_generator(seed, 6, label)
            order = torch.randperm(len(numbers), generator=generator, device="cpu")
            mixed = [numbers[i] for i in order.tolist()] if count else numbers
            self._held_out.append(sorted(mixed[:count]))
            self._videos.append(sorted(mixed[count:]))

    def held_out(self, generator: torch.Generator) -> Iterator[_Batch]:
        """Give the held-out videos, each a batch."""
        for label in (NORMAL, ABNORMAL):
            for i in self._held_out[label]:
                rows = self._rows(label, i, self._recipe.max_snippets, generator)
                yield _Batch(rows, _labels(label, rows), self._sets[label].title(i))

    def __len__(self) -> int:
        if self._recipe.batching == "mixed":
            return self._recipe.steps_per_epoch
        return sum(map(len, self._videos))

    def epoch(self, generator: torch.Generator) -> Iterator[_Batch]:
        """Give the batches of one epoch, drawn from `generator`."""
        if self._recipe.batching == "mixed":
            for _ in range(self._recipe.steps_per_epoch):
                yield self._mixed(generator)
            return
        numbered = [
            (label, i) for label in (NORMAL, ABNORMAL) for i in self._videos[label]
        ]
        order = torch.randperm(len(numbered), generator=generator, device="cpu")
        for number in order.tolist():
            label, index = numbered[number]
            rows = self._rows(label, index, self._recipe.max_snippets, generator)
            yield _Batch(rows, _labels(label, rows), self._sets[label].title(index))

    def _mixed(self, generator: torch.Generator) -> _Batch:
        """Draw as many snippets of each class, of up to 8 videos of each."""
        parts, labels = [], []
        for label, videos in enumerate(self._videos):
            if not videos:
                continue
            count = min(len(videos), VIDEOS_PER_CLASS)
            order = torch.randperm(len(videos), generator=generator, device="cpu")
            each = max(1, self._recipe.batch_size // 2 // count)
            for number in order[:count].tolist():
                rows = self._rows(label, videos[number], each, generator)
                parts.append(rows)
                labels.append(_labels(label, rows))
        return _Batch(torch.cat(parts), torch.cat(labels), "a mixed batch")

    def _rows(
        self, label: int, index: int, max_snippets: int, generator: torch.Generator
    ) -> Tensor:
        """Draw snippets of a video: `(N * T', D)` with T' <= max_snippets."""
        features = self._sets[label].tensor(index)
        if label == ABNORMAL:
            features = features[:, torch.from_numpy(self._masks[index])]
            if self._weights is not None:
                weights = torch.from_numpy(self._weights[index][self._masks[index]])
                count = min(len(weights), max_snippets)
                drawn = torch.multinomial(
                    weights, count, replacement=True, generator=generator
                )
                return features[:, drawn].flatten(0, 1)
        if features.shape[1] > max_snippets:
            order = torch.randperm(features.shape[1], generator=generator, device="cpu")
            features = features[:, order[:max_snippets]]
        return features.flatten(0, 1)


def _labels(label: int, rows: Tensor) -> Tensor:
    return torch.full((len(rows),), label, dtype=torch.int64, device="cpu")


def _get_state(
    model: MultiTaskVAE, optimiser: torch.optim.Optimizer, best: _Best
) -> dict[str, Tensor]:
    """Copy weights, Adam's moments and the best weights into one flat mapping."""
    state = {f"model.{k}": v.clone() for k, v in model.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        state |= {f"adam.{number}.{k}": v.clone() for k, v in moments.items()}
    return state | {f"best.{k}": v for k, v in best.weights.items()}


def _set_state(
    model: MultiTaskVAE,
    optimiser: torch.optim.Optimizer,
    state: Mapping[str, Tensor],
) -> None:
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        kind, _, rest = name.partition(".")
        if kind == "model":
            weights[rest] = tensor
        elif kind == "adam":
            number, _, key = rest.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
    model.load_state_dict(weights)
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})


def _save_state(
    path: str | os.PathLike[str] | None,
    state: Mapping[str, Tensor],
    run: Mapping[str, Any],
    history: History,
) -> None:
    if path is not None:
        meta = {"run": json.dumps(run, sort_keys=True), "history": json.dumps(history)}
        write_tensors(path, state, meta=meta)


def _differences(saved: str, run: Mapping[str, Any]) -> str:
    """Name the choices in which two runs differ, else say that the data do."""
    old, new = json.loads(saved), {"seed": run["seed"], **run["recipe"]}
    old = {"seed": old.get("seed"), **old.get("recipe", {})}
    named = [f"{k} ({old.get(k)}, now {v})" for k, v in new.items() if old.get(k) != v]
    return ", ".join(named) or "its videos"


def _load_state(
    path: str | os.PathLike[str],
    model: MultiTaskVAE,
    optimiser: torch.optim.Optimizer,
    run: Mapping[str, Any],
    best: _Best,
) -> History:
    state, meta = read_tensors(path)
    if meta.get("run") != json.dumps(run, sort_keys=True):
        raise CheckpointError(
            f"{path}: the state of another run, which differs in "
            f"{_differences(meta.get('run', '{}'), run)}; delete it to start anew, or "
            "repeat that run's choices to go on with it"
        )
    _set_state(model, optimiser, state)
    history: History = json.loads(meta["history"])
    for entry in history:
        if "validation" in entry:
            best.note(entry["validation"])
    found = {k.removeprefix("best."): v for k, v in state.items() if k[:5] == "best."}
    best.weights = found
    return history
