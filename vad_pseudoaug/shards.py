"""Work on many videos, cut into shards that any number of processes share."""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from .writing import atomic_path, check_claim, claim_folder, write_json

# Small enough that little is lost by an interruption and that all of a shard's videos
# fit in memory; part of the output's names, so the same for any number of processes.
SHARD_VIDEOS = 8
RECORDS = "shards"  # folder of the records of finished shards
MASKS = "masks"  # folder of the masks: all files beside it hold features
MANIFEST = "manifest.json"


class Stream(NamedTuple):
    """An array that comes in parts along its first axis.

    Attributes:
        shape: Of the whole.
        dtype: Of the whole.
        parts: Arrays, in memory one at a time.
    """

    shape: tuple[int, ...]
    dtype: str
    parts: Iterable[NDArray[Any]]


class Job(NamedTuple):
    """A video to write.

    Attributes:
        label: Its class.
        number: Its number among those of its class.
        source: Number of its source.
        title: What the source is called.
        stem: Its name, relative to the folder and without an ending.
    """

    label: int
    number: int
    source: int
    title: str
    stem: str


class Shard(NamedTuple):
    """Some videos of a class, which one process writes.

    Attributes:
        number: Its number among all shards.
        first: Its number among those of its class.
        jobs: Its videos.
        file_format: "npy", one file a video, or "safetensors", one for all.
    """

    number: int
    first: int
    jobs: Sequence[Job]
    file_format: str

    def file(self, job: Job) -> str:
        """Return the file that a video is in, relative to the folder."""
        if self.file_format == "npy":
            return f"{job.stem}.npy"
        return f"{job.stem.partition('/')[0]}/{self.first:05d}.safetensors"

    def record(self, folder: Path) -> dict[str, Any] | None:
        """Return size and checksum of each file; None if the shard is not finished."""
        path = folder / RECORDS / f"{self.number:05d}.json"
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            is_one = all(type(facts["bytes"]) is int for facts in record.values())
        except (FileNotFoundError, ValueError, AttributeError, LookupError, TypeError):
            return None
        return record if is_one else None

    def finished(self, folder: Path) -> bool:
        """Whether all files are there, in the size that they were written in."""
        record = self.record(folder)
        if record is None:
            return False
        for name, facts in record.items():
            file = folder / name
            if not file.is_file() or file.stat().st_size != facts["bytes"]:
                return False
        return True

    def write(
        self, folder: Path, videos: Iterable[tuple[Stream, NDArray[Any]]]
    ) -> None:
        """Write the files, then the record that they are whole.

        A "npy" is written as its parts come; a "safetensors" is put together first.

        Args:
            folder: Where.
            videos: Features and mask of each job, in their order.
        """
        record: dict[str, Any] = {}
        together: dict[str, Any] = {}
        for job, (features, mask) in zip(self.jobs, videos, strict=True):
            if self.file_format == "npy":
                # The mask first: a video is never there without its mask.
                whole = Stream(mask.shape, str(mask.dtype), [mask])
                for name, stream in (
                    (f"{MASKS}/{job.stem}.npy", whole),
                    (f"{job.stem}.npy", features),
                ):
                    record[name] = _write(folder / name, _npy(stream))
            else:
                name = job.stem.partition("/")[2]
                together[name] = np.concatenate(list(features.parts))
                together[f"{name}.mask"] = mask
        if together:
            name = self.file(self.jobs[0])
            record[name] = _write(folder / name, [save(together)])
        write_json(folder / RECORDS / f"{self.number:05d}.json", record)


def cut(jobs: Sequence[Job], file_format: str) -> list[Shard]:
    """Cut the videos into shards, each of one class."""
    shards: list[Shard] = []
    for label in sorted({job.label for job in jobs}):
        own = [job for job in jobs if job.label == label]
        for first, start in enumerate(range(0, len(own), SHARD_VIDEOS)):
            group = own[start : start + SHARD_VIDEOS]
            shards.append(Shard(len(shards), first, group, file_format))
    return shards


def find_rank(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """Return number of this process and of all, from what torchrun sets or from 0, 1.

    Raises:
        ValueError: If they do not fit.
    """
    found = []
    for given, name, default in ((rank, "RANK", 0), (world_size, "WORLD_SIZE", 1)):
        text = os.environ.get(name, str(default)) if given is None else str(given)
        try:
            found.append(int(text))
        except ValueError:
            raise ValueError(f"{name}: expected a whole number, got {text!r}") from None
    if not 0 <= found[0] < found[1]:
        raise ValueError(
            f"rank and world_size: expected 0 <= rank < world_size, got {found[0]} and "
            f"{found[1]}"
        )
    return found[0], found[1]


def claim(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest.json`, or make sure that the folder is for the same.

    Of several processes at once, one writes it and the others compare.

    Raises:
        ValueError: If the folder is for something else.
    """
    if check_claim(folder, MANIFEST, manifest):
        return
    own = folder / f".manifest-{os.getpid()}-{uuid.uuid4().hex}.json"
    write_json(own, manifest)
    try:
        os.link(own, folder / MANIFEST)  # refused where another process was faster
    except OSError:  # so it is, too, on a file system without links
        pass
    finally:
        own.unlink()
    claim_folder(folder, MANIFEST, manifest)


def write_checksums(folder: Path, shards: Sequence[Shard]) -> None:
    """Write size and SHA-256 of all files to `checksums.json`."""
    merged: dict[str, Any] = {}
    for shard in shards:
        merged.update(shard.record(folder) or {})
    write_json(folder / "checksums.json", merged)


def _npy(stream: Stream) -> Iterator[bytes]:
    """Give the bytes that `np.save` would write."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header,
        {
            "descr": np.lib.format.dtype_to_descr(np.dtype(stream.dtype)),
            "fortran_order": False,
            "shape": stream.shape,
        },
    )
    yield header.getvalue()
    for part in stream.parts:
        yield np.ascontiguousarray(part).tobytes()


def _write(path: Path, data: Iterable[bytes]) -> dict[str, Any]:
    num_bytes, digest = 0, hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for part in data:
            file.write(part)
            digest.update(part)
            num_bytes += len(part)
    return {"bytes": num_bytes, "sha256": digest.hexdigest()}
