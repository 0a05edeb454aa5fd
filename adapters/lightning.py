"""Lightning data modules whose training loader is a list of two, one of each class.

The module's `train_dataloader` is called by the trainer, so `attach` goes behind it and
attaches to the loaders that it returns, each time that it is called. Nothing of
Lightning is imported: any object with `train_dataloader()` will do. With a trainer at
hand, `callback` does more: it fits, mixes, logs, and refreshes by the model's scores.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vad_pseudoaug.auto import Choice
from vad_pseudoaug.filling import temporary_folder
from vad_pseudoaug.hosts import SamplerLike, load_sampler
from vad_pseudoaug.loading import Attachment, describe_handle, switch_state
from vad_pseudoaug.mixing import Mixing
from vad_pseudoaug.options import names_options

from . import rtfm
from .lightning_callback import callback as callback


class ModuleAttachment:
    """What `attach` returns: the switch, the counters, and the way back.

    Attributes:
        parts: Of the loaders made so far.
        choice: Why `p="auto"` became what it is, once loaders were made.
    """

    def __init__(
        self,
        datamodule: Any,
        original: Callable[[], Any],
        options: dict[str, Any],
    ):
        self._datamodule = datamodule
        self._original = original
        self._options = options
        self._enabled = True
        self.parts: list[Attachment] = []
        self.choice: Choice | None = None
        self._place: Path | None = None

    def __repr__(self) -> str:
        attached = self._datamodule.train_dataloader is not self._original
        state = switch_state(self, attached=attached)
        return describe_handle(self, state, Mixing.split(self._options)[0].amount)

    def place(self) -> Path:
        """Return a temporary folder for a pool that all loaders share."""
        if self._place is None:
            self._place = temporary_folder(self)
        return self._place

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; may be switched at any time."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value
        for part in self.parts:
            part.enabled = value

    def stats(self) -> dict[str, int]:
        """Return how many videos were "seen" and how many "replaced" so far."""
        stats = [part.stats() for part in self.parts]
        return {key: sum(s[key] for s in stats) for key in ("seen", "replaced")}

    def detach(self) -> None:
        """Give the module, and the loaders that it has made, back as they were."""
        for part in self.parts:
            part.detach()
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
            self._place = None
        self._datamodule.train_dataloader = self._original
        self._enabled = False


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
        datamodule: With `train_dataloader()`, which returns two loaders.
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
    handle = ModuleAttachment(datamodule, original, options)

    # A plain function: Lightning looks into its code.
    def train_dataloader() -> Any:
        loaders = original()
        named = dict(zip(order, loaders, strict=True))
        how = dict(options)
        if how.get("pool", "auto") == "auto" and Mixing.split(how)[0].fills:
            how["pool"] = handle.place()  # each call of this makes loaders anew
        part = rtfm.attach(named["normal"], named["abnormal"], loaded, **how)
        if part.choice is not None:  # made once, and kept
            handle.choice, options["p"] = part.choice, part.choice.p
        part.enabled = part.enabled and handle.enabled
        # Loaders that are made anew, or for a run that is resumed, go on.
        trainer = getattr(datamodule, "trainer", None)
        part.go_on(getattr(trainer, "current_epoch", 0), handle.parts)
        handle.parts.append(part)
        return loaders

    train_dataloader._attachment = handle  # type: ignore[attr-defined]
    datamodule.train_dataloader = train_dataloader
    return handle
