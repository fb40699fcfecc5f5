"""Where voxels are: spacing with its unit, a volume's voxel-to-world matrix, a scene's CRS. No pixel is touched here.

Array order is (Y X) or (Z Y X) everywhere in the house. A volume's affine maps array indices in that order, (z, y, x, 1),
to world coordinates (x, y, z) in mm, RAS+.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from core.errors import GeometryError

Unit = Literal["mm", "m", "px"]


@dataclass(frozen=True)
class Spacing:
    """Distance between neighbouring voxels along each array axis, with its unit; `px` means that no size is known."""

    values: tuple[float, ...]
    unit: Unit

    def __post_init__(self) -> None:
        if not self.values or any(not math.isfinite(v) or v <= 0 for v in self.values):
            raise GeometryError(f"expected positive finite spacing along each axis, got {self.values} {self.unit}.")

    @classmethod
    def pixels(cls, ndim: int) -> Spacing:
        """Say that nothing is known: one pixel per pixel."""
        return cls((1.0,) * ndim, "px")


@dataclass(frozen=True)
class Affine:
    """Voxel-to-world matrix of a volume: (z, y, x, 1) in voxels to (x, y, z) in mm, RAS+; immutable."""

    rows: tuple[tuple[float, float, float, float], ...]

    @classmethod
    def of(cls, matrix: np.ndarray, *, source: str) -> Affine:
        """Check and wrap a 4 x 4 (or 3 x 4) matrix.

        Raises:
            GeometryError: it is not finite or cannot be inverted; the message names `source`.
        """
        given = np.asarray(matrix, dtype=np.float64)
        if given.shape not in ((3, 4), (4, 4)):
            raise GeometryError(f"{source}: expected an affine of 3 x 4 or 4 x 4 numbers, got {given.shape}.")
        top = given[:3]
        if not np.isfinite(top).all():
            raise GeometryError(
                f"{source}: expected a finite affine, got {top.tolist()}; mend the header (qform/sform)."
            )
        if abs(np.linalg.det(top[:, :3])) < 1e-12:
            raise GeometryError(f"{source}: expected an invertible affine, got {top.tolist()}; mend the header.")
        return cls(tuple(tuple(float(v) for v in row) for row in top))  # type: ignore[misc]

    @property
    def matrix(self) -> np.ndarray:
        """The 4 x 4 float64 matrix, a fresh copy."""
        return np.vstack([np.array(self.rows, dtype=np.float64), [0.0, 0.0, 0.0, 1.0]])

    @property
    def spacing(self) -> Spacing:
        """Column lengths in mm, array order (Z Y X)."""
        return Spacing(tuple(float(v) for v in np.linalg.norm(self.matrix[:3, :3], axis=0)), "mm")

    def shifted(self, start: tuple[int, int, int]) -> Affine:
        """The affine of a window that begins at voxel `start` (Z Y X)."""
        matrix = self.matrix
        matrix[:3, 3] += matrix[:3, :3] @ np.asarray(start, dtype=np.float64)
        return Affine.of(matrix, source=f"window at {start}")


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of a scene are on Earth; immutable.

    Attributes:
        crs: the coordinate reference system, as `EPSG:32615` where it has such a code, else as WKT.
        transform: (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f, in the CRS's own unit.
            Whole numbers are pixel corners (pixel-is-area): the centre of the first pixel is at (0.5, 0.5).
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]

    def __post_init__(self) -> None:
        a, b, _, d, e, _ = self.transform
        if not all(math.isfinite(v) for v in self.transform) or abs(a * e - b * d) < 1e-24:
            raise GeometryError(f"expected a finite, invertible geotransform, got {self.transform}; mend the file's.")

    @property
    def steps(self) -> tuple[float, float]:
        """Length of a step down and of a step right (array order Y X), in the CRS's own unit."""
        a, b, _, d, e, _ = self.transform
        return math.hypot(b, e), math.hypot(a, d)

    def shifted(self, start: tuple[int, int]) -> Georeference:
        """The georeference of a window that begins at pixel `start` (Y X)."""
        a, b, c, d, e, f = self.transform
        y, x = start
        return Georeference(self.crs, (a, b, c + a * x + b * y, d, e, f + d * x + e * y))

    def scaled(self, factors: tuple[float, float]) -> Georeference:
        """The georeference after pixels became `factors` (Y X) times as large, first corner kept."""
        a, b, c, d, e, f = self.transform
        y, x = factors
        return Georeference(self.crs, (a * x, b * y, c, d * x, e * y, f))
