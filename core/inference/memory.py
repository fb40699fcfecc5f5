"""What a run will hold: the pipeline by arithmetic, the network by one look at an empty batch."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.bands import BandNames
from core.batch import Batch
from core.geometry import Spacing
from core.inference.scene import Scene, batch_of
from core.inference.windows import Windows

WAITING = 2  # batches of predictions that may wait for the blending thread
_RESIZING = 3 * 4 + 2  # bytes per value while a window is resized: float32 values, weighted, joined; and what is data


def memory_bytes(
    windows: Windows, *, bands: int, itemsize: int, values: int, batch_size: int, readers: int = 1
) -> dict[str, int]:
    """Say what `predict_windows` holds at most, by purpose, in bytes; the sum is the peak, without the network's own.

    Args:
        windows: how the image is covered.
        bands: C.
        itemsize: bytes of a raw value.
        values: K.
        batch_size: windows per batch.
        readers: threads that read.
    """
    window, voxels = math.prod(windows.window) * bands, batch_size * math.prod(windows.shown) * bands
    resized = 0 if windows.seen is None else readers * window * (2 * (itemsize + 1) + _RESIZING)
    given = math.prod(windows.values)
    strip = windows.values[0] * math.prod(windows.padded_result[1:])
    return {
        # `readers + 1` batches ahead and the one at work, raw values (float32 where they are resized) and valid; and a
        # window on its way into each, with what it takes to resize it
        "windows read ahead": (readers + 2) * voxels * ((4 if windows.seen else itemsize) + 1)
        + readers * window * (itemsize + 1)
        + resized,
        # waiting, at work, and just predicted; a window's difference and product while it is blended
        "predictions that wait": (WAITING + 2) * batch_size * given * (4 * values + 1) + 2 * given * 4 * (values + 2),
        # mean, weight and valid of one row of windows
        "row of windows that is blended": strip * (4 * values + 5),
    }


@torch.inference_mode()
def network_bytes(
    function: Callable[[Batch], Tensor],
    windows: Windows,
    *,
    bands: BandNames,
    spacing: Spacing,
    batch_size: int,
    device: torch.device | None = None,
) -> int:
    """Say what a network holds at most while it looks at a batch, its weights left out: it is run on one of zeros.

    Counted are the tensors that its operations make; what an operation holds for itself alone is not seen.
    """
    count = len(bands)
    scene = Scene(
        read=lambda _: (np.empty(0), np.empty(0)),
        dtype=np.dtype(np.float32),
        bands=bands,
        spacing=spacing,
        offset=np.zeros(count),
        scale=np.ones(count),
    )
    shape = (batch_size, count, *windows.shown)
    batch = batch_of(
        scene, np.zeros(shape, np.float32), np.ones(shape, bool), [(0,) * len(windows.window)] * batch_size
    )
    assert batch is not None
    batch = batch if device is None else batch.to(device)
    with _Counting() as counting:
        function(batch)
    peak: int = counting.peak
    return peak


class _Counting(TorchDispatchMode):
    """Adds up the memory of tensors while they live, each piece of it once however many tensors share it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_place(tensor) for tensor in _tensors((args, kwargs))}
        out = func(*args, **(kwargs or {}))
        for tensor in _tensors(out):
            place = _place(tensor)
            if place in self._users or place not in given:  # what was there before is not the network's
                self._enter(tensor, place)
        return out

    def _enter(self, tensor: Tensor, place: int) -> None:
        size = tensor.untyped_storage().nbytes()
        if place not in self._users:
            self._now += size
            self.peak = max(self.peak, self._now)
        self._users[place] = self._users.get(place, 0) + 1
        weakref.finalize(tensor, self._leave, place, size)

    def _leave(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            del self._users[place]
            self._now -= size


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    return [tensor for part in tree for tensor in _tensors(part)] if isinstance(tree, list | tuple) else []
