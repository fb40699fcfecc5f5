"""How a scene is covered by windows, what that will hold in memory, and going over it with a network."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError, DataError
from core.geometry import Spacing
from core.inference import Scene, Windows, Write, memory_bytes, network_bytes, predict_windows
from core.preprocess import content_box, everywhere, is_native
from datasets import LazyImage
from domains.satellite.scenes import Found, Reading
from domains.verbs.collection import say

_BUDGET = 256 << 20  # of blocks that a writer holds until they are whole
_CACHES = 2 * 64 << 20  # of GDAL, for what is read and what is written


class UnmeasuredError(DataError):
    """A scene holds nothing to look at."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One scene, the input that reads it, and how it is covered."""

    found: Found
    entry: Input
    windows: Windows

    @property
    def image(self) -> LazyImage:
        """The scene."""
        return self.found.image


def covered(
    reading: Reading,
    image: LazyImage,
    entry: Input,
    cell: int | tuple[int, ...] | None,
    *,
    seen: tuple[int, ...] | None = None,
) -> Windows:
    """Lay windows over a scene.

    Where one value stands for a whole window, each is looked at as `datasets` looks at a whole image: of pixels that have a
    size as it is, of others resized to what the network sees. A scene of one such window is a whole image itself: what is
    measured of it is in the middle, and fills the window where it may be resized.

    Args:
        reading: how scenes are read.
        image: the scene.
        entry: the input that reads it.
        cell: pixels per value of the result; None = one value for a whole window.
        seen: pixels to which windows are resized, where they may be; none = as many as they have.

    Raises:
        ConfigError: a window that the patch does not divide, or an overlap that does not fit.
        DataError: a scene of one window is damaged.
    """
    resizes = cell is None and not is_native(entry)
    window = _pair("window", reading.window, entry.size)
    seen = (seen or window) if resizes else window
    if any(w < 1 for w in window) or any(n % p for n, p in zip(seen, entry.patch, strict=True)):
        raise ConfigError(f"option 'window': expected multiples of the patch {entry.patch}, got {window}.")
    cells = window if cell is None else cell if isinstance(cell, tuple) else (cell, cell)
    usual = tuple(w // 4 // c * c for w, c in zip(window, cells, strict=True))
    overlap = _pair("overlap", reading.overlap, usual)
    if any(not 0 <= o < w or o % c for o, w, c in zip(overlap, window, cells, strict=True)):
        raise ConfigError(f"option 'overlap': expected multiples of {cells} below the window {window}, got {overlap}.")
    windows = Windows(size=image.size, window=window, overlap=overlap, cell=cells)
    if resizes and (windows.single or seen != window):
        windows = replace(windows, seen=seen)
    if cells == window and windows.single:
        windows = replace(windows, content=content_box(_known(reading, image, entry)))
    return windows


def _known(reading: Reading, image: LazyImage, entry: Input) -> NDArray[np.bool_]:
    """Say what is measured of a whole scene (Y X) as its training said it: in some band of the file where pixels have a size.

    Where they have none, in all bands that are read, or in any if that is asked for.
    """
    if is_native(entry):
        return everywhere(image.read_valid()[1])
    _, valid = image.read_valid(bands=entry.bands)
    known: NDArray[np.bool_] = np.logical_and.reduce(valid) if reading.measured == "all" else everywhere(valid)
    return known


def _pair(name: str, given: tuple[int, ...] | None, usual: tuple[int, ...]) -> tuple[int, int]:
    chosen = usual if given is None else given * 2 if len(given) == 1 else given
    if len(chosen) != 2:
        raise ConfigError(f"option '{name}': expected one or two numbers, got {given}.")
    return chosen[0], chosen[1]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, what is asked of it, and what it holds in memory, which is measured once for each size of window.

    Attributes:
        module: its weights.
        ask: (B, C, *window) -> (B, K, *values).
        values: K.
        known: bytes that it holds at work, by what it sees of a window.
    """

    module: nn.Module
    ask: Callable[[Batch], Tensor]
    values: int
    known: dict[tuple[int, ...], int] = field(default_factory=dict)

    def at_work(self, reading: Reading, windows: Windows, entry: Input) -> int:
        """Give the bytes that it holds while it looks at a batch; it is run on an empty one to see."""
        if windows.shown not in self.known:
            self.known[windows.shown] = network_bytes(
                arithmetic(reading, self.ask),
                windows,
                bands=entry.bands,
                spacing=Spacing(entry.spacing, entry.unit),
                batch_size=reading.batch_size,
                device=reading.where(),
            )
        return self.known[windows.shown]


def memory_text(windows: Windows, entry: Input, image: LazyImage, reading: Reading, network: Network) -> str:
    """Say in a few lines what a run will hold at most, and how much there is to do."""
    parts = memory_bytes(
        windows,
        bands=len(entry.bands),
        itemsize=image.dtype.itemsize,
        values=network.values,
        batch_size=reading.batch_size,
        readers=reading.readers,
    )
    parts["weights of the network"] = sum(parameter.nbytes for parameter in network.module.parameters())
    parts["the network at work on one batch"] = network.at_work(reading, windows, entry)
    written = min(_BUDGET, math.prod(windows.result) * network.values * 4)
    parts["writing, and the caches of the file libraries"] = written + _CACHES
    if not image.windowed:
        size = math.prod(image.shape) * (image.dtype.itemsize + 1)
        parts["the scene, a window of which costs as much as all of it"] = size
    resized = "" if windows.seen is None else f", each resized to {' x '.join(map(str, windows.seen))},"
    lines = [
        f"{image.path.name}: {' x '.join(map(str, image.size))} pixels, {len(windows)} windows of "
        f"{' x '.join(map(str, windows.window))}{resized} with an overlap of {' x '.join(map(str, windows.overlap))}",
        *(f"  {size / 1e6:10.1f} MB  {name}" for name, size in parts.items()),
        f"  {sum(parts.values()) / 1e6:10.1f} MB  at most, whatever the length of the scene; Python and its libraries come "
        "on top",
    ]
    return "\n".join(lines)


def arithmetic(reading: Reading, function: Callable[[Batch], Tensor]) -> Callable[[Batch], Tensor]:
    """Let a network compute in the precision that was asked for."""
    kind = reading.where().type

    def ask(batch: Batch) -> Tensor:
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=reading.precision == "bf16"):
            return function(batch)

    return ask


def go_over(
    reading: Reading,
    image: LazyImage,
    scene: Scene,
    windows: Windows,
    function: Callable[[Batch], Tensor],
    write: Write,
    *,
    values: int,
) -> None:
    """Run a network over a scene, with a bar at the terminal.

    Raises:
        DataError: the scene is damaged.
        UnmeasuredError: nothing in it is measured.
    """
    with Progress(disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task(image.path.name, total=len(windows))
        seen = predict_windows(
            arithmetic(reading, function),
            scene,
            windows,
            write,
            values=values,
            batch_size=reading.batch_size,
            device=reading.where(),
            readers=reading.readers,
            measured=reading.measured,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    if not seen:
        raise silent(reading, image, scene, windows)


def leave_out(unmeasured: Sequence[UnmeasuredError], scenes: int) -> None:
    """Say that the newest of the unmeasured scenes is left out of so many.

    Raises:
        DataError: none is left.
    """
    if len(unmeasured) < scenes:
        say(f"{unmeasured[-1]} It is left out.")
    elif scenes == 1:
        raise unmeasured[0]
    else:
        raise DataError(f"in none of {scenes} scenes is there anything to describe: {unmeasured[0]}")


def silent(reading: Reading, image: LazyImage, scene: Scene, windows: Windows) -> UnmeasuredError:
    """Say that a scene holds nothing to look at; of cells of several pixels, at least half of one must be measured."""
    cell, content = windows.cell, windows.content
    size = image.size if content is None else [part.stop - part.start for part in content]
    what, smaller = "a pixel", ""
    if max(cell) > 1:
        what = f"half of {' x '.join(str(min(n, c)) for n, c in zip(size, cell, strict=True))} pixels"
    if cell == windows.window:
        smaller = ", take smaller windows (--window)"
    return UnmeasuredError(
        f"{image.path}: nowhere is {what} measured in {reading.measured} of the bands {scene.bands}. Look at its nodata "
        f"value (--options=geotiff.nodata=[...]){smaller}, or allow --measured=any where a verb can."
    )
