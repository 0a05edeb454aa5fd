"""A pool of ready pseudo videos in files, cheaper to read than to make.

Each entry is a function of its key alone: seed, class, source, variant and, where the
pool is refreshed, round. So an entry is the same whether it is read or made anew, by
whichever process: what the pool holds decides about time, never about a result.
"""

from __future__ import annotations

import functools
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Subset

from .checkpoint import claim_folder
from .deferred import Survey
from .entries import Entry, has_entry, read_entry, write_entry
from .filling import SharedFolder, has_room, plan_pool, run_all, temporary_folder
from .items import ItemFormat
from .mixing import Made, Mixing, PseudoVideoMaker
from .randomness import make_generator
from .repeatable import one_thread, seeded_global_rng
from .untouched import left_as_it_was, lists_of_paths, parts_of
from .vae import CLASS_NAMES

logger = logging.getLogger("vad_pseudoaug")


class Pool:
    """Pseudo videos that are made once and then read.

    Processes share it by its folder: they may fill it at the same time, for a file is
    put in its place whole, and all would write the same. Pickled, it is a path.

    Attributes:
        plan: How much it holds.
        surveys: Of the loaders' datasets.

    Args:
        maker: Makes the pseudo videos.
        mixing: Its `seed`, and the options of the pool.
        labels: The classes that are made.
        surveys: Of the loaders' datasets: they learn from what is read here.

    Raises:
        ValueError: If the folder given holds a pool of other videos or choices.
    """

    def __init__(
        self,
        maker: PseudoVideoMaker,
        mixing: Mixing,
        *,
        labels: Collection[int],
        surveys: Sequence[Survey],
    ):
        self._maker = maker
        self._seed = mixing.seed
        self._refresh = mixing.refresh_every
        self._half = mixing.pool_dtype == "float16"
        self._given = None if mixing.pool == "auto" else mixing.pool
        self.surveys = surveys
        self._folder: Path | None = None
        self._opened = self._filled = self._full = False
        self._offsets: dict[int, int] = {}  # number of a class's first entry
        self._num_sources = largest = 0
        firsts: dict[str, Any] = {}
        for label in sorted(labels):
            sources = maker.sources[label]
            with seeded_global_rng(self._seed, label):
                item = sources.item(0)
            features, item_format = sources.features_of(item, 0)
            self._offsets[label] = self._num_sources
            self._num_sources += len(sources)
            num_crops, _, feature_dim = features.shape
            size = num_crops * item_format.segments(item) * feature_dim
            largest = max(largest, size)
            firsts[CLASS_NAMES[label]] = {
                "sources": len(sources),
                "format": repr(item_format),
                "first": [*features.shape, features.double().mean().item()],
            }
        entry_bytes = largest * (2 if self._half else 4)
        self.plan = plan_pool(self._num_sources, entry_bytes, mixing.pool_bytes)
        self._firsts = firsts
        if self._given is not None:
            claim_folder(self._given, "pool.json", self._record())
            self._folder = Path(self._given)

    def _record(self) -> dict[str, Any]:
        """Return what the entries depend on."""
        return {
            "model": self._maker.sampler.fingerprint(),
            "seed": self._seed,
            "variants": self.plan.variants,
            "dtype": "float16" if self._half else "float32",
            "refresh_every": self._refresh,
            "sources": self._firsts,
            "items": self._items(),
        }

    def _items(self) -> str:
        """Tell other items of the same number and the same first one, unless read.

        By their numbers in their dataset, and by the paths that it has in a list.
        """
        digest = sha256()
        for sources in self._maker.sources.values():
            digest.update(repr(list(sources.indices)).encode())
            for part in parts_of(sources.dataset):
                if isinstance(part, Subset):
                    digest.update(repr(list(part.indices)).encode())
                for rows in lists_of_paths(part):
                    digest.update(repr([os.fspath(row) for row in rows]).encode())
        return digest.hexdigest()[:16]

    def share(self, folder: SharedFolder) -> None:
        """Go on, where no folder was given, with the entries of a pool of the same."""
        if self._given is None:
            self._folder = folder.claim(self._record())

    def take(self, label: int, number: int, variant: int, epoch: int) -> Made:
        """Return the pseudo video of a key: read where it is stored, else made.

        Args:
            label: 0 normal or 1 abnormal.
            number: Number of the source.
            variant: Which of the source's pseudo videos.
            epoch: The loader's; decides about the round where the pool is refreshed.
        """
        turn = self._turn(label, number, variant, epoch)
        path = self._path(label, number, variant)
        entry = None if path is None else read_entry(path, turn)
        if entry is None:
            source = self._read_source(label, number, turn)
            entry = self._make(source, label, number, variant, turn)
            self._store(path, entry, turn)
        return entry.unpack()

    def open(self) -> None:
        """Choose the folder; worker processes that start from now on know it."""
        # A copy's folder may have gone with the pool that it was copied from.
        lost = self._given is None and not (self._folder and self._folder.exists())
        if self._opened and not lost:
            return
        if lost:
            self._folder = temporary_folder(self)
        assert self._folder is not None
        self._full = not has_room(self._folder, self.plan)
        self._opened, self._filled = True, False

    def fill(self, epoch: int) -> None:
        """Make all entries that are to be stored and are not there yet, once."""
        self.open()
        if self._filled:
            return
        self._filled = True
        sources = [
            (label, number)
            for label in self._offsets
            for number in range(len(self._maker.sources[label]))
        ]
        jobs = (self._jobs(label, number, epoch) for label, number in sources)
        start = time.perf_counter()
        read = [sources.dataset for sources in self._maker.sources.values()]
        with left_as_it_was(*read, *(survey.dataset for survey in self.surveys)):
            run_all(jobs, len(sources), "pool of pseudo videos")
            for survey in self.surveys:
                survey.finish(self._seed)
        seconds = time.perf_counter() - start
        plan, size = self.plan, self.plan.capacity * self.plan.entry_bytes / 1e6
        logger.info(
            "pool: %d pseudo videos, up to %.0f MB, ready after %.1f s in %s",
            *(plan.capacity, size, seconds, self._folder),
        )
        if plan.capacity < plan.num_entries:
            logger.info(
                "pool: %d more are made whenever they are drawn; pool_bytes=%d would "
                "hold all",
                plan.num_entries - plan.capacity,
                plan.num_entries * plan.entry_bytes,
            )

    def close(self) -> None:
        """Remove a temporary folder; one that was given stays."""
        if self._folder is not None and self._given is None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _jobs(
        self, label: int, number: int, epoch: int
    ) -> Iterator[Callable[[], None]]:
        """Read a source, and give what makes each entry of it that is missing."""
        source = None
        for variant in range(self.plan.variants):
            turn = self._turn(label, number, variant, epoch)
            path = self._path(label, number, variant)
            if path is not None and not has_entry(path, turn):
                if source is None or self._refresh:
                    source = self._read_source(label, number, turn)
                yield functools.partial(
                    self._make_stored, path, source, label, number, variant, turn
                )

    def _make_stored(self, path: Path, *key: Any) -> None:
        if not self._full:
            self._store(path, self._make(*key), key[-1])

    def _slot(self, label: int, number: int, variant: int) -> int:
        return variant * self._num_sources + self._offsets[label] + number

    def _turn(self, label: int, number: int, variant: int, epoch: int) -> int:
        """Return the round of an entry: a part of them is new each epoch, not all."""
        if not self._refresh:
            return 0
        return (epoch + self._slot(label, number, variant)) // self._refresh

    def _path(self, label: int, number: int, variant: int) -> Path | None:
        if self._slot(label, number, variant) >= self.plan.capacity:
            return None
        if self._folder is None:
            return None
        return self._folder / f"{CLASS_NAMES[label]}-{number:06d}-{variant}"

    def _read_source(
        self, label: int, number: int, turn: int
    ) -> tuple[Tensor, ItemFormat]:
        sources = self._maker.sources[label]
        dataset = sources.dataset
        with (
            seeded_global_rng(self._seed, label, number, turn),
            left_as_it_was(dataset),
        ):
            for survey in self.surveys:
                if survey.dataset is dataset:
                    item = survey.load(sources.indices[number])
                    return sources.features_of(item, number)
            return sources.read(number)

    def _make(
        self,
        source: tuple[Tensor, ItemFormat],
        label: int,
        number: int,
        variant: int,
        turn: int,
    ) -> Entry:
        generator = make_generator(self._seed, label, number, variant, turn)
        with one_thread():
            made = self._maker.translate(*source, label, generator)
        return Entry.pack(made, half=self._half, norm_channel=source[1].norm_channel)

    def _store(self, path: Path | None, entry: Entry, turn: int) -> None:
        if path is None or self._full:
            return
        try:
            write_entry(path, entry, turn, keep=self._given is not None)
        except OSError as error:
            logger.warning(
                "pool: %s; pseudo videos are made whenever they are drawn", error
            )
            self._full = True
