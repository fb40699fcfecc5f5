"""What is read of an image, and windows of it as one batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from core.bands import BandNames
from core.batch import Batch
from core.geometry import Spacing
from core.inference.windows import Windows
from core.preprocess import Window, content_box, fit

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
    """Windows that are predicted together: `batch` holds the `kept` of `starts`, `valid` (n, *values) is of all.

    An image that is smaller than a window lies in its middle; values are those from the image's first on (`from_the_image`).
    """

    starts: tuple[tuple[int, ...], ...]
    kept: tuple[int, ...]
    batch: Batch | None
    valid: np.ndarray


def read_group(scene: Scene, windows: Windows, starts: tuple[tuple[int, ...], ...], measured: str) -> Group:
    """Read windows into one batch; those without data are left out of it."""
    shape = (len(starts), len(scene.bands), *windows.shown)
    travels = windows.seen is None and scene.dtype.str[1:] in _TRAVEL
    images, valids = np.zeros(shape, dtype=scene.dtype if travels else np.float32), np.zeros(shape, dtype=bool)
    cells = np.zeros((len(starts), *windows.values), dtype=bool)
    joined = np.logical_and if measured == "all" else np.logical_or
    kept: list[int] = []
    for number, start in enumerate(starts):
        box = tuple(slice(a, min(n, a + w)) for a, n, w in zip(start, windows.size, windows.window, strict=True))
        part, place = _parts(box, windows)
        image, valid = (array[part] for array in scene.read(box))
        to = len(kept)
        inside = valids[to] if windows.seen is None else np.zeros((len(scene.bands), *windows.window), dtype=bool)
        inside[place] = valid
        found: np.ndarray = joined.reduce(inside)
        cells[number] = from_the_image(_of_cells(found, windows), windows)
        if not cells[number].any():
            valids[to] = False
        elif windows.seen is None:
            np.copyto(images[to][place], image, where=valid, casting="unsafe")
            kept.append(number)
        else:
            whole = np.zeros(inside.shape, dtype=image.dtype)
            whole[place] = image
            images[to], valids[to] = _resized(whole, inside, found, windows, measured)
            kept.append(number)
    first = [tuple(a - b for a, b in zip(starts[number], windows.before, strict=True)) for number in kept]
    batch = batch_of(scene, images[: len(kept)], valids[: len(kept)], first)
    return Group(starts=starts, kept=tuple(kept), batch=batch, valid=cells)


def _resized(
    image: np.ndarray, valid: np.ndarray, found: np.ndarray, windows: Windows, measured: str
) -> tuple[np.ndarray, np.ndarray]:
    """Resize a window (C, *window), of which `found` (*window) counts as data, to what is seen of it."""
    assert windows.seen is not None
    box = content_box(found) if windows.single else tuple(slice(0, w) for w in windows.window)
    if measured == "all":
        return fit(image, found, windows.seen, box)
    bands = [fit(band[None], data, windows.seen, box) for band, data in zip(image, valid, strict=True)]
    return np.concatenate([band for band, _ in bands]), np.concatenate([data for _, data in bands])


def _parts(box: Window, windows: Windows) -> tuple[Window, Window]:
    """Say which part of what was read of a box goes where in the window; what it leaves out is not measured."""
    source, target = [], []
    for part, before, w in zip(box, windows.before, windows.window, strict=True):
        first, stop = max(0, before), min(w, before + part.stop - part.start)
        source.append(slice(first - before, stop - before))
        target.append(slice(first, stop))
    return (slice(None), *source), (slice(None), *target)


def from_the_image(values: np.ndarray, windows: Windows) -> np.ndarray:
    """Move the values of windows (..., *values) so that the image's first is the first, and padding comes behind."""
    if not any(windows.shift):
        return values
    axes = tuple(range(-len(windows.shift), 0))
    return np.roll(values, [-count for count in windows.shift], axis=axes)


def _of_cells(valid: np.ndarray, windows: Windows) -> np.ndarray:
    """Bring (*window) bool to cells: valid where at least half of the voxels are, or of the image's where it has fewer.

    Of an image of one window and one value, whose content is known, at least half of that content.
    """
    cell = windows.cell
    if max(cell) == 1:
        return valid
    split = [n for size, c in zip(valid.shape, cell, strict=True) for n in (size // c, c)]
    count: np.ndarray = valid.reshape(split).sum(axis=tuple(range(1, len(split), 2)))
    size = windows.size if windows.content is None else [part.stop - part.start for part in windows.content]
    return 2 * count >= math.prod(min(n, c) for n, c in zip(size, cell, strict=True))


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
