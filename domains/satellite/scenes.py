"""Whole scenes for `predict` and `embed`: found, opened, checked against an encoder, and read by windows.

Nothing here holds more of a scene than a window, unless its format can only be read whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from core.contract import Contract, Input
from core.engine.distributed import pick_device
from core.errors import BandError, ConfigError, DataError, GeometryError
from core.geometry import Spacing
from core.inference import Scene
from core.preprocess import Window, check_magnitude, check_range, offset_scale, physical
from datasets import LazyImage, open_image
from datasets.assign import called_as
from datasets.collect import entries_of, gather
from datasets.effect import refuse_idle
from datasets.image import Source
from datasets.readers import configured
from datasets.statistics import Statistics, merge_bands, of_bands
from datasets.tiling import cover
from domains.satellite.naming import Taken, note, taken_by_name, unnamed
from domains.verbs.collection import say

_LOOKS = 25  # windows that are read to see whether a scene is in the encoder's units
_TILE = 1024  # pixels along an edge of a window of the statistics
_WHOLE_BYTES = 2 << 30  # of a scene that cannot be read by window


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Which scenes are read, and how they are covered.

    Attributes:
        data: scenes, folders of them, lists or manifests.
        options: options of readers, such as `geotiff.bands=[red,green,blue]` or `geotiff.nodata=[0]`.
        allow_outside: accept lists and links that lead out of the folder that they are in.
        window: pixels of a scene that are looked at at once, one number or one per axis; none = as in training.
        overlap: pixels that neighbouring windows share at least; none = a quarter of the window.
        measured: a pixel counts as data when it is measured in `all` bands that the encoder reads, or in `any`.
        batch_size: windows per step of the network.
        readers: threads that read.
        precision: of the network's arithmetic; bf16 is faster on a card.
        device: auto, cpu, cuda.
    """

    data: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    allow_outside: bool = False
    window: tuple[int, ...] | None = None
    overlap: tuple[int, ...] | None = None
    measured: Literal["all", "any"] = "all"
    batch_size: int = 8
    readers: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.readers < 1:
            raise ConfigError(f"expected batch_size and readers from 1, got {self.batch_size} and {self.readers}.")

    def where(self) -> torch.device:
        """Give the device that computes."""
        return pick_device(self.device, 0)


ALIASES = {field.name: f"reading.{field.name}" for field in fields(Reading)}


@dataclass(frozen=True, kw_only=True)
class Found:
    """A scene, and what a list says of it: its other columns, as text or typed."""

    image: LazyImage
    said: dict[str, Any]


def open_scenes(reading: Reading) -> list[Found]:
    """Open every scene that is named; no pixel is read.

    Raises:
        HalfseenError: a path, a list or a file cannot be used, or an image is no scene (C Y X).
    """
    if not reading.data:
        raise ConfigError("expected --data, the scenes to read: files, folders, lists or manifests.")
    chosen = configured(reading.options) if reading.options else ()
    entries, manifests = gather(reading.data, chosen, allow_outside=reading.allow_outside)
    for manifest in manifests:
        entries += entries_of(manifest, options=reading.options, allow_outside=reading.allow_outside)
    refuse_idle(reading.options, chosen, entries, [])
    found = []
    for entry in entries:
        image = open_image(entry.safe(), *(configured(entry.options) if entry.options else chosen))
        if image.ndim != 2:
            raise DataError(f"{image.path}: expected a scene (C, Y, X), got shape {image.shape}.")
        found.append(Found(image=image, said=entry.said))
    return found


def input_for(contract: Contract, image: LazyImage) -> Input:
    """Give the encoder's input that reads a scene, of `spacing` that its unit allows.

    Raises:
        BandError: the scene lacks bands of every input.
        GeometryError: the encoder thinks in metres and the scene does not say how large its pixels are.
    """
    try:
        entry = contract.input_for(2, image.bands)
    except BandError as error:
        cure = (
            "Name the file's bands in their order where it does not, such as --options=geotiff.bands=[B02,B03,B04]."
            if unnamed(image.bands)
            else "Choose scenes that have those bands, each once, or an encoder of these."
        )
        raise BandError(f"{image.path}: {error} {cure}") from None
    if entry.unit != "px" and image.spacing.unit != entry.unit:
        raise GeometryError(
            f"{image.path}: this encoder places its tokens in {entry.unit}, and the scene's pixels have a size in "
            f"{image.spacing.unit} only; give it a CRS and a transform."
        )
    return entry


