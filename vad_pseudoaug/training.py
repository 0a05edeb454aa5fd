"""Fitting the Multi-Task VAE (section 4.1): one video a batch, resumable, shared."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import (
    TRAINING_STATE,
    CheckpointError,
    read_tensors,
    write_tensors,
)
from .extras import progress_bar
from .feed import Feed
from .losses import VAELoss
from .processes import Processes
from .randomness import make_generator
from .recipe import Recipe
from .selection import Selection
from .vae import MultiTaskVAE
from .videos import VideoSet
from .writing import differences

History = list[dict[str, float]]
TERMS = VAELoss._fields[1:]
SECONDS_BETWEEN_SAVES = 30.0


def train_vae(
    model: MultiTaskVAE,
    normal: VideoSet,
    abnormal: VideoSet | None,
    selection: Selection,
    recipe: Recipe,
    *,
    seed: int = 0,
    split_seed: int | None = None,
    state_path: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    processes: Processes | None = None,
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
        split_seed: Seed of which videos are held out; None takes `seed`. A model that
            is trained on takes the one that it had.
        state_path: A `.safetensors` file. If it exists, training goes on from it, and
            ends on the CPU bit for bit as if it had never stopped. The last complete
            epoch is written to it every 30 seconds, and when training ends for
            whatever reason, Ctrl-C included. None keeps nothing.
        overwrite: Begin anew where `state_path` holds another run's state.
        progress: Show a bar; None decides by the terminal.
        processes: Who shares each batch, all with the same arguments. The losses are
            those of one process, up to rounding. The first one writes `state_path`,
            and all read it.

    Returns:
        One entry an epoch: the learning rate and the terms of `VAELoss`, means over
        the snippets of the epoch; with `recipe.validation_share` also "validation",
        the joint loss of the held-out videos. Training then stops after
        `recipe.patience` epochs without a better one, and the best weights are kept.
        Of a recipe that needs no model nothing is trained, and there is no entry.

    Raises:
        CheckpointError: If `state_path` holds another run's state, or a broken one,
            that is not to be overwritten.
        FloatingPointError: If loss or weights are no longer finite. The model then has
            the weights of the last complete epoch.
    """
    if not recipe.needs_model:
        return []
    model.train()
    optimiser = _adam(model, recipe.lr)
    split_seed = seed if split_seed is None else split_seed
    feed = Feed(model, normal, abnormal, selection, recipe, split_seed, processes)
    best = _Best(recipe.patience)
    # The first process alone reads and writes: others might see an older file, or none.
    written = None if processes is not None and processes.rank else state_path
    run: dict[str, Any] = {}
    if written is not None:
        run = _run(recipe, seed, normal, abnormal)
        run["selected"] = selection.to_dict()
    try:
        state, history = _read_state(written, run, model, recipe)
    except CheckpointError:
        if not overwrite:
            raise
        state, history = {}, []
    if processes is not None:
        state, history = _share_state(processes, state, history)
    if state:
        with _readable_state(Path(state_path or TRAINING_STATE)):
            _resume(model, optimiser, best, state, history)
    # The last complete epoch: what an interrupted or diverged run falls back to.
    complete = _get_state(model, optimiser, best)
    saved_epochs, saved_at = len(history), time.monotonic()
    total = recipe.epochs * len(feed)
    try:
        done = len(history) * len(feed)
        with progress_bar(total, "multi-task VAE", show=progress, done=done) as step:
            for epoch in range(len(history), recipe.epochs):
                if best.is_old:
                    break
                lr = learning_rate(recipe, epoch)
                kl_weight = warm_up(recipe, epoch)
                for group in optimiser.param_groups:
                    group["lr"] = lr
                generator = make_generator(seed, epoch)
                terms = np.zeros((2, 2))  # reconstruction and divergence, by class
                counts = np.zeros(2)
                for batch in feed.epoch(generator):
                    loss = batch.loss(model, kl_weight)
                    # All at once: each copy from a GPU waits for it.
                    joint, *values = torch.stack(loss).detach().double().tolist()
                    if not math.isfinite(joint):
                        raise _diverged(epoch, batch.title, recipe)
                    optimiser.zero_grad(set_to_none=True)
                    loss.total.backward()
                    if processes is not None:
                        processes.add_gradients(model.parameters())
                    optimiser.step()
                    terms += np.reshape(values, (2, 2)) * batch.counts
                    counts += batch.counts
                    step(loss=joint, epoch=epoch + 1)
                if not all(bool(own.isfinite().all()) for own in model.parameters()):
                    raise _diverged(epoch, "its last batch", recipe)
                means = (terms / np.maximum(counts, 1)).ravel().tolist()
                entry = {"lr": lr, **dict(zip(TERMS, means, strict=True))}
                if recipe.validation_share:
                    entry["validation"] = _validate(model, feed, seed)
                    best.note(entry["validation"], model)
                history.append(entry)
                complete = _get_state(model, optimiser, best)
                if time.monotonic() - saved_at > SECONDS_BETWEEN_SAVES:
                    _save_state(written, complete, run, history)
                    saved_epochs, saved_at = len(history), time.monotonic()
    except BaseException:
        _set_state(model, optimiser, complete)
        raise
    finally:
        if len(history) > saved_epochs:
            _save_state(written, complete, run, history)
    if best.weights:
        model.load_state_dict(best.weights)
    return history


