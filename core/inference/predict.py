"""The pipeline: readers ahead, the network in the caller's thread, blending and writing behind."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch
from core.errors import NumericsError, ShapeError
from core.inference.blend import Blend, Write
from core.inference.memory import WAITING
from core.inference.scene import Group, Scene, from_the_image, read_group
from core.inference.windows import Windows


@torch.inference_mode()
def predict_windows(
    function: Callable[[Batch], Tensor],
    scene: Scene,
    windows: Windows,
    write: Write,
    *,
    values: int,
    batch_size: int,
    device: torch.device | None = None,
    readers: int = 1,
    measured: Literal["all", "any"] = "all",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Run a network over an image of any size and hand on the blended result; gives the number of windows that it saw.

    Where windows overlap, the result is the mean of what they say, weighted by a raised cosine over the overlap, so that a
    window's rim, which sees one side of its surroundings only, counts least. The mean is taken step by step: where all
    windows say the same, the result is that number to the bit. Windows without a measured voxel are not predicted.

    Args:
        function: (B, C, *windows.shown) as a `Batch` -> (B, K, *windows.values).
        scene: what is read.
        windows: how it is covered.
        write: takes finished parts.
        values: K.
        batch_size: windows per call of the function; a batch may have fewer.
        device: where the function computes; none = the processor.
        readers: threads that read.
        measured: which voxels count as data: those measured in `all` bands, or in `any`. A cell of several voxels is valid
            when at least half of its voxels are, or of the image's where it is smaller than a cell, or of its content where
            that is known.
        progress: told how many windows are done, and of how many.

    Raises:
        ShapeError: the function gives another shape.
        NumericsError: it gives a number that is not finite where there is data.
        HalfseenError: whatever `read` and `write` raise.
    """
    if batch_size < 1 or readers < 1 or values < 1:
        raise ShapeError(f"expected batch_size, readers and values from 1, got {batch_size}, {readers} and {values}.")
    if windows.seen is not None and (scene.placed or scene.spacing.unit != "px"):
        raise ShapeError(
            f"expected windows as they are, got ones of {windows.window} that are seen as {windows.seen} of a scene in "
            f"{scene.spacing.unit}: sizes and places would no longer be true."
        )
    blend = Blend(windows, values, write)
    every = iter(windows)
    groups = iter(lambda: tuple(itertools.islice(every, batch_size)), ())
    reading, blending = ThreadPoolExecutor(readers), ThreadPoolExecutor(1)
    ahead: deque[Future[Group]] = deque()
    behind: deque[Future[None]] = deque()
    seen = done = 0
    try:
        while True:
            while len(ahead) <= readers and (starts := next(groups, None)) is not None:
                ahead.append(reading.submit(read_group, scene, windows, starts, measured))
            if not ahead:
                break
            group = ahead.popleft().result()
            predicted = None
            if group.batch is not None:
                batch = group.batch if device is None else group.batch.to(device)
                predicted = _checked(function(batch), group, windows, values)
                seen += len(batch)
            while len(behind) >= WAITING:
                behind.popleft().result()
            behind.append(blending.submit(blend.add_all, group.starts, group.kept, predicted, group.valid))
            done += len(group.starts)
            if progress is not None:
                progress(done, len(windows))
            del group, predicted
        for late in behind:
            late.result()
        blend.finish()
    finally:
        reading.shutdown(cancel_futures=True)
        blending.shutdown(cancel_futures=True)
    return seen


@torch.inference_mode()
def sample_windows(
    function: Callable[[Batch], Tensor],
    scene: Scene,
    windows: Windows,
    *,
    values: int,
    count: int,
    batch_size: int,
    device: torch.device | None = None,
) -> np.ndarray:
    """Run a network over `count` windows spread over an image and give its answers where there is data, (N, K) float32.

    Raises:
        ShapeError: the function gives another shape.
        NumericsError: it gives a number that is not finite where there is data.
    """
    places = np.unique(np.linspace(0, len(windows) - 1, min(count, len(windows))).round().astype(int))
    every = list(windows)
    chosen = iter([every[place] for place in places])
    found = [np.empty((0, values), dtype=np.float32)]
    for starts in iter(lambda: tuple(itertools.islice(chosen, batch_size)), ()):
        group = read_group(scene, windows, starts, "all")
        if group.batch is not None:
            batch = group.batch if device is None else group.batch.to(device)
            predicted = _checked(function(batch), group, windows, values)
            found.append(np.moveaxis(predicted, 1, -1)[group.valid[list(group.kept)]])
    return np.concatenate(found)


def _checked(predicted: Tensor, group: Group, windows: Windows, values: int) -> np.ndarray:
    """Bring predictions to the processor, after making sure of their shape and that they are numbers."""
    shape = (len(group.kept), values, *windows.values)
    if tuple(predicted.shape) != shape:
        raise ShapeError(
            f"expected predictions of shape {shape} (windows, values, *cells), got {tuple(predicted.shape)}: the model "
            "does not give one answer per cell of its input."
        )
    finite = bool(torch.isfinite(predicted).all())
    found = from_the_image(predicted.to("cpu", torch.float32).numpy(), windows)
    if not finite:
        valid = group.valid[list(group.kept)]
        bad = (~np.isfinite(found)).any(axis=1)
        if (bad & valid).any():
            start = group.starts[group.kept[int(np.flatnonzero((bad & valid).reshape(len(bad), -1).any(axis=1))[0])]]
            raise NumericsError(
                f"the model gives numbers that are not finite in the window at {start} of size {windows.window}, where "
                "the image has data; check its weights, and that the image is in the units that it expects."
            )
        found = np.where(np.broadcast_to(bad[:, None], found.shape), np.float32(0), found)
    return found
