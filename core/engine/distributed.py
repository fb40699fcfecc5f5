"""Processes that train together: rank, device, and the few collectives that the engine needs. One process needs none.

`torchrun` tells each process its place by environment variables; without them there is one process. The CPU speaks
gloo, CUDA nccl.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from core.engine.stop import Preempted
from core.errors import ConfigError, HalfseenError

T = TypeVar("T")
# How long a rank waits for the others, as while rank 0 reads a million headers. One that died is noticed at once.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class World:
    """One process's place among those that train together.

    Attributes:
        rank: 0 to size - 1; rank 0 alone writes and prints.
        size: processes.
        device: where this process computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True on rank 0."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Add a tensor over ranks, in place."""
        if self.size > 1:
            distributed.all_reduce(value)
        return value

    def interleave(self, value: Tensor) -> Tensor:
        """Join (..., B) of all ranks in the whole's order, of which rank r holds positions r, r + size, ..."""
        if self.size == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.size)]
        distributed.all_gather(parts, value.contiguous())
        return torch.stack(parts, dim=-1).flatten(-2)

    def on_main(self, act: Callable[[], T]) -> T:
        """Act on rank 0 and give every rank the result; a failure there is raised everywhere, so that nobody waits."""
        if self.size == 1:
            return act()
        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = act()
            except HalfseenError as error:
                box[1] = error
        distributed.broadcast_object_list(box, src=0, device=self.device)
        if box[1] is not None:
            raise box[1]
        result: T = box[0]
        return result

    def agree(self, name: str, value: str) -> None:
        """Check that all ranks hold the same text.

        Raises:
            ConfigError: they do not; the same on every rank.
        """
        if self.size == 1:
            return
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        if len(set(values)) > 1:
            seen = ", ".join(f"rank {rank}: {text}" for rank, text in enumerate(values))
            raise ConfigError(
                f"expected one {name} on all ranks, got {seen}: start every process with the same options."
            )


def pick_device(name: str, local_rank: int) -> torch.device:
    """Resolve `how.device`: `auto` is CUDA where there is a card; `cuda` is this process's own card.

    Raises:
        ConfigError: not a device, or one that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"option 'how.device': expected auto, cpu, cuda or cuda:N, got '{name}'.") from None
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"option 'how.device': expected auto, cpu, cuda or cuda:N, got '{name}'.")
    if device.type == "cpu":
        return torch.device("cpu")
    index = device.index if device.index is not None else local_rank
    if index >= torch.cuda.device_count():
        raise ConfigError(
            f"option 'how.device': expected a card that exists, got cuda:{index} where torch sees "
            f"{torch.cuda.device_count()}: use how.device=cpu, or start fewer processes."
        )
    return torch.device("cuda", index)


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Join the processes that `torchrun` started, or be alone; leaves the group on the way out, once all have come there.

    Not when the run was asked to stop: all is saved then, ranks end at slightly different moments, and taking a group
    apart while a peer is gone aborts the process, now and then, with another exit code. `stop.leave` ends it.

    Raises:
        ConfigError: the device does not exist.
    """
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = pick_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if size == 1:
        yield World(0, 1, place)
        return
    if place.type == "cuda":
        distributed.init_process_group("nccl", timeout=_PATIENCE, device_id=place)
    else:
        distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield World(rank, size, place)
    except Preempted:
        raise
    except BaseException:
        distributed.destroy_process_group()
        raise
    distributed.barrier()
    distributed.destroy_process_group()
