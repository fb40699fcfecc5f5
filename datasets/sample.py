"""What flows on the way from a manifest to a batch: a stream's description, the order for a sample, the sample, a failure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.bands import BandNames
from core.contract import Input, Tiles
from core.errors import ConfigError
from core.geometry import Unit


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """One kind of training batch.

    Attributes:
        input: what the encoder expects; its `name` is the stream's.
        batch_size: samples per step over all ranks together.
        turns: steps in a row that this stream gets when several alternate.
        scale: least and largest share of the content's area that a resized crop takes.
        flips: per spatial axis, whether a mirror image is as legal as the original; empty = none.
        crop: `resized`: any part of a 2D image, brought to the input's size; `native`: a window of that size at the file's
            own spacing; `auto`: native for volumes and for inputs in m or mm, resized for inputs in px.
        tiles: how many crops an image gives in an epoch, and where.
    """

    input: Input
    batch_size: int
    turns: int = 1
    scale: tuple[float, float] = (0.2, 1.0)
    flips: tuple[bool, ...] = ()
    crop: Literal["auto", "resized", "native"] = "auto"
    tiles: Tiles = Tiles()

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"expected batch_size >= 1 and 0 < scale <= 1, got {self.batch_size} and {self.scale}.")
        if self.flips and len(self.flips) != self.input.ndim:
            raise ConfigError(
                f"stream '{self.name}': expected one flip per axis of {self.input.ndim}, got {self.flips}."
            )
        if self.crop == "resized" and (self.input.ndim != 2 or self.input.unit != "px"):
            raise ConfigError(
                f"stream '{self.name}': expected native crops, got crop 'resized' for a {self.input.ndim}D input in "
                f"{self.input.unit}: volumes are never resized, and a size in m or mm would no longer be true."
            )
        if self.input.background == "dark" and self.native:
            raise ConfigError(
                f"stream '{self.name}': a dark background is found on 2D images only, and only for resized crops."
            )
        if not self.native and (self.tiles.per_image is None or self.tiles.plan != "free"):
            raise ConfigError(
                f"stream '{self.name}': expected tiles.per_image to be a number and tiles.plan 'free' for resized crops, "
                f"got {self.tiles.per_image} and '{self.tiles.plan}': only native crops can cover an image or a grid."
            )

    @property
    def name(self) -> str:
        """The input's name."""
        return self.input.name

    @property
    def native(self) -> bool:
        """Whether samples are windows at the file's own spacing."""
        return self.crop == "native" or (self.crop == "auto" and (self.input.ndim == 3 or self.input.unit != "px"))


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a sampler asks a dataset for; everything a sample depends on besides the manifest.

    Attributes:
        stream: position among the dataset's streams.
        row: row of the manifest.
        index: position in the stream's endless order.
        epoch: pass over the stream's tiles; no part of a `whole` sample.
        tile: which of the image's crops of that epoch.
        mode: `crop` or `whole`.
        substitutes: rows to read instead, one after the other, when this one cannot be read; none = an error.
        instead_of: the row that this one stands in for.
    """

    stream: int
    row: int
    index: int
    epoch: int = 0
    tile: int = 0
    mode: Literal["crop", "whole"] = "crop"
    substitutes: tuple[int, ...] = ()
    instead_of: int | None = None


@dataclass(frozen=True)
class Incident:
    """An image that could not be read, and what was read instead.

    Attributes:
        stream: name of the stream.
        index: position in the stream's order.
        file: what could not be read.
        window: the part that was asked for, where it is known, else empty.
        reason: the error's sentence.
        substitute: what took its place.
    """

    stream: str
    index: int
    file: str
    window: str
    reason: str
    substitute: str


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image on its way into a batch; fields as in `core.batch.Batch`, without the batch axis.

    `valid` may be a broadcast view. `incidents` tells what could not be read before this could.
    """

    image: np.ndarray
    valid: np.ndarray
    bands: BandNames
    spacing: tuple[float, ...]
    unit: Unit
    offset: np.ndarray
    scale: np.ndarray
    key: int
    index: int
    row: int
    origin: tuple[float, ...]
    times: np.ndarray | None = None
    incidents: tuple[Incident, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A reading error on its way out of a worker process: plain text, so that nothing can fail to cross.

    Attributes:
        kind: name of the class in `core.errors` that it becomes again.
        message: the sentence; it names the file.
        window: the part of the image that was asked for, where it is known, else empty.
        trace: where it was raised, for errors that no reader foresaw, else empty.
        curable: whether another image may take the place of this one: not when the program or the machine is at fault.
    """

    kind: str
    message: str
    window: str = ""
    trace: str = ""
    curable: bool = True