def _diverged(epoch: int, where: str, recipe: Recipe) -> FloatingPointError:
    return FloatingPointError(
        f"training diverged in epoch {epoch + 1}, at {where}: lower the learning rate "
        f"({recipe.lr}); the last complete epoch is kept"
    )


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
def _validate(model: MultiTaskVAE, feed: Feed, seed: int) -> float:
    """Return the joint loss of the held-out videos, the same noise in each epoch."""
    model.eval()
    generator = make_generator(seed, 3)
    losses = [batch.loss(model).total.item() for batch in feed.held_out(generator)]
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


def check_state(
    path: str | os.PathLike[str],
    recipe: Recipe,
    *,
    seed: int,
    normal: VideoSet,
    abnormal: VideoSet | None,
) -> None:
    """Make sure that a state to go on from is of this run, if there is one.

    What was selected is compared where training begins, after the baseline.

    Args:
        path: The `state_path` of `train_vae`.
        recipe: Of the run to come, as all others.
        seed: See `train_vae`.
        normal: See `train_vae`.
        abnormal: See `train_vae`.

    Raises:
        CheckpointError: If it is another run's, or broken.
    """
    path = Path(path)
    if path.exists():
        _, meta = read_tensors(path)
        _refuse_other(path, meta, _run(recipe, seed, normal, abnormal))


def _run(
    recipe: Recipe, seed: int, normal: VideoSet, abnormal: VideoSet | None
) -> dict[str, Any]:
    """Return what a state must be of, to go on from it."""
    return {
        "seed": seed,
        "normal": normal.identity(),
        "abnormal": abnormal and abnormal.identity(),
        "recipe": recipe.to_dict(),
    }


def _refuse_other(path: Path, meta: Mapping[str, str], run: Mapping[str, Any]) -> None:
    """Refuse the state of a run that differs in what is known of this one."""
    with _readable_state(path):
        saved = json.loads(meta["run"])
        old, new = ({**one, **one["recipe"]} for one in (saved, run))
        for one in (old, new):
            del one["recipe"]
        if "selected" not in run:  # not known yet
            del old["selected"]
        other = differences(old, new)
    if other:
        raise CheckpointError(
            f"{path}: the state of another run, which differs in {other}; delete "
            "it to start anew, or repeat that run's choices to go on with it"
        )


@contextmanager
def _readable_state(path: Path) -> Iterator[None]:
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: not readable as the state of a run, delete it to start anew: "
            f"{error}"
        ) from error


def _read_state(
    path: str | os.PathLike[str] | None,
    run: Mapping[str, Any],
    model: MultiTaskVAE,
    recipe: Recipe,
) -> tuple[dict[str, Tensor], History]:
    """Read the state of a run and the epochs before it, nothing where there is none."""
    if path is None or not Path(path).exists():
        return {}, []
    path = Path(path)
    state, meta = read_tensors(path)
    _refuse_other(path, meta, run)
    with _readable_state(path):
        _check_tensors(state, model)
        return state, _check_history(json.loads(meta["history"]), recipe)


def _check_tensors(state: Mapping[str, Tensor], model: MultiTaskVAE) -> None:
    """Refuse tensors that are not those of a model and its optimiser, whole.

    Adam looks at no shapes: moments of another size would be read beyond their end.
    """
    groups: list[dict[str, tuple[int, ...]]] = [
        {f"{kind}.{name}": weight.shape for name, weight in model.state_dict().items()}
        for kind in ("model", "best")
    ]
    for number, weight in enumerate(model.parameters()):
        own = {"exp_avg": weight.shape, "exp_avg_sq": weight.shape, "step": ()}
        groups.append({f"adam.{number}.{name}": shape for name, shape in own.items()})
    shapes = {name: shape for group in groups for name, shape in group.items()}
    for name, tensor in state.items():
        if tensor.shape != shapes.get(name) or not tensor.is_floating_point():
            raise ValueError(f"the tensor {name} is {tensor.dtype} {[*tensor.shape]}")
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"the tensor {name} is not finite")
    for number, group in enumerate(groups):
        missing = sorted(group.keys() - state.keys())
        # What was never trained has no moments, and few runs look for the best epoch.
        if missing and (number == 0 or len(missing) < len(group)):
            raise ValueError(f"the tensor {missing[0]} is missing")


def _check_history(history: Any, recipe: Recipe) -> History:
    """Refuse what is no list of the figures of epochs."""
    names = {"lr", *TERMS} | ({"validation"} if recipe.validation_share else set())
    for entry in (known := list(history)):
        figures = {type(value) for value in entry.values()}
        if entry.keys() != names or not figures <= {int, float}:
            raise ValueError(f"no figures of an epoch: {entry!s:.80}")
    if not 0 < len(known) <= recipe.epochs:
        raise ValueError(f"{len(known)} epochs of {recipe.epochs}")
    return known


def _share_state(
    processes: Processes, state: Mapping[str, Tensor], history: History
) -> tuple[dict[str, Tensor], History]:
    """Give what the first process has read to all."""
    text = torch.tensor(list(json.dumps(history).encode()), dtype=torch.uint8)
    shared = processes.share({**state, "history": text})
    found: History = json.loads(bytes(shared.pop("history").tolist()))
    return shared, found


def _resume(
    model: MultiTaskVAE,
    optimiser: torch.optim.Optimizer,
    best: _Best,
    state: Mapping[str, Tensor],
    history: History,
) -> None:
    """Put a state in its place."""
    _set_state(model, optimiser, state)
    for entry in history:
        if "validation" in entry:
            best.note(entry["validation"])
    best.weights = {
        k.removeprefix("best."): v for k, v in state.items() if k.startswith("best.")
    }
