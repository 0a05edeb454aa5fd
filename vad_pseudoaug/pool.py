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
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoint import claim_folder
from .deferred import Survey
from .entries import Entry, has_entry, read_entry, write_entry
from .extras import progress_bar
from .items import ItemFormat
from .mixing import Made, Mixing, PseudoVideoMaker
from .randomness import make_generator
from .repeatable import one_thread, seeded_global_rng
from .vae import ABNORMAL, NORMAL

logger = logging.getLogger("vad_pseudoaug")

NAMES = {NORMAL: "normal", ABNORMAL: "abnormal"}
# The paper makes two pseudo videos of each real one.
MAX_VARIANTS = 2
MAX_THREADS = 8
# After so many seconds, progress is shown.
PATIENCE = 2.0


class Plan(NamedTuple):
    """How much a pool holds: decided by the options and the videos alone.

    Attributes:
        variants: Pseudo videos of each source.
        capacity: Entries that are stored; further ones are made whenever asked for.
        num_entries: Entries that there are.
        entry_bytes: Size of one.
    """

    variants: int
    capacity: int
    num_entries: int
    entry_bytes: int


def plan_pool(num_sources: int, entry_bytes: int, max_bytes: int) -> Plan:
    """Choose as many variants, one or two, as the bytes are enough for.

    Example:
        >>> plan_pool(238, 2_621_440, 2**30)
        Plan(variants=1, capacity=238, num_entries=238, entry_bytes=2621440)
    """
    fitting = max_bytes // entry_bytes
    variants = min(max(fitting // num_sources, 1), MAX_VARIANTS)
    num_entries = num_sources * variants
    return Plan(variants, min(fitting, num_entries), num_entries, entry_bytes)


class Pool:
    """Pseudo videos that are made once and then read.

    Processes share it by its folder: they may fill it at the same time, for a file is
    put in its place whole, and all would write the same. Pickled, it is a path.

    Args:
        maker: Makes the pseudo videos.
        mixing: Its `seed`, and the options of the pool.
        labels: The classes that are made.
        surveys: Of the loaders' datasets: they learn from what is read here.
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
        self._surveys = surveys
        self._folder: Path | None = None
        self._filled = self._full = False
        self._offsets: dict[int, int] = {}  # number of a class's first entry
        self._record: dict[str, Any] = {}  # what the entries depend on
        self._num_sources = largest = 0
        for label in sorted(labels):
            count = len(maker.sources[label])
            features, item_format = self._read_source(label, 0, 0)
            self._offsets[label] = self._num_sources
            self._num_sources += count
            room = item_format.segments(maker.sources[label].item(0))
            num_crops, _, feature_dim = features.shape
            largest = max(largest, num_crops * room * feature_dim)
            self._record[f"class {label}"] = {
                "sources": count,
                "format": repr(item_format),
                "first": [*features.shape, features.double().mean().item()],
            }
        entry_bytes = largest * (2 if self._half else 4)
        self.plan = plan_pool(self._num_sources, entry_bytes, mixing.pool_bytes)
        self._record.update(
            model=maker.sampler.fingerprint(),
            seed=self._seed,
            variants=self.plan.variants,
            dtype=mixing.pool_dtype,
            refresh_every=self._refresh,
        )

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

    def fill(self, epoch: int) -> None:
        """Make all entries that are to be stored and are not there yet, once.

        Raises:
            ValueError: If the folder given holds a pool of other videos or choices.
        """
        if self._filled:
            return
        self._filled = True
        self._folder = self._open()
        sources = [
            (label, number)
            for label in self._offsets
            for number in range(len(self._maker.sources[label]))
        ]
        start, step = time.perf_counter(), None
        threads = min(torch.get_num_threads(), MAX_THREADS)
        with ExitStack() as stack:
            stack.enter_context(one_thread())
            makers = stack.enter_context(ThreadPoolExecutor(threads))
            running: deque[Future[None]] = deque()
            for done, (label, number) in enumerate(sources, start=1):
                # The host's dataset is read here alone: it may not bear threads.
                running.extend(
                    makers.submit(job) for job in self._jobs(label, number, epoch)
                )
                while len(running) > threads:
                    running.popleft().result()
                if step is not None:
                    step()
                elif time.perf_counter() - start > PATIENCE:
                    left = len(sources) - done
                    logger.info("pool: %d videos are still to be read", left)
                    title = "pool of pseudo videos"
                    step = stack.enter_context(progress_bar(left, title, show=None))
            for future in running:
                future.result()
        for survey in self._surveys:
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
        return self._folder / f"{NAMES[label]}-{number:06d}-{variant}"

    def _open(self) -> Path | None:
        if self._given is None:
            folder = Path(tempfile.mkdtemp(prefix="vad-pseudoaug-", dir=_temporary()))
            weakref.finalize(self, _remove, folder, os.getpid())
        else:
            folder = Path(self._given)
            claim_folder(folder, "pool.json", self._record)
        return folder

    def _read_source(
        self, label: int, number: int, turn: int
    ) -> tuple[Tensor, ItemFormat]:
        sources = self._maker.sources[label]
        with seeded_global_rng(self._seed, label, number, turn):
            for survey in self._surveys:
                if survey.dataset is sources.dataset:
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


def _remove(folder: Path, owner: int) -> None:
    # A forked worker that drops its copy must not take the folder from the others.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _temporary() -> str:
    """Choose where temporary folders are: where it is likely to be a disk, no RAM."""
    chosen = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    disk = "/var/tmp"
    if not chosen and os.access(disk, os.W_OK):
        return disk
    return tempfile.gettempdir()
