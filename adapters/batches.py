"""Iterables of whole batches that are no DataLoader: `(features (2n, T, D), labels)`.

One half of a batch is normal, the other abnormal. Pseudo videos are made of the videos
in the other half of the same batch. `attach` changes the object's class to one that
replaces videos in what it gives; identity, length and everything else stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from vad_pseudoaug.auto import Choice, settle
from vad_pseudoaug.features import Layout
from vad_pseudoaug.hosts import SamplerLike, load_sampler
from vad_pseudoaug.items import ItemFormat, Slot, with_members
from vad_pseudoaug.loading import describe_handle, switch_state
from vad_pseudoaug.mixing import Mixing, MixOptions, translate_video
from vad_pseudoaug.options import names_options
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.sampler import PseudoVideoSampler
from vad_pseudoaug.vae import ABNORMAL, NORMAL
from vad_pseudoaug.videos import VideoSet

if TYPE_CHECKING:
    from typing_extensions import Unpack


class BatchAttachment:
    """What `attach` returns: the switch, the counters, and the way back.

    Attributes:
        choice: Why p became what it is; None where it was given.
        steps_done: Number of batches given; set in a run that is resumed, it goes on
            with the next one, else with the first again.
    """

    def __init__(
        self,
        loader: Any,
        sampler: PseudoVideoSampler,
        mixing: Mixing,
        *,
        slot: Slot,
        layout: Layout | None,
        normal_first: bool,
    ):
        self._loader = loader
        self._host: type = type(loader)
        self._sampler = sampler
        self._mixing = mixing
        self._slot = slot
        self._layout = layout
        self._normal_first = normal_first
        self._seen = self._replaced = 0
        self.steps_done = 0
        self.enabled = mixing.enabled
        self.choice: Choice | None = None

    def __repr__(self) -> str:
        attached = type(self._loader) is not self._host
        state = switch_state(self, attached=attached)
        return describe_handle(self, state, self._mixing.amount)

    def stats(self) -> dict[str, int]:
        """Return how many videos were "seen" and how many "replaced" so far."""
        return {"seen": self._seen, "replaced": self._replaced}

    def _no_epochs(self, *value: int) -> NoReturn:
        raise AttributeError("batches are counted, not epochs: see steps_done")

    epochs_done = property(_no_epochs, _no_epochs)

    def detach(self) -> None:
        """Give the loader back as it was before `attach`."""
        self._loader.__class__ = self._host
        self.enabled = False

    def mix(self, batch: Any) -> Any:
        """Return a batch with some videos replaced; the given one is not changed."""
        self.steps_done += 1
        if not self.enabled or self._mixing.inert:
            return batch
        if self.steps_done <= self._mixing.start_after:
            return batch
        features = batch if self._slot is None else batch[self._slot]
        layout = self._layout or ("TD" if features.ndim == 3 else "NTD")
        form = ItemFormat(layout=layout)
        count = len(features)
        if not isinstance(features, Tensor) or count % 2:
            raise ValueError(
                "expected a tensor of as many normal as abnormal videos, got "
                f"{type(features).__name__} of {count}"
            )
        generator = make_generator(self._mixing.seed, self.steps_done)
        draws = torch.rand(count, generator=generator, device="cpu").tolist()
        limit = self._mixing.limit(draws)
        half = count // 2
        labels = [NORMAL, ABNORMAL] if self._normal_first else [ABNORMAL, NORMAL]
        # The recipe may want fewer of a class, or none.
        rates = [self._sampler.recipe.rate(label) for label in labels]
        chosen = [i for i, draw in enumerate(draws) if draw < limit * rates[i // half]]
        new = features.clone()
        for index in chosen:
            first = index < half
            label = labels[index // half]
            offset = torch.randint(half, (), generator=generator, device="cpu").item()
            source = features[int(offset) + (half if first else 0)]
            made = translate_video(
                self._sampler,
                form.read(source, name="a video of the batch"),
                form,
                label,
                generator,
            )
            new[index] = form.replace(source, made.features)
        self._seen += count
        self._replaced += len(chosen)
        return new if self._slot is None else with_members(batch, {self._slot: new})


@names_options()
def videos(
    batches: Iterable[Any], *, normal_first: bool, slot: Slot = 0
) -> tuple[VideoSet, VideoSet]:
    """Return the videos of some batches, for `PseudoVideoSampler.fit(*videos(...))`.

    Args:
        batches: A few of the host's, say `itertools.islice(copy.deepcopy(loader), 20)`.
        normal_first: Whether the first half of a batch is the normal one.
        slot: Where a batch has its features; None if it is the tensor itself.
    """
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for batch in batches:
        features = batch if slot is None else batch[slot]
        first, second = features.chunk(2)
        halves[0].extend(first if normal_first else second)
        halves[1].extend(second if normal_first else first)
    return VideoSet(halves[0], name="normal"), VideoSet(halves[1], name="abnormal")


@names_options(MixOptions)
def attach(
    loader: Any,
    sampler: SamplerLike,
    *,
    normal_first: bool,
    slot: Slot = 0,
    layout: Layout | None = None,
    **options: Unpack[MixOptions],
) -> BatchAttachment:
    """Replace videos in the batches of an iterable, in place.

    Args:
        loader: The host's; it gives batches by `__next__`, `__iter__` or `__getitem__`.
        sampler: Fitted on features like those of the batches; or its checkpoint's
            folder.
        normal_first: Whether the first half of a batch is the normal one.
        slot: Where a batch has its features; None if it is the tensor itself.
        layout: Order of the axes of one video; None is `(T, D)` or `(N, T, D)`.
        **options: `p`, `ratio`, `seed`, ...; see `vad_pseudoaug.mixing.Mixing`.
            `start_after` counts batches. Whole batches get no pool.

    Raises:
        TypeError: If it gives no batches in these ways.
        ValueError: If it is attached already, or warm-up is counted in epochs, or a
            folder for a pool is given.
    """
    options.setdefault("start_unit", "steps")
    mixing = Mixing(**options)
    host = type(loader)
    if getattr(host, "_vad_pseudoaug", False):
        raise ValueError("the loader is attached already: call detach() first")
    if mixing.start_unit != "steps" or mixing.give_mask:
        raise ValueError("only steps can be counted here, and no mask handed out")
    if mixing.pool not in ("auto", None):
        raise ValueError("whole batches get no pool: pass no folder for it")
    loaded = load_sampler(sampler)
    # There is no dataset here: it is tried on what the sampler was fitted on.
    mixing, choice = settle(mixing, loaded, None, None)
    handle = BatchAttachment(
        loader,
        loaded.worker_copy(),
        mixing,
        slot=slot,
        layout=layout,
        normal_first=normal_first,
    )
    ways = [w for w in ("__next__", "__iter__", "__getitem__") if hasattr(host, w)]
    if not ways or not hasattr(loader, "__dict__"):
        raise TypeError(
            "expected an object that gives batches, of a class of the host's own, got "
            f"{host.__name__}"
        )
    way = ways[0]

    def give(self: Any, *arguments: Any) -> Any:
        given = getattr(host, way)(self, *arguments)
        return map(handle.mix, given) if way == "__iter__" else handle.mix(given)

    handle.choice = choice
    loader.__class__ = type(host.__name__, (host,), {way: give, "_vad_pseudoaug": True})
    return handle
