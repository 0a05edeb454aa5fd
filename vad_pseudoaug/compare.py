"""Does it help? Paired runs of hosts with and without more videos.

A run is a seed, an arm and a host. With one seed, all arms have the same split, the
same initial weights and the same order of the data. Every run is a file of its own, so
an interrupted comparison goes on where it stopped, and arms and seeds may be added.
Arms that learn the same of a seed's videos are made one after the other, and it is
learned once.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import json
import math
import multiprocessing
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset

from .arms import Arm, Extra, Training, make_extra, what_it_learns
from .auto import fit_batch
from .baseline import Baseline, Score
from .checkpoint import atomic_path, claim_folder, write_json
from .metrics import FrameFigures, frame_figures
from .protocol import Data, Split
from .readers import read_npy
from .recipe import Recipe
from .videos import as_pair
from .writing import read_json

Watch: TypeAlias = "Callable[[Score], None] | None"
Host: TypeAlias = Callable[..., Score]
RTFM_STEPS = 500


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        data: The videos.
        arms: Ways to make more videos; the first is what others are compared with.
        hosts: Names in `HOSTS`, or `MODULE:FUNCTION`, see `find_host`.
        num_seeds: Number of paired runs.
        choices: Choices of the recipe for all arms.
        first_seed: Seeds count from it: other ones to choose by than to show.
    """

    data: Data
    arms: Sequence[Arm]
    hosts: Sequence[str] = ("mlp", "rtfm")
    num_seeds: int = 10
    choices: Mapping[str, Any] = field(default_factory=dict)
    first_seed: int = 0

    def __post_init__(self) -> None:
        if self.num_seeds < 2:
            raise ValueError(f"num_seeds: expected at least 2, got {self.num_seeds}")
        for what, names in (
            ("arms", [arm.name for arm in self.arms]),
            ("hosts", list(self.hosts)),
        ):
            if not names or len(set(map(_file_name, names))) < len(names):
                raise ValueError(
                    f"{what}: expected different names, which are so as names of files "
                    f"too, got {', '.join(names)}"
                )
        if "per_video" in self.choices:
            raise ValueError(
                "per_video: each arm has its own, as of NAME=KIND:per_video=1"
            )
        for host in self.hosts:
            find_host(host)
        Recipe.check(self.choices)
        for arm in self.arms:
            _ = self.whole(arm).recipe  # it raises if they do not go together

    def whole(self, arm: Arm) -> Arm:
        """Return an arm with all of its choices."""
        return arm.beside(self.choices)

    @property
    def seeds(self) -> range:
        """The seed of each paired run."""
        return range(self.first_seed, self.first_seed + self.num_seeds)


@dataclass(frozen=True)
class Run:
    """What one run gave.

    Attributes:
        host: Name of the host.
        arm: Name of the arm.
        seed: Its seed.
        figures: Of the last checkpoint.
        best_on_test: Highest frame-level AUC of some checkpoints on the test videos,
            an optimistic figure that the field often reports; None if the host shows
            no checkpoints.
        num_extra: Videos added to the normal and to the abnormal ones.
        seconds: How long the host trained.
        scores: Of the test snippets, for each test video `(T,)`.
    """

    host: str
    arm: str
    seed: int
    figures: FrameFigures
    best_on_test: float | None
    num_extra: tuple[int, int]
    seconds: float
    scores: Sequence[NDArray[np.float32]]


def train_mlp(normal: Any, abnormal: Any, seed: int, watch: Watch = None) -> Score:
    """Train the paper's baseline (section 3.1)."""

    def as_score(model: Baseline) -> Score:
        return lambda features: model.score([features])[0]

    model = Baseline.fit(
        normal,
        abnormal,
        validation_share=0,
        seed=seed,
        progress=False,
        watch=None if watch is None else lambda model: watch(as_score(model)),
    )
    return as_score(model)


def train_rtfm(
    normal: Any, abnormal: Any, seed: int, batch_size: int, watch: Watch = None
) -> Score:
    """Train the RTFM-style example."""
    from vad_pseudoaug.examples import rtfm_style

    options = {"steps": RTFM_STEPS, "batch_size": batch_size}
    return _train_example(rtfm_style, normal, abnormal, seed, watch, **options)


def train_mil(normal: Any, abnormal: Any, seed: int, watch: Watch = None) -> Score:
    """Train the MIL-style example."""
    from vad_pseudoaug.examples import mil_style

    return _train_example(mil_style, normal, abnormal, seed, watch)


def _train_example(
    host: Any, normal: Any, abnormal: Any, seed: int, watch: Watch, **options: Any
) -> Score:
    def as_score(model: Any) -> Score:
        def score(features: Any) -> Any:
            training = model.training
            scores = host.score(model.eval(), features)
            model.train(training)
            return scores

        return score

    watched = None if watch is None else lambda model: watch(as_score(model))
    model = host.train(normal, abnormal, seed=seed, watch=watched, **options)
    return as_score(model)


