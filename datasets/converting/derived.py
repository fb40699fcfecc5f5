"""Images derived from images, lazily: cropped to a box, resampled to a spacing, turned to another dtype.

Each function gives a LazyImage whose windows are computed when they are read, in memory of the window; its affine,
georeference, spacing and nodata are those of the result. Label volumes are resampled with `order="nearest"`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from core.errors import DataError, GeometryError
from core.geometry import Affine, Spacing
from core.preprocess import Window
from datasets.image import LazyImage, Source

Order = Literal["linear", "nearest"]
Lossy = Literal["refuse", "clip"]


def cropped(image: LazyImage, box: Window) -> LazyImage:
    """The part of an image inside a box; affine or georeference moves to its first voxel."""
    start = tuple(part.start for part in box)
    size = tuple(part.stop - part.start for part in box)
    if size == image.size:
        return image
    affine = image.affine.shifted(start) if image.affine is not None else None
    where = image.georeference.shifted(start) if image.georeference is not None else None
    return replace(
        image,
        shape=(image.shape[0], *size),
        affine=affine,
        georeference=where,
        chunks=size if not image.windowed else tuple(map(min, image.chunks, size)),
        source=_Cropped(image, start),
        levels=(),
        level=0,
    )


@dataclass(frozen=True)
class _Cropped(Source):
    image: LazyImage
    start: tuple[int, ...]

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        return self.image.source.read(_moved(window, self.start), bands)

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        return self.image.source.measured(_moved(window, self.start), bands)


def _moved(window: Window, start: tuple[int, ...]) -> Window:
    return tuple(slice(part.start + a, part.stop + a) for part, a in zip(window, start, strict=True))


def resampled(image: LazyImage, spacing: tuple[float, ...], order: Order = "linear") -> LazyImage:
    """The image at another spacing, in its own unit; the corner of the first voxel stays where it is.

    `linear` is separable linear interpolation, widened to a triangle of the new spacing where that is coarser, so that
    nothing aliases: what `torch.nn.functional.interpolate(antialias=True)` does in 2D, here for any number of axes and by
    window (a window equals that slice of the whole, bit for bit). Only measured voxels are averaged; a result is measured
    where at least half of what it gathers is. Whole numbers are rounded to even. `nearest` takes the nearest voxel.

    Raises:
        GeometryError: the spacing is not one positive number per axis, or the image has no spacing.
    """
    if len(spacing) != image.ndim or any(not math.isfinite(s) or s <= 0 for s in spacing):
        raise GeometryError(f"{image.path}: expected {image.ndim} positive spacings (array order), got {spacing}.")
    if image.spacing.unit == "px":
        raise GeometryError(
            f"{image.path}: expected an image that knows its spacing, to resample it to {spacing}; give it one in its "
            "header, or leave the spacing as it is."
        )
    factors = tuple(s / old for s, old in zip(spacing, image.spacing.values, strict=True))
    if all(abs(f - 1) < 1e-6 for f in factors):
        return image
    size = tuple(max(1, round(n / f)) for n, f in zip(image.size, factors, strict=True))
    where = image.georeference
    return replace(
        image,
        shape=(image.shape[0], *size),
        spacing=Spacing(tuple(spacing), image.spacing.unit),
        affine=_stretched(image.affine, factors) if image.affine is not None else None,
        georeference=where.scaled(factors) if where is not None else None,  # type: ignore[arg-type]
        chunks=size if not image.windowed else tuple(min(n, 256) for n in size),
        source=_Resampled(image, factors, order),
        levels=(),
        level=0,
    )


def _stretched(affine: Affine, factors: tuple[float, ...]) -> Affine:
    matrix = affine.matrix
    steps = np.array(factors)
    matrix[:3, 3] += matrix[:3, :3] @ ((steps - 1) / 2)  # the centre of a first voxel that is `factors` times as large
    matrix[:3, :3] *= steps
    return Affine.of(matrix, source="a resampled image")


@dataclass(frozen=True)
class _Resampled(Source):
    """Attributes: the image, how many of its voxels a new one is along each axis, and the method."""

    image: LazyImage
    factors: tuple[float, ...]
    order: Order

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        return self._both(window, bands)[0]

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """A mask where the source has one; without one, nodata values and NaN say everything."""
        mask = self.image.source.measured(tuple(slice(0, 1) for _ in window), bands[:1])
        return None if mask is None else self._both(window, bands)[1]

    def _both(self, window: Window, bands: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        names = tuple(self.image.bands[band] for band in bands)
        if self.order == "nearest":
            return self._nearest(window, names)
        taps = [
            _taps(part.start, part.stop, f, n) for part, f, n in zip(window, self.factors, self.image.size, strict=True)
        ]
        box = tuple(slice(int(index.min()), int(index.max()) + 1) for index, _ in taps)
        voxels, valid = self.image.read_valid(box, names)
        whole = bool(valid.all())
        wide = (
            np.float64 if self.image.dtype.itemsize > 4 or self.image.dtype.name in ("int32", "uint32") else np.float32
        )
        values = np.where(valid, voxels, 0).astype(wide)
        share = valid.astype(np.float32)
        for axis, ((index, weight), part) in enumerate(zip(taps, box, strict=True), start=1):
            values = _along(values, axis, index - part.start, weight.astype(wide))
            share = share if whole else _along(share, axis, index - part.start, weight.astype(np.float32))
        if whole:
            return _as(values, self.image.dtype), np.ones(values.shape, dtype=bool)
        inside = share >= 0.5
        values = np.where(inside, values / np.maximum(share, 0.5), 0)
        return self._marked(_as(values, self.image.dtype), inside, bands), inside

    def _nearest(self, window: Window, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        picks = [
            np.minimum(n - 1, np.floor((np.arange(part.start, part.stop) + 0.5) * f).astype(np.int64))
            for part, f, n in zip(window, self.factors, self.image.size, strict=True)
        ]
        box = tuple(slice(int(pick[0]), int(pick[-1]) + 1) for pick in picks)
        voxels, valid = self.image.read_valid(box, names)
        place = np.ix_(np.arange(len(names)), *(pick - part.start for pick, part in zip(picks, box, strict=True)))
        return voxels[place], valid[place]

    def _marked(self, voxels: np.ndarray, inside: np.ndarray, bands: tuple[int, ...]) -> np.ndarray:
        """Say in the voxels themselves what is not measured: by the nodata value, or by NaN."""
        for row, band in enumerate(bands):
            value = self.image.nodata[band] if self.image.nodata is not None else None
            if value is None and voxels.dtype.kind == "f":
                value = math.nan
            if value is not None:
                voxels[row][~inside[row]] = value
        return voxels


def _taps(start: int, stop: int, factor: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """For each new voxel: which old ones it gathers and with what weights, (stop - start, taps) each; weights sum to 1."""
    reach = max(1.0, factor)
    centre = (np.arange(start, stop) + 0.5) * factor - 0.5
    first = np.floor(centre - reach).astype(np.int64) + 1
    index = first[:, None] + np.arange(math.ceil(2 * reach))
    weight = np.maximum(0.0, 1.0 - np.abs(index - centre[:, None]) / reach)
    weight[(index < 0) | (index >= n)] = 0.0
    edge = weight.sum(axis=1) <= 0  # beyond the centre of the last voxel by rounding
    index = np.clip(index, 0, n - 1)
    weight[edge, -1] = 1.0
    return index, weight / weight.sum(axis=1, keepdims=True)


def _along(values: np.ndarray, axis: int, index: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Gather along one axis, tap by tap in a fixed order: no sum depends on the window that is read."""
    shape = [1] * values.ndim
    shape[axis] = len(index)
    result: np.ndarray = np.take(values, index[:, 0], axis=axis) * weight[:, 0].reshape(shape)
    for tap in range(1, index.shape[1]):
        result += np.take(values, index[:, tap], axis=axis) * weight[:, tap].reshape(shape)
    return result


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    whole: np.ndarray = np.clip(np.rint(values), limits.min, limits.max)
    return whole.astype(dtype)