def matched(found: Sequence[Found], contract: Contract) -> list[tuple[Found, Input]]:
    """Find the input that reads each scene (`input_for`), and call the scene's bands as it does; what names alone tell is said.

    Raises:
        BandError: a scene lacks bands, or its name is that of a product whose bands are others (`naming`).
        GeometryError: the encoder thinks in metres and a scene does not say how large its pixels are.
    """
    pairs: list[tuple[Found, Input]] = []
    taken: dict[Taken, tuple[Input, Path]] = {}
    for scene in found:
        image, entry = scene.image, input_for(contract, scene.image)
        names = taken_by_name(image.path, image.bands, entry, scene.said.get("platform"))
        taken.setdefault(names, (entry, image.path))
        pairs.append((replace(scene, image=called_as(image, entry)), entry))
    for names, (entry, path) in taken.items():
        if names:
            say(note(names, entry, path))
    return pairs


def scene_of(image: LazyImage, entry: Input) -> Scene:
    """Describe a scene to `predict_windows`.

    A `per_image` value space needs the mean and the deviation of the whole scene, which is read once for them.

    Raises:
        DataError: it is damaged, or of a format that is read whole only and too large for that.
    """
    image = held(called_as(image, entry))
    scaling = scaling_of(image, entry)
    mean = std = None
    if entry.normalisation.method == "per_image":
        found = measured_statistics(image, entry, cover(image.size, (_TILE, _TILE)))
        mean, std = (np.nan_to_num([getattr(band, name) for band in found]) for name in ("mean", "std"))
    try:
        offset, scale = offset_scale(entry.normalisation, image.dtype, mean, std, scaling=scaling)
    except DataError as error:
        raise DataError(f"{image.path}: {error}") from None
    spacing = Spacing(entry.spacing, "px") if entry.unit == "px" else image.spacing
    return Scene(
        read=ByBands(image, entry.bands),
        dtype=image.dtype,
        bands=entry.bands,
        spacing=spacing,
        offset=offset,
        scale=scale,
    )


@dataclass(frozen=True)
class ByBands:
    """Reads windows of some bands of a scene; travels to other processes, as a lambda would not."""

    image: LazyImage
    bands: tuple[str, ...]

    def __call__(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Read raw values and what of them is measured."""
        return self.image.read_valid(window, self.bands)


def held(image: LazyImage) -> LazyImage:
    """Where a window costs as much as everything, read everything once and keep it."""
    if image.windowed:
        return image
    size = math.prod(image.shape) * (image.dtype.itemsize + 1)
    if size > _WHOLE_BYTES:
        raise DataError(
            f"{image.path}: this file can only be read whole, which takes {size / 1e9:.1f} GB; convert it first: "
            f"python -m datasets.convert {image.path.name} store/"
        )
    return replace(image, source=_Held(*image.read_valid()), chunks=(256, 256), nodata=None)


@dataclass(frozen=True, eq=False)
class _Held(Source):
    """A scene in memory, as what it is read from."""

    voxels: np.ndarray
    valid: np.ndarray

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Copy a window."""
        return self.voxels[(slice(None), *window)][list(bands)]

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Say what of it is data."""
        return self.valid[(slice(None), *window)][list(bands)]


def measured_statistics(image: LazyImage, entry: Input, windows: Iterator[Window]) -> tuple[Statistics, ...]:
    """Count the raw values of an encoder's bands over windows, nodata left out."""
    image = called_as(image, entry)
    bands = tuple(Statistics.empty(image.dtype) for _ in entry.bands)
    for window in windows:
        bands = merge_bands(bands, of_bands(*image.read_valid(window, entry.bands)))
    return bands


def look(image: LazyImage, entry: Input) -> None:
    """Compare a few windows all over a scene with the range that the encoder's bands can have.

    Raises:
        BandError: the values are in other units; without a sensor, of another magnitude than what the encoder is trained on.
        DataError: it is damaged.
    """
    image = held(called_as(image, entry))
    tiles = list(cover(image.size, (min(256, image.size[0]), min(256, image.size[1]))))
    step = max(1, len(tiles) // _LOOKS)
    found = measured_statistics(image, entry, iter(tiles[step // 2 :: step]))
    raw = np.array([[band.percentile(q) for band in found] for q in (1, 50, 99)])
    steps, shifts = physical(entry, image.dtype, scaling_of(image, entry)).T
    low, median, high = np.sort(raw * steps + shifts, axis=0)
    check_range(entry, low, median, high, source=str(image.path))
    check_magnitude(entry, low[None], median[None], high[None], source=str(image.path))


def scaling_of(image: LazyImage, entry: Input) -> list[tuple[float, float]] | None:
    """Give the scaling of an input's bands as a file that calls them so says it, in the input's order; None = it does not."""
    return None if image.scaling is None else [image.scaling[image.bands.index(band)] for band in entry.bands]
