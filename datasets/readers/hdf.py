"""HDF5 and NetCDF-4 (h5py) and HDF4 (pyhdf, MODIS): arrays of one shape as the bands of a scene or a volume.

Values stay as they are stored; scale_factor, add_offset, units and fill values become facts, a valid range becomes the
mask. MODIS's reflectances say scale_factor 10000 and mean a divisor: see `_hdf_variable.physical`. Other files are never
opened, whatever a file says (external links and storage, virtual arrays).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from core.bands import BandNames
from core.errors import BudgetError, UnsupportedError
from core.geometry import Georeference, Spacing
from core.preprocess import Window
from datasets.handles import borrow_file
from datasets.image import Flag, LazyImage, Source
from datasets.readers import _eos, _hdf4, _hdf5, _scene
from datasets.readers._hdf_variable import Axes, Variable, choose, physical, squeezed
from datasets.readers._typed import typed
from datasets.readers.base import Reader

_HDF5, _HDF4, _NETCDF3 = b"\x89HDF\r\n\x1a\n", b"\x0e\x03\x13\x01", (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_REMEMBERED = 32 << 20  # bytes of the last window that are kept for `measured`

Kind = Literal["hdf5", "hdf4"]


@dataclass(frozen=True)
class Hdf(Reader):
    """Reads arrays of numbers of one shape and type as bands.

    Attributes:
        variables: the bands, by path or pattern (`sur_refl_b0?_1`), in this order; by default all arrays of numbers, if
            they are of one shape.
        axes: of an array: `yx` one band each, `byx` or `yxb` one array of several bands, `zyx` volumes. Leading axes of
            length 1 are left out.
        scale: what scale_factor does: `auto` (multiplies, but divides a reflectance or index where it is above 1),
            `multiply` or `divide`.
        bands: names of the bands, instead of those of the arrays.
        max_bytes: refuse to read more than this at once, before anything is allocated.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".hdf", ".h5", ".hdf5", ".he5", ".nc", ".nc4", ".h4")
    variables: tuple[str, ...] = ()
    axes: Axes = "yx"
    scale: Literal["auto", "multiply", "divide"] = "auto"
    bands: tuple[str, ...] = ()
    max_bytes: int = 4 << 30

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether the content is HDF5 (possibly after a block of the user's), HDF4 or classic NetCDF."""
        return _kind(path, head) is not None or head.startswith(_NETCDF3)

    def open(self, path: Path) -> LazyImage:
        """Read names, shapes and attributes.

        Raises:
            DataError: the file is damaged, refers to another one, or it is not plain which arrays are meant.
            ConfigError: it has no such array.
            MissingDataError: h5py or pyhdf is not installed.
        """
        with path.open("rb") as file:
            head = file.read(512)
        kind = _kind(path, head)
        if kind is None:
            raise UnsupportedError(
                f"{path}: is classic NetCDF (version 3), which is not read; convert it with `nccopy -k netCDF-4`."
            )
        found = _hdf4.variables(path) if kind == "hdf4" else _hdf5.variables(path)
        chosen = choose(path, found, self.variables, self.axes)
        if kind == "hdf5":
            for variable in chosen:
                _hdf5.check(path, variable)
        return self._image(path, kind, chosen)

    def _image(self, path: Path, kind: Kind, chosen: list[Variable]) -> LazyImage:
        first = chosen[0]
        lead = squeezed(first.shape, self.axes)
        essential = dict(zip(self.axes, first.shape[lead:], strict=True))
        count = essential.pop("b", len(chosen))
        size = tuple(essential.values())
        stored = dict(zip(self.axes, (first.chunks or first.shape)[lead:], strict=True))
        chunks = tuple(min(stored[axis], n) for axis, n in essential.items())
        per_band = chosen if len(chosen) == count else chosen * count
        bands, flags = self._names(path, chosen, count)
        dtype = np.dtype(first.dtype)
        scales = [physical(path, variable, hdf4=kind == "hdf4", rule=self.scale) for variable in per_band]
        nodata, more = _scene.nodata_values(path, (), [variable.fill for variable in per_band], dtype)
        flags = [*flags, *more]
        if any(divides for _, _, divides in scales) and self.scale == "auto":
            text = "The file's scale_factor is above 1 for values near 1, and was taken for a divisor; for a factor: "
            text += f"{typed('hdf.scale=multiply')}."
            flags.append(Flag("scale_divides", text))
        if any(variable.gaps for variable in chosen):
            flags.append(Flag("unwritten_blocks", "Some blocks were never written; they are not measured."))
        georeference, spacing, places = _place(path, kind, first, size)
        units = tuple(variable.unit for variable in per_band)
        return LazyImage(
            path=path,
            shape=(count, *size),
            dtype=dtype,
            bands=bands,
            spacing=spacing,
            georeference=georeference,
            chunks=chunks,
            source=HdfSource(path, kind, tuple(chosen), self.axes, self.max_bytes),
            nodata=nodata,
            scaling=_scene.scalings(path, [s for s, _, _ in scales], [o for _, o, _ in scales]),
            units=units if any(units) else None,
            flags=(*flags, *places),
        )

    def _names(self, path: Path, chosen: list[Variable], count: int) -> tuple[BandNames, Sequence[Flag]]:
        short = [variable.name.rpartition("/")[2] for variable in chosen]
        names = short if len(set(short)) == len(short) else [variable.name for variable in chosen]
        described: list[str | None] = [*names] if len(names) == count else [None] * count
        return _scene.band_names("hdf.bands", path, self.bands, described, [""] * count)


@dataclass(frozen=True)
class HdfSource(Source):
    """Reads boxes of the arrays.

    Attributes:
        path: the file.
        kind: which library reads it.
        variables: the arrays; one holds all bands where `axes` has a b.
        axes: of an array, after leading axes of length 1.
        max_bytes: the most that one read may take.
    """

    path: Path
    kind: Kind
    variables: tuple[Variable, ...]
    axes: Axes
    max_bytes: int

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read (len(bands), *window) of stored values."""
        last = borrow_file("hdf window", self.path, _Last)
        key = (self.variables, tuple((part.start, part.stop) for part in window), bands)
        if last.key == key:
            return last.values.copy()
        count = len(bands) * int(np.prod([part.stop - part.start for part in window], dtype=np.float64))
        dtype = np.dtype(self.variables[0].dtype)
        if count * dtype.itemsize > self.max_bytes:
            raise BudgetError(
                f"{self.path}: expected at most {self.max_bytes / 2**30:.1f} GiB in one read, {count} values take more; read "
                f"it by windows or raise the budget: {typed(f'hdf.max_bytes={count * dtype.itemsize}')}."
            )
        values = self._values(window, bands)
        if values.nbytes <= _REMEMBERED:
            last.key, last.values = key, values.copy()
        return values

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """Exclude values outside a valid range, and blocks that were never written."""
        if not any(variable.valid or variable.gaps for variable in self.variables):
            return None
        values = self.read(window, bands)
        mask = np.ones(values.shape, dtype=bool)
        for row, position in enumerate(bands):
            variable = self._variable(position)
            if variable.valid is not None:
                mask[row] &= (values[row] >= variable.valid[0]) & (values[row] <= variable.valid[1])
            if variable.gaps:
                mask[row] &= self._turned(_hdf5.written(self.path, variable, self._box(window, position)))
        return mask

    def _values(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        backend = _hdf4.read if self.kind == "hdf4" else _hdf5.read
        shape = (len(bands), *(part.stop - part.start for part in window))
        values = np.empty(shape, dtype=self.variables[0].dtype)
        for row, position in enumerate(bands):
            variable = self._variable(position)
            values[row] = self._turned(backend(self.path, variable, self._box(window, position)))
        return values

    def _variable(self, position: int) -> Variable:
        return self.variables[0] if "b" in self.axes else self.variables[position]

    def _box(self, window: Window, position: int) -> tuple[slice, ...]:
        lead = squeezed(self._variable(position).shape, self.axes)
        parts = dict(zip(self.axes.replace("b", ""), window, strict=True)) | {"b": slice(position, position + 1)}
        return (*[slice(0, 1)] * lead, *(parts[axis] for axis in self.axes))

    def _turned(self, values: np.ndarray) -> np.ndarray:
        """Drop what is one long by nature: leading axes and the band."""
        lead = values.ndim - len(self.axes)
        values = values.reshape(values.shape[lead:])
        return values.squeeze(self.axes.index("b")) if "b" in self.axes else values


@dataclass
class _Last:
    """The last window of a file in this thread: `read_valid` asks for it twice."""

    key: Any = None
    values: np.ndarray = field(default_factory=lambda: np.empty(0))


def _kind(path: Path, head: bytes) -> Kind | None:
    if head.startswith(_HDF4):
        return "hdf4"
    if head.startswith(_HDF5):
        return "hdf5"
    if len(head) == 512 and path.suffix.lower() in Hdf.suffixes:  # HDF5 may begin at 512, 1024, 2048, ...
        with path.open("rb") as file:
            for place in (512, 1024, 2048, 4096):
                file.seek(place)
                if file.read(8) == _HDF5:
                    return "hdf5"
    return None


def _place(
    path: Path, kind: Kind, first: Variable, size: tuple[int, ...]
) -> tuple[Georeference | None, Spacing, tuple[Flag, ...]]:
    if len(size) == 3:
        return None, Spacing.pixels(3), (Flag("no_spacing", "The file does not say how large voxels are."),)
    found = None
    if first.crs is not None and first.transform is not None:
        found = first.crs, first.transform
    else:
        text = _hdf4.structure(path) if kind == "hdf4" else _hdf5.structure(path)
        found = _eos.grid(text, (size[0], size[1]), first.name.rpartition("/")[2])
    crs = None if found is None else _known(found[0])
    if found is None or crs is None:
        return None, Spacing.pixels(2), (Flag("no_crs", "The file does not say where on Earth its pixels are."),)
    return _scene.located(path, crs, found[1], (size[0], size[1]))


def _known(text: str) -> _scene.Crs | None:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return _scene.named_crs(CRS.from_user_input(text)) if _scene.is_crs_text(text) else None
    except CRSError:
        return None