def recast(image: LazyImage, dtype: np.dtype, lossy: Lossy = "refuse", *, complete: bool = False) -> LazyImage:
    """The image with voxels of another type and the same values.

    A value that the type does not hold (beyond its range, a fraction, NaN where whole numbers are wanted) is refused when
    it is read, unless `lossy` is `clip`: then it is rounded to even and clipped. Voxels that are not measured become the
    nodata value, or 0 with a mask. Another precision of real numbers is no loss as long as the range suffices.

    Args:
        image: what is turned.
        dtype: whole or real numbers.
        lossy: see above.
        complete: every voxel is known to be measured, so that no mask is needed.

    Raises:
        DataError: the type does not hold the image's nodata value.
    """
    dtype = np.dtype(dtype)
    if dtype == image.dtype:
        return image
    for value in image.nodata or ():
        if value is not None and not _holds(dtype, value):
            raise DataError(
                f"{image.path}: its nodata value {value:g} has no place in {dtype}; choose a dtype that holds it."
            )
    return replace(image, dtype=dtype, source=_Recast(image, dtype, lossy, complete))


def _holds(dtype: np.dtype, value: float) -> bool:
    if dtype.kind == "f":
        return not math.isfinite(value) or abs(value) <= float(np.finfo(dtype).max)
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


