"""Sending a batch from one process to another: voxels stay where they were written, only the memory's handle travels.

The memory is anonymous (`memfd`), so neither the size of /dev/shm nor files that a killed process left behind matter.
Where the system has none, voxels are sent through the pipe.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle

import numpy as np

from datasets.batch import Packed, pack_or_pass
from datasets.sample import Failure, Sample

_HAS_MEMFD = hasattr(os, "memfd_create")
_AT_ONCE = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)  # all pages in one call, not one fault for each


class Shelf:
    """The memory of one batch that another process will map."""

    def __init__(self) -> None:
        self.handles: list[tuple[int, np.ndarray]] = []

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Give an array of undefined content; of its own memory, which can be sent."""
        size = max(1, int(np.prod(shape)) * dtype.itemsize)
        handle = os.memfd_create("halfseen")
        try:
            os.ftruncate(handle, size)
            array = _mapped(handle, shape, dtype.str, _AT_ONCE)
        except BaseException:
            os.close(handle)
            raise
        self.handles.append((handle, array))
        return array

    def take(self, array: np.ndarray) -> int:
        """Give the handle of an array."""
        return next(handle for handle, one in self.handles if one is array)

    def close(self) -> None:
        """Let go of the handles; memory lives on where it is mapped."""
        for handle, _ in self.handles:
            os.close(handle)
        self.handles.clear()


def send(pipe: Connection, samples: Sequence[Sample | Failure], receiver: int) -> None:
    """Pack a batch and send it, or the failure that is in it, to the process with the id `receiver`."""
    shelf = Shelf()
    try:
        packed = pack_or_pass(samples, allocate=shelf.allocate if _HAS_MEMFD else np.empty)
        if isinstance(packed, Failure) or not _HAS_MEMFD:
            pipe.send((packed, ()))
            return
        arrays = [packed.image] if packed.valid is None else [packed.image, packed.valid]
        none = np.empty(0, dtype=bool)
        light = replace(packed, image=none, valid=None)
        pipe.send((light, tuple((array.shape, array.dtype.str) for array in arrays)))
        for array in arrays:
            send_handle(pipe, shelf.take(array), receiver)
    finally:
        shelf.close()


def receive(pipe: Connection) -> Packed | Failure:
    """Take over what `send` sent.

    Raises:
        EOFError: the other process is gone.
        OSError: the same.
    """
    light, kinds = pipe.recv()
    packed: Packed | Failure = light
    arrays = []
    for shape, dtype in kinds:
        handle = recv_handle(pipe)
        try:
            arrays.append(_mapped(handle, shape, dtype, mmap.MAP_SHARED))
        finally:
            os.close(handle)
    if arrays and isinstance(packed, Packed):
        packed = replace(packed, image=arrays[0], valid=arrays[1] if len(arrays) > 1 else None)
    return packed


def _mapped(handle: int, shape: tuple[int, ...], dtype: str, flags: int) -> np.ndarray:
    size = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.frombuffer(mmap.mmap(handle, size, flags), dtype=dtype, count=int(np.prod(shape))).reshape(shape)
