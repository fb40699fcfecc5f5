"""The interface of an output format: say what cannot be kept, then take windows in any order and finish.

A writer never sees the final name. `write_image` gives it a draft beside it, checks every window, and publishes the draft
by one rename when all voxels came; so a failed or killed stream leaves nothing under the final name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from core.bands import BandNames
from core.errors import DataError, ShapeError
from core.geometry import Affine, Georeference, Spacing
from core.preprocess import Window
from datasets.image import LazyImage
from datasets.tiling import within

Part = tuple[Window, np.ndarray] | tuple[Window, np.ndarray, np.ndarray]
"""A window (spatial slices), its voxels (C, *window) and, where the facts promise a mask, what is measured of them."""

Parts = Iterable[Part]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file says of its voxels; all that a writer knows, so nothing else of a source can slip through.

    Attributes:
        shape: (C, Y, X) or (C, Z, Y, X).
        dtype: of the voxels, native byte order.
        bands: C names.
        spacing: distance between voxels, array order.
        affine: of a volume; None where no world is known.
        georeference: of a scene; None where there is none.
        nodata: per band, the raw value that means "not measured"; None = none.
        scaling: per band (scale, offset) with physical value = raw * scale + offset; None = raw values are the values.
        units: per band, the unit of the physical value.
        valid: bands of the mask that comes with every window: 0 = no mask, 1 = one for all bands, or C.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    bands: BandNames
    spacing: Spacing
    affine: Affine | None = None
    georeference: Georeference | None = None
    nodata: tuple[float | None, ...] | None = None
    scaling: tuple[tuple[float, float], ...] | None = None
    units: tuple[str | None, ...] | None = None
    valid: int = 0

    def __post_init__(self) -> None:
        bands = self.shape[0]
        if len(self.shape) not in (3, 4) or min(self.shape) < 1:
            raise ShapeError(f"expected a shape (C, Y, X) or (C, Z, Y, X) without empty axes, got {self.shape}.")
        if len(self.spacing.values) != len(self.shape) - 1:
            raise ShapeError(f"expected a spacing per axis of {self.shape[1:]}, got {self.spacing.values}.")
        if self.valid not in (0, 1, bands):
            raise ShapeError(f"expected a mask of 0, 1 or {bands} bands, got {self.valid}.")
        for name in ("bands", "nodata", "scaling", "units"):
            values = getattr(self, name)
            if values is not None and len(values) != bands:
                raise ShapeError(f"expected {bands} {name}, one per band, got {values}.")

    @classmethod
    def of(cls, image: LazyImage, *, valid: int = 0) -> Facts:
        """Take the facts of an opened image; `dataclasses.replace` changes what differs, such as dtype and bands."""
        return cls(
            shape=image.shape,
            dtype=image.dtype,
            bands=image.bands,
            spacing=image.spacing,
            affine=image.affine,
            georeference=image.georeference,
            nodata=image.nodata,
            scaling=image.scaling,
            units=image.units,
            valid=valid,
        )

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return self.shape[1:]


class Draft(ABC):
    """One file being written. Windows are checked before they come here and cover the image when `finish` is called."""

    @abstractmethod
    def put(self, window: Window, voxels: np.ndarray, valid: np.ndarray | None) -> None:
        """Take a window: (C, *window) of the facts' dtype, and its mask where the facts promise one.

        Where windows overlap, the voxels that came first stay.
        """

    @abstractmethod
    def missing(self) -> Window | None:
        """Give a window of which no voxel came yet, or None when all came."""

    @abstractmethod
    def finish(self) -> None:
        """Write the rest and close; the draft is whole after this. Called once, when nothing is missing."""

    @abstractmethod
    def abandon(self) -> None:
        """Close what is open, whatever state it is in; the caller removes the files."""


class Writer(ABC):
    """One format, one file in this folder. Implementations are frozen dataclasses whose fields are writing options.

    Attributes:
        suffixes: file name endings, lower case with the dot, by which `write_image` picks.
    """

    suffixes: ClassVar[tuple[str, ...]]

    @abstractmethod
    def check(self, path: Path, facts: Facts) -> None:
        """Refuse facts that the format cannot keep.

        Raises:
            DataError: with what it is and the cure; the message names the file.
        """

    @abstractmethod
    def block(self, facts: Facts) -> tuple[int, ...]:
        """Give the spatial shape of the windows that are cheapest to write; raster order of them holds least memory."""

    @abstractmethod
    def begin(self, path: Path, draft: Path, spool: Path, facts: Facts) -> Draft:
        """Start writing what will be `path` at `draft`, which does not exist; `spool` is an empty folder for what must wait."""


def checked(path: Path, facts: Facts, part: Part) -> tuple[Window, np.ndarray, np.ndarray | None]:
    """Give the window with start and stop, its voxels and its mask, or say what does not fit.

    Raises:
        DataError: the window is not inside the image, or voxels or mask have another shape or dtype than announced.
    """
    window, voxels, *rest = part
    spans = within(window, facts.size)
    if spans is None:
        raise DataError(f"{path}: expected a window of slices with step 1 inside {facts.size}, got {window}.")
    shape = tuple(span.stop - span.start for span in spans)
    if voxels.shape != (facts.shape[0], *shape) or voxels.dtype != facts.dtype:
        raise DataError(
            f"{path}: expected {facts.dtype} voxels of shape {(facts.shape[0], *shape)} for the window {_text(spans)}, "
            f"got {voxels.dtype} of shape {voxels.shape}; nothing is cast or broadcast silently."
        )
    if bool(rest) != bool(facts.valid):
        raise DataError(
            f"{path}: expected {'a mask with every window' if facts.valid else 'no mask, as the facts say valid=0'}, "
            f"the window {_text(spans)} came {'with' if rest else 'without'} one."
        )
    if not rest:
        return spans, voxels, None
    if rest[0].shape != (facts.valid, *shape) or rest[0].dtype != bool:
        raise DataError(
            f"{path}: expected a bool mask of shape {(facts.valid, *shape)} for the window {_text(spans)}, got "
            f"{rest[0].dtype} of shape {rest[0].shape}."
        )
    return spans, voxels, rest[0]


def _text(window: Iterable[slice]) -> str:
    return ", ".join(f"{span.start}:{span.stop}" for span in window)


def refuse_dtype(path: Path, facts: Facts, known: frozenset[str], cure: str) -> None:
    """Refuse a dtype that a format does not know.

    Raises:
        DataError: naming the file and the cure.
    """
    if facts.dtype.name not in known:
        raise DataError(f"{path}: this format holds no {facts.dtype} voxels, only {', '.join(sorted(known))}; {cure}.")
