"""Attaching to a host's `DataLoader` in place, and detaching again."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from .deferred import pending_items
from .filling import SharedFolder
from .ledger import Ledger
from .mixer import Mixer
from .pool import Pool

if TYPE_CHECKING:
    from .auto import Choice


class Attachment:
    """What `attach` returns: the switch, the counters, and the way back.

    Attributes:
        choice: Why `p="auto"` became what it is; None where p was given.
    """

    def __init__(self, loaders: Sequence[DataLoader[Any]], pool: Pool | None = None):
        self._loaders = tuple(loaders)
        self._pool = pool
        self._amount = self._mixers[0].mixing.amount
        self._past = (0, 0)  # videos seen and replaced until `detach`
        self.choice: Choice | None = None

    def __repr__(self) -> str:
        state = switch_state(self, attached=bool(self._loaders))
        return describe_handle(self, state, self._amount)

    @classmethod
    def attach(
        cls,
        mixers: Sequence[tuple[DataLoader[Any], Callable[[Any], Mixer]]],
        *,
        pool: Pool | None = None,
        allow_single: bool = False,
    ) -> Attachment:
        """Attach to all the loaders, or, if one cannot be, to none of them.

        Args:
            mixers: Loaders, each with what makes its mixer of the host's collate
                function.
            pool: What their mixers take pseudo videos from.
            allow_single: Allow batches of one video.

        Raises:
            TypeError: If one is no DataLoader.
            ValueError: If one is attached already or running, or makes no batches.
        """
        for loader, _ in mixers:
            check_attachable(loader, allow_single=allow_single)
        for loader, mixer in mixers:
            _attach_loader(loader, mixer)
        return cls([loader for loader, _ in mixers], pool)

    @property
    def _mixers(self) -> list[Mixer]:
        return [_mixer_of(loader) for loader in self._loaders]

    @property
    def enabled(self) -> bool:
        """Whether videos are replaced; may be switched at any time."""
        return bool(self._loaders) and all(mixer.enabled for mixer in self._mixers)

    @enabled.setter
    def enabled(self, value: bool) -> None:
        for mixer in self._mixers:
            mixer.enabled = value

    def stats(self) -> dict[str, int]:
        """Return how many videos were "seen" and how many "replaced" so far.

        Videos that worker processes have prepared ahead are counted. After `detach`
        the figures are those up to then.
        """
        counts = [self._past, *(mixer.counts() for mixer in self._mixers)]
        seen, replaced = (sum(column) for column in zip(*counts, strict=True))
        return {"seen": seen, "replaced": replaced}

    @property
    def epochs_done(self) -> int:
        """Number of iterations over the loaders that were begun; may be set.

        Each draws anew what is replaced and by what, and `start_after` counts them. A
        training that is resumed after `k` epochs goes on with epoch `k + 1` if this is
        set to `k` before its first iteration; else it begins with the first again.
        """
        return max((mixer.ledger.epoch for mixer in self._mixers), default=0)

    @epochs_done.setter
    def epochs_done(self, value: int) -> None:
        for mixer in self._mixers:
            mixer.ledger.epoch = value

    def go_on(self, ledgers: Sequence[Ledger], folder: SharedFolder) -> None:
        """Go on with the ledgers, and the pool, of loaders that were before these."""
        for mixer, ledger in zip(self._mixers, ledgers, strict=False):
            mixer.ledger = ledger
        if self._pool is not None:
            self._pool.share(folder)

    def detach(self) -> None:
        """Give the loaders back as they were before `attach`.

        Batches that are made from now on are the host's, also by persistent workers
        and in an iteration that is running; those that workers made ahead stay mixed.
        """
        seen, replaced = self.stats().values()
        for loader in self._loaders:
            give_back(loader)
        self._loaders, self._past = (), (seen, replaced)
        if self._pool is not None:
            self._pool.close()


def switch_state(handle: Any, *, attached: bool) -> str:
    """Say of what `attach` returns whether it is on, off or detached."""
    return f"enabled={handle.enabled}" if attached else "detached"


def describe_handle(handle: Any, state: str, amount: str) -> str:
    """Say of what `attach` returns how many videos it replaces, and has replaced."""
    counts = ", ".join(f"{key}={count}" for key, count in handle.stats().items())
    return f"{type(handle).__name__}({amount}, {state}, {counts})"


def check_attachable(loader: DataLoader[Any], *, allow_single: bool) -> None:
    """Refuse a loader that cannot be attached to; see `Attachment.attach`."""
    if not isinstance(loader, DataLoader):
        raise TypeError(f"expected a DataLoader, got {type(loader).__name__}")
    if isinstance(loader.collate_fn, Mixer):
        raise ValueError("the loader is attached already: call detach() first")
    if loader.batch_sampler is None:
        raise ValueError("the loader makes no batches (batch_size=None)")
    if loader.batch_size == 1 and not allow_single:
        raise ValueError(
            "the loader gives single videos, as test loaders do; pass "
            "allow_single=True if it is a loader for training"
        )
    for name, value in vars(loader).items():
        if name == "_iterator":
            if value is not None and not _is_left_over(value):
                raise ValueError(
                    "the loader is running: attach before the first iter(loader)"
                )
        elif isinstance(value, _BaseDataLoaderIter):
            raise ValueError(
                f"the loader keeps an iterator (in .{name}) that it built before "
                "attach, which would give no pseudo video: attach to a plain "
                "DataLoader in its place, or wrap the datasets before it is made"
            )


def give_back(loader: DataLoader[Any]) -> None:
    """Make a loader again what it was; see `Attachment.detach`."""
    mixer = _mixer_of(loader)
    mixer.ledger.retire()
    loader.collate_fn = mixer.collate
    loader.__class__ = type(loader).__bases__[0]


def _is_left_over(iterator: Any) -> bool:
    """Tell whether an iterator is that of an attachment which was detached."""
    mixer = getattr(iterator, "_collate_fn", None)
    return isinstance(mixer, Mixer) and mixer.ledger.retired


def _attach_loader(loader: DataLoader[Any], mixer: Callable[[Any], Mixer]) -> None:
    """Put a mixer before the collate function; the class becomes one that counts.

    Dataset, sampler, generator, length and identity of the loader stay.
    """
    loader.collate_fn = made = mixer(loader.collate_fn)
    if getattr(loader, "_iterator", None) is not None and not made.passive:
        loader._iterator = None  # persistent workers that are left over
    host: type = type(loader)
    loader.__class__ = _counting(host)


def _mixer_of(loader: DataLoader[Any]) -> Mixer:
    mixer = loader.collate_fn
    if not isinstance(mixer, Mixer):
        raise RuntimeError("the loader's collate_fn was replaced after attach")
    return mixer


@functools.cache
def _counting(host: type) -> type:
    """Derive a loader's class to one that tells the mixer of each new iteration."""

    def __iter__(self: Any) -> Iterator[Any]:  # noqa: N807
        _mixer_of(self).next_epoch(workers_stay=self.persistent_workers)
        iterator: Iterator[Any] = host.__iter__(self)  # type: ignore[attr-defined]
        return iterator

    def _get_iterator(self: Any) -> Any:
        mixer = _mixer_of(self)
        # Of other datasets the items come in no order that a sampler tells.
        if mixer.passive or isinstance(self.dataset, IterableDataset):
            mixer.ledger.take()  # nobody tells what is: each iteration counts
            return host._get_iterator(self)  # type: ignore[attr-defined]
        with pending_items(self, mixer.ledger):
            iterator = host._get_iterator(self)  # type: ignore[attr-defined]
        if isinstance(iterator, _BaseDataLoaderIter):
            plain: type = type(iterator)
            iterator.__class__ = _taking(plain)
        else:
            mixer.ledger.take()
        return iterator

    def __reduce_ex__(self: Any, protocol: Any) -> tuple[Any, ...]:  # noqa: N807
        # A copy, here or in another process, has counters and workers of its own.
        mixer = _mixer_of(self)
        state: Any = object.__reduce_ex__(self, 2)[2]
        own = {**state, "collate_fn": mixer.without_ledger(), "_iterator": None}
        datasets = [survey.dataset for survey in mixer.surveys]
        return _blank, (host,), (own, mixer.ledger.rows(), datasets)

    def __setstate__(self: Any, state: Any) -> None:  # noqa: N807
        own, rows, datasets = state
        if hasattr(host, "__setstate__"):
            host.__setstate__(self, own)
        else:
            vars(self).update(own)
        self.collate_fn.ledger = Ledger.of(rows)
        for survey, dataset in zip(self.collate_fn.surveys, datasets, strict=True):
            survey.dataset = dataset

    own = (__iter__, _get_iterator, __reduce_ex__, __setstate__)
    return type(host.__name__, (host,), {method.__name__: method for method in own})


def _blank(host: type) -> Any:
    """Make an attached loader without content, for what is copied or unpickled."""
    made = _counting(host)
    return object.__new__(made)


@functools.cache
def _taking(host: type) -> type:
    """Derive an iterator's class to one that counts the batches which the host takes.

    Worker processes make more than these: they work ahead.
    """

    def __next__(self: Any) -> Any:  # noqa: N807
        batch = host.__next__(self)  # type: ignore[attr-defined]
        self._collate_fn.ledger.take()
        return batch

    return type(host.__name__, (host,), {"__next__": __next__})
