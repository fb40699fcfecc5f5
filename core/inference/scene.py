"""What is read of an image, and windows of it as one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from core.bands import BandNames
from core.batch import Batch
from core.geometry import Spacing
from core.inference.windows import Windows
from core.preprocess import Window

Read = Callable[[Window], tuple[np.ndarray, np.ndarray]]
"""A window inside the image -> its raw values (C, *window), and what of them is measured, bool of the same shape."""

_TRAVEL = {"u1", "i1", "u2", "i2", "i4", "f4"}  # types that reach the network as they are; others become float32


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An image as the network needs it; nothing of it is in memory.

    Attributes:
        read: gives any window inside it; called from several threads.
        dtype: of the raw values.
        bands: C names, in the order of the channels.
        spacing: distance between voxels, array order.
        offset: (C,), and
        scale: (C,): value space of the network = (raw - offset) * scale.
        placed: windows say where in the image they lie, for networks that learnt what lies where, as in an anatomy. Else
            each window is an image of its own, and its answer does not depend on how large the scene around it is.
    """

    read: Read
    dtype: np.dtype
    bands: BandNames
    spacing: Spacing
    offset: np.ndarray
    scale: np.ndarray
    placed: bool = False


@dataclass(frozen=True, kw_only=True)
class Group:
    """Windows that are predicted together: `batch` holds the `kept` of `starts`, `valid` (n, *values) is of all."""

    starts: tuple[tuple[int, ...], ...]
    kept: tuple[int, ...]
    batch: Batch | None
    valid: np.ndarray


def read_group(scene: Scene, windows: Windows, starts: tuple[tuple[int, ...], ...], measured: str) -> Group:
    """Read windows into one batch; those without data are left out of it."""
    shape = (len(starts), len(scene.bands), *windows.window)
    dtype = scene.dtype if scene.dtype.str[1:] in _TRAVEL else np.dtype(np.float32)
    images, valids = np.zeros(shape, dtype=dtype), np.zeros(shape, dtype=bool)
    cells = np.zeros((len(starts), *windows.values), dtype=bool)
    kept: list[int] = []
    for number, start in enumerate(starts):
        box = tuple(slice(a, min(n, a + w)) for a, n, w in zip(start, windows.size, windows.window, strict=True))
        place: Window = (slice(None), *(slice(0, part.stop - part.start) for part in box))
        image, valid = scene.read(box)
        to = len(kept)
        valids[to][place] = valid
        found = valids[to].all(axis=0) if measured == "all" else valids[to].any(axis=0)
        cells[number] = _of_cells(found, windows.cell)
        if cells[number].any():
            np.copyto(images[to][place], image, where=valid, casting="unsafe")
            kept.append(number)
        else:
            valids[to] = False
    batch = batch_of(scene, images[: len(kept)], valids[: len(kept)], [starts[number] for number in kept])
    return Group(starts=starts, kept=tuple(kept), batch=batch, valid=cells)


def _of_cells(valid: np.ndarray, cell: tuple[int, ...]) -> np.ndarray:
    """Bring (*window) bool to cells: valid where at least half of the voxels are."""
    if max(cell) == 1:
        return valid
    split = [n for size, c in zip(valid.shape, cell, strict=True) for n in (size // c, c)]
    share: np.ndarray = valid.reshape(split).mean(axis=tuple(range(1, len(split), 2)))
    return share >= 0.5


def batch_of(scene: Scene, image: np.ndarray, valid: np.ndarray, starts: list[tuple[int, ...]]) -> Batch | None:
    """Make a batch of windows (n, C, *window) at their starts; None of none."""
    count = len(starts)
    if not count:
        return None
    zero = torch.zeros(count, dtype=torch.int64)
    spacing = torch.tensor(scene.spacing.values, dtype=torch.float32).expand(count, -1)
    offset, scale = (torch.from_numpy(np.float32(a)).expand(count, -1) for a in (scene.offset, scene.scale))
    return Batch(
        image=torch.from_numpy(image),
        valid=torch.from_numpy(valid),
        bands=scene.bands,
        spacing=spacing,
        unit=scene.spacing.unit,
        offset=offset,
        scale=scale,
        key=zero,
        index=zero,
        row=zero,
        origin=torch.tensor(starts, dtype=torch.float32) * spacing if scene.placed else None,
    )
