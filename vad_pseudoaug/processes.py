"""Processes that share a fit, as torchrun starts them: what they tell each other.

Gradients are added up by one exchange after the backward pass, and not by
`DistributedDataParallel`: a batch may be of one class, so that a decoder has no
gradient, and some process may have no row of it at all. Where no process has a gradient
a parameter stays untouched, as it does in a single process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import torch

# Before any group is made: its functions hold the group that there is when they are
# imported (by an optimiser, late), and one that is held to the end aborts the exit.
import torch.distributed.nn
from safetensors.torch import load, save
from torch import Tensor, distributed, nn
from torch.distributed import distributed_c10d
from torch.distributed.rendezvous import rendezvous

from .shards import find_rank

# The first process may score all videos while the others wait.
PATIENCE = timedelta(days=2)


class Processes:
    """The processes of a group that is there already.

    Args:
        group: Whose; None is all of `torch.distributed`.

    Attributes:
        rank: Number of this process. Only number 0 writes.
        count: Number of all.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None):
        self._group = group
        self.rank: int = distributed.get_rank(group)
        self.count: int = distributed.get_world_size(group)

    def total(self, own: Tensor) -> Tensor:
        """Add a tensor up over the processes; the gradient is that of the own part."""
        total: Tensor = _Total.apply(own, self._group)  # type: ignore[no-untyped-call]
        return total

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add gradients up over the processes, in place, to the same bits in each.

        Args:
            parameters: Of one dtype and device, the same in all processes. One without
                a gradient in every process keeps none.
        """
        own = list(parameters)
        parts = [
            (torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in own
        ]
        used = torch.tensor([p.grad is not None for p in own], device="cpu")
        flat = torch.cat([*parts, used.to(parts[0])])
        distributed.all_reduce(flat, group=self._group)
        *sums, used = flat.split([*(p.numel() for p in own), len(own)])
        for parameter, gradient, count in zip(own, sums, used.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if count else None

    def share(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors that the first process gives, on the CPU, in each."""
        data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        size = torch.tensor(len(data), device="cpu")
        distributed.broadcast(size, 0, group=self._group)
        if self.rank:
            data = bytes(int(size))
        flat = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        distributed.broadcast(flat, 0, group=self._group)
        return load(flat.numpy().tobytes())

    def wait(self) -> None:
        """Return once every process has come here."""
        distributed.barrier(group=self._group)


class Part(NamedTuple):
    """What a process's own rows of a batch are a part of.

    Attributes:
        counts: How many rows of the whole batch are normal and abnormal.
        processes: Who has the others.
    """

    counts: tuple[int, int]
    processes: Processes

    def total(self, own: Tensor) -> Tensor:
        """Add up what the processes have of their rows, see `Processes.total`."""
        return self.processes.total(own)


class _Total(torch.autograd.Function):
    """A sum over processes whose backward pass stays in the own process."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, group: Any) -> Tensor:
        total = own.clone()
        distributed.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


@contextmanager
def joined(device: str) -> Iterator[Processes | None]:
    """Join the processes that torchrun started; None where there is but one.

    Args:
        device: What they compute on: "cuda" exchanges by NCCL, others by gloo.
    """
    if find_rank(None, None)[1] < 2:
        yield None
        return
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
    # The store outlives a restart, and with it the addresses of processes that died:
    # who reads one of these connects to nobody, and may wait for ever.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    own = distributed_c10d.PrefixStore(f"attempt-{attempt}", store)
    distributed.init_process_group(
        backend, store=own, rank=rank, world_size=count, timeout=PATIENCE
    )
    processes = Processes()
    try:
        yield processes
        # Who leaves first would tear the connections of those who are still at it.
        processes.wait()
    finally:
        distributed.destroy_process_group()