HOSTS: Mapping[str, Host] = {"mlp": train_mlp, "rtfm": train_rtfm, "mil": train_mil}


def find_host(name: str) -> Host:
    """Find a host by its name.

    Args:
        name: One of `HOSTS`, or `MODULE:FUNCTION` of a function `train(normal,
            abnormal, seed)` that takes two sequences of videos `(N, T, D)` and returns
            a score function, from `(N, T, D)` to `(T,)`. If it has a keyword `watch`,
            it may call that with the score function of a checkpoint; if it has one
            `batch_size`, it is given 32 or, where there are fewer, the number of real
            videos of the smaller class, the same in all arms.

    Raises:
        ValueError: If there is none.
    """
    if name in HOSTS:
        return HOSTS[name]
    module, _, function = name.partition(":")
    if not function:
        raise ValueError(
            f"unknown host {name!r}; there is {', '.join(HOSTS)}, or MODULE:FUNCTION"
        )
    try:
        host: Host = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"host {name!r}: {error}") from error
    return host


def run_comparison(
    comparison: Comparison,
    folder: str | os.PathLike[str],
    *,
    processes: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> list[Run]:
    """Do all runs that are not done yet.

    Args:
        comparison: What is compared.
        folder: Where results are kept: `runs/HOST/ARM/SEED.json` and `.npy`.
        processes: Number of processes.
        say: Gets a line after each arm of each seed, or some that learn the same, with
            the time left.

    Returns:
        All runs, those that were done before included.

    Raises:
        ValueError: If the folder holds another comparison, of other videos or by
            another version, data or arms are not usable, or there are no processes.
    """
    folder = Path(folder)
    if processes < 1:
        raise ValueError(f"processes: expected at least 1, got {processes}")
    split = comparison.data.split(comparison.first_seed)
    trained, tested = split.counts[:2], split.counts[2:]
    say(
        f"{trained[0]} normal and {trained[1]} abnormal videos to train, "
        f"{tested[0]} and {tested[1]} to test, {sum(map(len, split.labels))} frames"
    )
    if comparison.first_seed:  # any, but the same whatever seeds are added
        split = comparison.data.split(0)
    data = asdict(comparison.data)
    del data["paths"]  # what is there counts: the digest below
    record = {
        "data": data,
        "choices": dict(comparison.choices),
        "rtfm_steps": RTFM_STEPS,
        # Runs of files that were made anew are not to stand beside those of before.
        "content": split.digest(),
        "library_version": metadata.version("vad-pseudoaug"),
    }
    claim_folder(folder, "compare.json", record)
    jobs = _open_jobs(comparison, folder)
    done, total = 0, sum(len(job.arms) for job in jobs)
    started = time.monotonic()
    for job in _work(jobs, processes):
        done += len(job.arms)
        left = (time.monotonic() - started) / done * (total - done)
        names = ", ".join(arm.name for arm, _ in job.arms)
        say(f"{done} of {total}: seed {job.seed}, {names}; {time_text(left)} left")
    return load_runs(comparison, folder)


def time_text(seconds: float) -> str:
    """Say a time in words.

    Example:
        >>> [time_text(seconds) for seconds in (41.7, 600, 9000)]
        ['42 s', '10 min', '2.5 h']
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Job(NamedTuple):
    """Arms of a seed that learn the same, each with the hosts to train.

    Attributes:
        comparison: What is compared.
        folder: Where results are kept.
        seed: Of the runs.
        arms: The arms, and for each the names of the hosts.
    """

    comparison: Comparison
    folder: Path
    seed: int
    arms: Sequence[tuple[Arm, Sequence[str]]]


def _open_jobs(comparison: Comparison, folder: Path) -> list[_Job]:
    """List what is not done: of each seed, the arms that learn the same together."""
    jobs = []
    for seed in comparison.seeds:
        groups: dict[Hashable, list[tuple[Arm, list[str]]]] = {}
        for arm in comparison.arms:
            hosts = [
                host
                for host in comparison.hosts
                if not _is_done(folder, host, arm, seed)
            ]
            if hosts:
                key = what_it_learns(comparison.whole(arm))
                groups.setdefault(key, []).append((arm, hosts))
        jobs += [_Job(comparison, folder, seed, arms) for arms in groups.values()]
    return jobs


def _work(jobs: Sequence[_Job], processes: int) -> Iterator[_Job]:
    if processes == 1:
        for job in jobs:
            _do(job)
            yield job
        return
    threads = max(1, torch.get_num_threads() // processes)
    # Spawned: a forked process would share torch's threads.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        processes, context, initializer=_start_worker, initargs=(threads,)
    ) as pool:
        futures = {pool.submit(_do, job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(threads: int) -> None:
    """Share the cores, and end with the process that gives out the work."""
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # Else a worker whose parent was killed would go on to the end of its job.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(job: _Job) -> None:
    """Learn once, make the videos of each arm, and train the hosts on them."""
    split = job.comparison.data.split(job.seed)
    normal, abnormal = as_pair(split.normal, split.abnormal)
    first, _ = job.arms[0]
    training = Training(
        normal,
        abnormal,
        recipe=job.comparison.whole(first).recipe,
        seed=job.seed,
        progress=False,
        hosts={
            host: functools.partial(call_host, host)
            for _, hosts in job.arms
            for host in hosts
        },
    )
    for arm, hosts in job.arms:
        whole = job.comparison.whole(arm)
        groups = [[host] for host in hosts] if arm.tries_hosts else [hosts]
        for group in groups:
            training.host = group[0]
            with warnings.catch_warnings():
                # Said once for each arm and seed, of videos without a selected snippet.
                warnings.filterwarnings("ignore", message=".* have no snippet that")
                extra = make_extra(whole, training)
            reason = training.choice(whole).reason if arm.tries_hosts else None
            for host in group:
                _train(job, split, (normal, abnormal), extra, host, arm, reason)


def call_host(
    name: str,
    normal: Any,
    abnormal: Any,
    seed: int,
    *,
    batch_size: int,
    watch: Watch = None,
) -> Score:
    """Train a host, by its name, with what it has keywords for."""
    train = find_host(name)
    offered = {"watch": watch, "batch_size": batch_size}
    taken = inspect.signature(train).parameters
    options = {name: value for name, value in offered.items() if name in taken}
    return train(normal, abnormal, seed, **options)


def _train(
    job: _Job,
    split: Split,
    videos: tuple[Any, Any],
    extra: Extra,
    host: str,
    arm: Arm,
    reason: str | None,
) -> None:
    checkpoints: list[float] = []

    def watch(score: Score) -> None:
        checkpoints.append(split.evaluate(score).auc)

    more = [
        ConcatDataset([real, made]) if len(made) else real  # type: ignore[list-item]
        for real, made in zip(videos, extra, strict=True)
    ]
    started = time.monotonic()
    score = call_host(
        host,
        more[0],
        more[1],
        job.seed,
        batch_size=fit_batch(*videos),
        watch=watch,
    )
    seconds = time.monotonic() - started
    scores = split.snippet_scores(score)
    figures = frame_figures(split.labels, split.to_frames(scores))
    path = _path(job.folder, host, arm, job.seed)
    with atomic_path(path.with_suffix(".npy")) as temporary:
        np.save(temporary, np.concatenate(scores), allow_pickle=False)
    # Last: where this file is, the run is whole.
    write_json(
        path,
        {
            "arm": _arm_record(arm),
            "figures": {
                name: value if math.isfinite(value) else None  # JSON has no NaN
                for name, value in figures._asdict().items()
            },
            "best_on_test": max([*checkpoints, figures.auc]) if checkpoints else None,
            "num_extra": [len(extra.normal), len(extra.abnormal)],
            "reason": reason,  # of so many, where the arm chose
            "seconds": seconds,
        },
    )


def load_runs(comparison: Comparison, folder: str | os.PathLike[str]) -> list[Run]:
    """Read the runs of a comparison that are done."""
    runs = []
    for seed in comparison.seeds:
        lengths = [v.features.shape[1] for v in comparison.data.split(seed).test]
        for host, arm in itertools.product(comparison.hosts, comparison.arms):
            if not _is_done(Path(folder), host, arm, seed):
                continue
            path = _path(Path(folder), host, arm, seed)
            with _naming(path):
                runs.append(_read_run(path, (host, arm.name, seed), lengths))
    return runs


def _read_run(path: Path, key: tuple[str, str, int], lengths: Sequence[int]) -> Run:
    found = read_json(path)
    scores = read_npy(path.with_suffix(".npy"), None)
    if scores.dtype != np.float32 or scores.shape != (sum(lengths),):
        raise ValueError(f"the scores are {scores.dtype} {scores.shape}")
    figures = {
        name: math.nan if value is None else value
        for name, value in found["figures"].items()
    }
    return Run(
        *key,
        FrameFigures(**figures),
        found["best_on_test"],
        tuple(found["num_extra"]),
        found["seconds"],
        np.split(np.array(scores), np.cumsum(lengths)[:-1]),
    )


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file of a run in whatever is wrong with it."""
    try:
        yield
    except (LookupError, OSError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path}: not readable as the result of a run: {error}; delete it to do "
            "that run again"
        ) from error


def _is_done(folder: Path, host: str, arm: Arm, seed: int) -> bool:
    path = _path(folder, host, arm, seed)
    if not path.exists():
        return False
    with _naming(path):
        found = read_json(path)["arm"]
    if found != json.loads(json.dumps(_arm_record(arm))):
        raise ValueError(f"{path}: the arm {arm.name!r} was another one: {found}")
    return True


def _arm_record(arm: Arm) -> dict[str, Any]:
    return {"kind": arm.kind, "per_video": arm.per_video, **arm.choices}


def _path(folder: Path, host: str, arm: Arm, seed: int) -> Path:
    names = map(_file_name, (host, arm.name))
    return folder.joinpath("runs", *names, f"{seed:03d}.json")


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