@dataclass(frozen=True)
class _Recast(Source):
    image: LazyImage
    dtype: np.dtype
    lossy: Lossy
    complete: bool

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        voxels, valid = self.image.read_valid(window, tuple(self.image.bands[band] for band in bands))
        turned, lost = (self._real if self.dtype.kind == "f" else self._whole)(voxels, valid)
        if self.lossy == "refuse" and lost.any():
            self._refuse(voxels[valid], window)
        for row, band in enumerate(bands):
            value = self.image.nodata[band] if self.image.nodata is not None else None
            if value is not None:
                turned[row][~valid[row]] = value
        return turned

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        mask = self.image.source.measured(window, bands)
        if self.complete or self.dtype.kind == "f" or self.image.dtype.kind != "f":
            return mask
        return self.image.read_valid(window, tuple(self.image.bands[band] for band in bands))[1]

    def _real(self, voxels: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values as real numbers, clipped, and which of the measured ones that changed."""
        limits = np.finfo(self.dtype)
        with np.errstate(over="ignore"):
            turned = voxels.astype(self.dtype)
        lost = valid & ~np.isfinite(turned)
        turned[lost] = np.where(voxels[lost] > 0, limits.max, limits.min)
        return turned, lost

    def _whole(self, voxels: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The values as whole numbers, rounded and clipped, and which of the measured ones that changed."""
        limits = np.iinfo(self.dtype)
        voxels = np.where(valid, voxels, voxels.dtype.type(0))
        low, high = int(limits.min), int(limits.max)
        lost = (voxels < low) | (voxels > high)
        if voxels.dtype.kind == "f":
            lost |= voxels != np.rint(voxels)
            top = np.nextafter(float(high), 0.0) if high > 2**53 else float(high)  # 2^63 - 1 is no float64
            return np.clip(np.rint(voxels.astype(np.float64)), float(low), top).astype(self.dtype), lost
        own = np.iinfo(voxels.dtype)
        return np.clip(voxels, max(int(own.min), low), min(int(own.max), high)).astype(self.dtype), lost

    def _refuse(self, voxels: np.ndarray, window: Window) -> None:
        where = ", ".join(f"{part.start}:{part.stop}" for part in window)
        fraction = self.dtype.kind != "f" and voxels.dtype.kind == "f" and bool((voxels != np.rint(voxels)).any())
        raise DataError(
            f"{self.image.path}: its values {'are not whole and ' if fraction else ''}reach from {voxels.min():g} to "
            f"{voxels.max():g} (window {where}), which {self.dtype} does not hold without loss; choose another dtype, or "
            "allow rounding and clipping (--clip)."
        )
