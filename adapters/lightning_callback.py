"""A Lightning callback: pseudo videos in a trainer's batches, refreshed as it learns.

It works with `lightning.pytorch` and with `pytorch_lightning`, version 2: with the one
that is imported already.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.auto import Choice
from vad_pseudoaug.extras import require
from vad_pseudoaug.hosts import SamplerLike, dataset_of, load_sampler
from vad_pseudoaug.loading import Attachment, describe_handle
from vad_pseudoaug.mixing import Mixing
from vad_pseudoaug.options import options_of, refuse_unknown
from vad_pseudoaug.randomness import preserved_global_rng
from vad_pseudoaug.refreshing import Refreshed
from vad_pseudoaug.reloading import Reloading

from . import rtfm

logger = logging.getLogger("vad_pseudoaug")

ModuleScores = Callable[[Any, Tensor], Any]


class PseudoVideos:
    """What `callback` returns, beside Lightning's own `Callback`.

    Attributes:
        sampler: What makes the pseudo videos; None until it was fitted.
        refreshed: What each round of refreshing brought.
    """

    def __init__(
        self,
        sampler: PseudoVideoSampler | None,
        *,
        order: Sequence[str],
        attach: Callable[..., Attachment],
        fit: Mapping[str, Any],
        refresh_every: int,
        refresh_epochs: int,
        scores: ModuleScores | None,
        log: bool,
        options: Mapping[str, Any],
    ):
        self.sampler = sampler
        self.refreshed: list[Refreshed] = []
        self._order = order
        self._attach = attach
        self._fit = fit
        self._refresh_every = refresh_every
        self._refresh_epochs = refresh_epochs
        self._scores = scores
        self._log = log
        self._options = dict(options)
        self._reloading = Reloading(attach, self._options)
        self._epochs_done = 0
        self._undo: Callable[[], None] | None = None

    def __repr__(self) -> str:
        state = f"sampler={self.sampler}"
        return describe_handle(self, state, self._reloading.amount)

    @property
    def choice(self) -> Choice | None:
        """Why `p="auto"` became what it is, once loaders were made."""
        return self._reloading.choice

    def stats(self) -> dict[str, int]:
        """Return how many videos were "seen" and how many "replaced" so far."""
        return self._reloading.stats()

    # The hooks, in the order in which the trainer calls them.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Attach to the loaders, wherever the trainer has them from."""
        if stage != "fit":
            return
        # Lightning makes the first iterators before `on_train_start`: that is too late.
        source = trainer.fit_loop._data_source.instance
        if not hasattr(source, "train_dataloader"):
            self._mix(source)
            return
        original = source.train_dataloader
        own = "train_dataloader" in vars(source)

        # A plain function: Lightning looks into its code.
        def train_dataloader() -> Any:
            loaders = original()
            epochs, steps = done_by(trainer)
            self._epochs_done = max(self._epochs_done, epochs)
            self._reloading.go_on(self._epochs_done, steps)
            self._mix(loaders)
            return loaders

        def undo() -> None:
            if own:
                source.train_dataloader = original
            else:
                del source.train_dataloader

        source.train_dataloader = train_dataloader
        self._undo = undo

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the counters; refresh where it is time to."""
        if self._log:
            values = {f"pseudo/{k}": float(n) for k, n in self.stats().items()}
            pl_module.log_dict(values)
        done = self._epochs_done = trainer.current_epoch + 1
        if self._refresh_every and done % self._refresh_every == 0:
            if done == trainer.max_epochs:
                return  # no batch would come of it
            self._refresh(trainer, pl_module, done)

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that is resumed goes on with."""
        steps = self._reloading.steps_done
        return {"epochs_done": self._epochs_done, "steps_done": steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on after the epochs and steps that are done."""
        self._epochs_done = state_dict["epochs_done"]
        self._reloading.epochs_done = self._epochs_done
        self._reloading.steps_done = state_dict.get("steps_done", 0)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give loaders and data module back as they were."""
        if stage == "fit":
            self._detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: Any) -> None:
        """Give loaders and data module back as they were."""
        self._detach()

    # What they do.

    def _mix(self, loaders: Any) -> None:
        chosen = self._chosen(loaders)
        if self._refresh_every and any(one.persistent_workers for one in chosen):
            raise ValueError(
                "refresh_every: loaders with persistent_workers=True keep the pseudo "
                "videos that they began with; expected persistent_workers=False"
            )
        if self.sampler is None:
            if len(chosen) == 1:
                raise ValueError(
                    "sampler: expected a fitted one where there is one loader"
                )
            self.sampler = PseudoVideoSampler.fit(*map(dataset_of, chosen), **self._fit)
        self._reloading.mix(chosen, self.sampler)

    def _chosen(self, loaders: Any) -> list[DataLoader[Any]]:
        """Return the loaders in the order of the arguments of `attach`."""
        chosen = arrange(loaders, self._order)
        if len(chosen) == 1 and self._attach is rtfm.attach:
            raise ValueError(
                "the trainer has one training loader, expected one of each class; "
                "one of both classes: attach=mixed.attach, see docs/hosts.md"
            )
        return chosen

    def _refresh(self, trainer: Any, pl_module: Any, epochs_done: int) -> None:
        if self.sampler is None:
            raise RuntimeError("no training loader was made: there is no sampler")
        found = self.sampler.refresh(
            functools.partial(self._score, pl_module),
            epochs=self._refresh_epochs,
            progress=False,
        )
        self.refreshed.append(found)
        logger.info(
            "pseudo videos after epoch %d: %s",
            epochs_done,
            "refreshed" if found.accepted else "kept, the new ones were worse",
        )
        if not found.accepted:
            return
        loaders = trainer.train_dataloader
        # For several processes Lightning makes copies of the attached loaders.
        self._release(self._chosen(loaders))
        self._mix(loaders)

    @torch.no_grad()
    def _score(self, module: Any, features: NDArray[np.float32]) -> NDArray[Any]:
        """Score one video `(N, T, D)` by the host, in evaluation mode: `(T,)`."""
        assert self._scores is not None
        modes = {part: part.training for part in module.modules()}
        module.eval()
        try:
            with preserved_global_rng():
                video = torch.from_numpy(np.array(features)).to(module.device)
                found = self._scores(module, video)
        finally:
            for part, training in modes.items():
                part.training = training
        scores: NDArray[Any] = torch.as_tensor(found).float().cpu().numpy()
        return scores

    def _release(self, copies: Sequence[DataLoader[Any]] = ()) -> None:
        self._reloading.detach(copies)
        self._reloading.epochs_done = self._epochs_done

    def _detach(self) -> None:
        self._release()
        if self._undo is not None:
            self._undo()
            self._undo = None

    def __reduce__(self) -> Any:
        arguments = {
            "order": self._order,
            "attach": self._attach,
            "fit": self._fit,
            "refresh_every": self._refresh_every,
            "refresh_epochs": self._refresh_epochs,
            "scores": self._scores,
            "log": self._log,
            **self._options,
        }
        return functools.partial(callback, **arguments), (self.sampler,)


