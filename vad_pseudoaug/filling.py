"""How much a pool holds, where it is, and filling it with all cores."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch

from .extras import PATIENCE, progress_bar
from .repeatable import one_thread

logger = logging.getLogger("vad_pseudoaug")

# The paper makes two pseudo videos of each real one.
MAX_VARIANTS = 2
MAX_THREADS = 8


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


def disk_folder() -> str | None:
    """Return where to put large temporary files; None is where Python puts them.

    Where the user named no place, /var/tmp is taken: /tmp is memory on many systems.
    """
    named = any(os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    disk = "/var/tmp"
    return None if named or not os.access(disk, os.W_OK) else disk


def temporary_folder(owner: object) -> Path:
    """Make a folder that goes with an object, or else with this process."""
    folder = Path(tempfile.mkdtemp(prefix="vad-pseudoaug-", dir=disk_folder()))
    weakref.finalize(owner, _remove, folder, os.getpid())
    return folder


class SharedFolder:
    """A temporary folder for pools that come one after the other: the like share it.

    Attributes:
        path: Where it is; None until a pool asked for it.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._record: object = None

    def claim(self, record: object) -> Path:
        """Return the folder for pools of this record, a new one if it is another."""
        if self.path is None or record != self._record:
            self.remove()
            self.path, self._record = temporary_folder(self), record
        return self.path

    def remove(self) -> None:
        """Remove it; pools that are still in use take one of their own."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            self.path = None


def _remove(folder: Path, owner: int) -> None:
    # A forked worker that drops its copy must not take the folder from the others.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def has_room(folder: Path, plan: Plan) -> bool:
    """Tell whether the disk holds a pool and as much again, for the host's own files.

    A folder that has all its entries needs none.
    """
    needed = plan.capacity * plan.entry_bytes
    free = shutil.disk_usage(folder).free
    if free >= 2 * needed or sum(1 for _ in folder.iterdir()) >= plan.capacity:
        return True
    logger.warning(
        "pool: %d MB are free in %s, twice %d MB are needed; pseudo videos are made "
        "whenever they are drawn",
        free // 10**6,
        folder,
        needed // 10**6,
    )
    return False


def run_all(
    groups: Iterable[Iterable[Callable[[], None]]], total: int, title: str
) -> None:
    """Run jobs in as many threads as torch has, each with products of one thread.

    Args:
        groups: Jobs, in groups. They are taken one after the other by the thread that
            calls, so that a host's dataset may be read on the way, which need not bear
            threads.
        total: Number of groups.
        title: What is shown as the progress.
    """
    start, step = time.perf_counter(), None
    threads = min(torch.get_num_threads(), MAX_THREADS)
    with ExitStack() as stack:
        stack.enter_context(one_thread())
        workers = stack.enter_context(ThreadPoolExecutor(threads))
        running: deque[Future[None]] = deque()
        for done, group in enumerate(groups, start=1):
            running.extend(workers.submit(job) for job in group)
            while len(running) > threads:
                running.popleft().result()
            if step is not None:
                step()
            elif time.perf_counter() - start > PATIENCE:
                logger.info("%s: %d of %d done", title, done, total)
                bar = progress_bar(total - done, title, show=None, delay=0)
                step = stack.enter_context(bar)
        for future in running:
            future.result()
