"""Lightning data modules whose training loader is a list of two, one of each class.

The module's `train_dataloader` is called by the trainer, so `attach` goes behind it and
attaches to the loaders that it returns, each time that it is called. Nothing of
Lightning is imported: any object with `train_dataloader()` will do. With a trainer at
hand, `callback` does more: it fits, mixes, logs, and refreshes by the model's scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vad_pseudoaug.auto import Choice
from vad_pseudoaug.hosts import SamplerLike, load_sampler
from vad_pseudoaug.loading import describe_handle, switch_state
from vad_pseudoaug.options import names_options
from vad_pseudoaug.reloading import Reloading

from . import rtfm
from .lightning_callback import arrange, done_by
from .lightning_callback import callback as callback


class ModuleAttachment:
    """What `attach` returns: the switch, the counters, and the way back."""

    def __init__(
        self,
        datamodule: Any,
        original: Callable[[], Any],
        reloading: Reloading,
    ):
        self._datamodule = datamodule
        self._original = original
        self._reloading = reloading

    def __repr__(self) -> str:
        attached = self._datamodule.train_dataloader is not self._original
        state = switch_state(self, attached=attached)
        return describe_handle(self, state, self._reloading.amount)

    def place(self) -> Path | None:
        """Return the temporary folder of the pool that loaders share, if any."""
        return self._reloading.folder.path

    @property
    def choice(self) -> Choice | None:
        """Why `p="auto"` became what it is, once loaders were made."""
        return self._reloading.choice

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; may be switched at any time."""
        return self._reloading.enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._reloading.enabled = value

    def stats(self) -> dict[str, int]:
        """Return how many videos were "seen" and how many "replaced" so far."""
        return self._reloading.stats()

    def detach(self) -> None:
        """Give the module, and the loaders that it has made, back as they were."""
        self._reloading.detach()
        self._datamodule.train_dataloader = self._original
        self.enabled = False


@names_options(rtfm.attach)
def attach(
    datamodule: Any,
    sampler: SamplerLike,
    *,
    order: Sequence[str],
    **options: Any,
) -> ModuleAttachment:
    """Replace videos in the batches of the module's training loaders.

    Args:
        datamodule: With `train_dataloader()`, which returns two loaders, or a
            dictionary of "normal" and "abnormal". It may make new ones each time, also
            of other videos, or give the same ones again.
        sampler: Fitted on features like those of the items; or its checkpoint's folder.
        order: Which loader is which: `("normal", "abnormal")` or the reverse.
        **options: Those of `rtfm.attach`.

    Raises:
        ValueError: If `order` is none of the two, or the module is attached already.
    """
    if sorted(order) != ["abnormal", "normal"]:
        raise ValueError(
            f"order: expected ('normal', 'abnormal') or the reverse, got {order!r}"
        )
    original = datamodule.train_dataloader
    if hasattr(original, "_attachment"):
        raise ValueError("the data module is attached already: call detach() first")
    loaded = load_sampler(sampler)
    reloading = Reloading(rtfm.attach, options)
    handle = ModuleAttachment(datamodule, original, reloading)

    # A plain function: Lightning looks into its code.
    def train_dataloader() -> Any:
        loaders = original()
        both = arrange(loaders, order)
        if len(both) == 1:
            raise ValueError(
                "train_dataloader() returned one loader, expected one of each class; "
                "one of both classes: lightning.callback(attach=mixed.attach)"
            )
        # Loaders that are made anew, or for a run that is resumed, go on.
        reloading.go_on(*done_by(getattr(datamodule, "trainer", None)))
        reloading.mix(both, loaded)
        return loaders

    train_dataloader._attachment = handle  # type: ignore[attr-defined]
    datamodule.train_dataloader = train_dataloader
    return handle