def arrange(loaders: Any, order: Sequence[str]) -> list[DataLoader[Any]]:
    """Return the training loaders, the normal one first; one of both classes alone.

    Raises:
        ValueError: If they are neither one, nor two, nor named by the classes.
    """
    loaders = getattr(loaders, "iterables", loaders)  # a CombinedLoader's
    if isinstance(loaders, Sequence) and len(loaders) == 1:
        [loaders] = loaders
    if isinstance(loaders, DataLoader):
        return [loaders]
    if isinstance(loaders, Mapping):
        found, named = f"a dictionary with the names {list(loaders)}", loaders
    elif isinstance(loaders, Sequence):
        found, named = f"{len(loaders)}", dict(zip(order, loaders, strict=False))
    else:
        found, named = type(loaders).__name__, {}
    if set(named) != {"normal", "abnormal"} or len(loaders) != 2:
        raise ValueError(
            "training loaders: expected two, or a dictionary with the names 'normal' "
            f"and 'abnormal', got {found}"
        )
    return [named["normal"], named["abnormal"]]


def done_by(trainer: Any) -> tuple[int, int]:
    """Return how many epochs and batches a trainer has done, also before a resume."""
    epochs: int = getattr(trainer, "current_epoch", 0)
    loop = getattr(trainer, "fit_loop", None)
    return epochs, 0 if loop is None else loop.epoch_loop.batch_progress.total.ready


def callback(
    sampler: SamplerLike | None = None,
    *,
    order: Sequence[str] = ("normal", "abnormal"),
    attach: Callable[..., Attachment] = rtfm.attach,
    fit: Mapping[str, Any] | None = None,
    refresh_every: int = 0,
    refresh_epochs: int = 5,
    scores: ModuleScores | None = None,
    log: bool = True,
    **options: Any,
) -> Any:
    """Return a callback that puts pseudo videos into the batches of a trainer.

    The loaders may be a data module's, the module's own, or given to `trainer.fit`:
    a list of two, a dictionary of "normal" and "abnormal", or one of both classes. They
    are given back as they were when the fit ends. Every process of a distributed run
    fits and refreshes for itself, by the same seed.

    Args:
        sampler: A fitted one or its checkpoint's folder; None fits one on the datasets
            of the training loaders, before training starts.
        order: Which of two loaders is which: `("normal", "abnormal")` or the reverse.
        attach: Of the adapter that fits the items; `mixed.attach` for one loader.
        fit: Keywords of `PseudoVideoSampler.fit` where there is no sampler.
        refresh_every: Refresh the sampler by the model's scores after so many epochs,
            see `PseudoVideoSampler.refresh`; 0 never. A resumed run starts with the
            sampler that is given here, and goes on with the epochs that are done.
        refresh_epochs: Epochs that the VAE is trained on for each time.
        scores: Scores one video for it: of the module, in evaluation mode, and
            features `(N, T, D)`, float32 on its device, the scores `(T,)`.
        log: Log "pseudo/seen" and "pseudo/replaced" at the end of each epoch.
        **options: Those of `attach`: `p`, `ratio`, `seed`, `start_after`, ...

    Raises:
        ImportError: If Lightning is not installed; it names the extra.
        ValueError: If `order`, `refresh_every` or the options are not usable.
    """
    if sorted(order) != ["abnormal", "normal"]:
        raise ValueError(
            f"order: expected ('normal', 'abnormal') or the reverse, got {order!r}"
        )
    if refresh_every < 0 or (refresh_every and scores is None):
        raise ValueError(
            "refresh_every: expected epochs >= 0, and scores=, a function of the "
            f"module and features (N, T, D), got {refresh_every} and {scores}"
        )
    if fit and sampler is not None:
        raise ValueError("sampler and fit: expected one of them, got both")
    refuse_unknown("callback", options, options_of(attach))
    mixing, _ = Mixing.split(options)  # refuses what cannot be
    if refresh_every and mixing.start_after and mixing.start_unit == "steps":
        raise ValueError("start_unit: expected 'epochs' beside refresh_every")
    kind = type("PseudoVideos", (PseudoVideos, _base()), {})
    return kind(
        None if sampler is None else load_sampler(sampler),
        order=tuple(order),
        attach=attach,
        fit=dict(fit or {}),
        refresh_every=refresh_every,
        refresh_epochs=refresh_epochs,
        scores=scores,
        log=log,
        options=options,
    )


def _base() -> type:
    """Return the class `Callback` of the Lightning that is in use."""
    names = ("lightning.pytorch", "pytorch_lightning")
    name = next((name for name in names if name in sys.modules), names[0])
    kind: type = require(name, extra="lightning").Callback
    return kind
