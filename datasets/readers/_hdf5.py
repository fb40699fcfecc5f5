"""Arrays of HDF5 and NetCDF-4 files by h5py: hard links only, so that no other file is ever opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BudgetError, DamagedError, HalfseenError, MissingDataError, UnsupportedError
from datasets.handles import borrow_file, discard
from datasets.readers._hdf_variable import Variable, described

_MOST = 20_000  # objects that are looked at
_LONGEST = 1 << 20  # values of a coordinate that are looked at
_BLOCK = 1 << 30  # bytes of one block, decoded
_METRES = dict.fromkeys(("", "m", "metre", "metres", "meter", "meters"), 1.0)
_DEGREES = dict.fromkeys(("degree", "degrees", "degrees_north", "degrees_east", "degree_north", "degree_east"), 1.0)
_TO_CRS = {**_METRES, **_DEGREES, "km": 1000.0}  # coordinates in other units are not understood
_EVEN = 0.01  # of a step: coordinates are often float32


def variables(path: Path) -> list[Variable]:
    """Describe every array that is in the file itself.

    Raises:
        DamagedError: the file is truncated or altered.
    """
    with _errors(path, "its directory"):
        return [_described(file, name, data) for file in [_file(path)] for name, data in _arrays(path, file)]


def check(path: Path, variable: Variable) -> None:
    """Refuse what cannot be decoded here, or would take too much.

    Raises:
        UnsupportedError: a filter that is not installed.
        BudgetError: one block of it is too large.
    """
    import h5py

    with _errors(path, variable.name):
        data = _file(path)[variable.name]
        filters = data.id.get_create_plist()
        codes = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
        absent = [code for code in codes if not h5py.h5z.filter_avail(code)]
    if absent:
        raise UnsupportedError(
            f"{path}: {variable.name} is packed with filter {absent[0]}, which is not installed; install hdf5plugin, or "
            "convert the file with h5repack."
        )
    size = int(np.prod(variable.chunks or (1,), dtype=np.float64)) * np.dtype(variable.dtype).itemsize
    if size > _BLOCK:
        raise BudgetError(f"{path}: one block of {variable.name} takes {size / 2**30:.1f} GiB; convert the file.")


def read(path: Path, variable: Variable, box: tuple[slice, ...]) -> np.ndarray:
    """Read a box of stored values, in native byte order.

    Raises:
        DamagedError: it cannot be decoded.
    """
    with _errors(path, f"{variable.name}{_shown(box)}"):
        values = np.asarray(_file(path)[variable.name][box])
    return values.astype(variable.dtype, copy=False)


def written(path: Path, variable: Variable, box: tuple[slice, ...]) -> np.ndarray:
    """Say which values of a box are in blocks that were written; an array in one piece with gaps was never written."""
    mask: np.ndarray = np.zeros([part.stop - part.start for part in box], dtype=bool)
    chunks = variable.chunks
    if chunks is None:
        return mask
    with _errors(path, f"{variable.name}{_shown(box)}"):
        data = _file(path)[variable.name]
        counts = [range(p.start // n, (p.stop - 1) // n + 1) for p, n in zip(box, chunks, strict=True)]
        for place in np.ndindex(*map(len, counts)):
            corner = tuple(c[k] * n for c, k, n in zip(counts, place, chunks, strict=True))
            if data.id.get_chunk_info_by_coord(corner).byte_offset is not None:
                inside = zip(corner, chunks, box, strict=True)
                mask[tuple(slice(max(0, a - p.start), max(0, a + n - p.start)) for a, n, p in inside)] = True
    return mask


def structure(path: Path) -> str:
    """The text in which HDF-EOS5 describes its grids, or nothing."""
    with _errors(path, "StructMetadata"):
        found = _file(path).get("HDFEOS INFORMATION/StructMetadata.0", getlink=False)
        value = found[()] if found is not None and found.shape == () else b""
    return value.decode("ascii", errors="replace") if isinstance(value, bytes) else str(value)


def _file(path: Path) -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingDataError(f"{path}: reading HDF5 needs h5py: pip install 'halfseen[hdf]'.") from None
    return borrow_file("hdf5", path, lambda: h5py.File(path, "r", locking=False))


@contextmanager
def _errors(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, HalfseenError):
            raise
        discard(("hdf5", path))
        raise DamagedError(
            f"{path}: expected a whole HDF5 file, but {what} cannot be read ({error}); copy it again or remove it."
        ) from None


def _shown(box: tuple[slice, ...]) -> str:
    return "[" + ", ".join(f"{part.start}:{part.stop}" for part in box) + "]"


def _arrays(path: Path, file: Any) -> Iterator[tuple[str, Any]]:
    """Walk over hard links; soft links lead to what is found anyway, external ones to other files."""
    import h5py

    waiting, seen = [("", file)], set()
    while waiting:
        prefix, group = waiting.pop()
        for key in group:
            name = f"{prefix}{key}"
            if isinstance(group.get(key, getlink=True), h5py.HardLink):
                held = group[key]
                identity = h5py.h5o.get_info(held.id).addr
                if identity in seen or isinstance(held, h5py.Datatype):
                    continue
                seen.add(identity)
                if len(seen) > _MOST:
                    raise UnsupportedError(f"{path}: holds more than {_MOST} arrays and groups; split it.")
                if isinstance(held, h5py.Group):
                    waiting.append((f"{name}/", held))
                else:
                    yield name, held
            elif isinstance(group.get(key, getlink=True), h5py.ExternalLink):
                yield name, None


def _described(file: Any, name: str, data: Any) -> Variable:
    if data is None:
        return Variable(name, (), "", outside=True)
    said = {key: data.attrs.get(key) for key in data.attrs if key in _READ}
    shape = tuple(int(n) for n in data.shape or ())
    found = described(name, shape, data.dtype, said, chunks=data.chunks)
    if not found.dtype or len(shape) < 2:
        return found
    crs, transform = _placed(file, data, said)
    outside = bool(data.external) or data.is_virtual
    return replace(found, crs=crs, transform=transform, outside=outside, gaps=not outside and _gaps(data))


_READ = frozenset(
    "scale_factor add_offset _FillValue missing_value valid_range valid_min valid_max units coordinates grid_mapping".split()
)


def _gaps(data: Any) -> bool:
    if data.chunks is None:
        return bool(data.id.get_storage_size() == 0 and data.size)
    blocks = np.prod([-(-n // chunk) for n, chunk in zip(data.shape, data.chunks, strict=True)], dtype=np.float64)
    return bool(data.id.get_num_chunks() < blocks)


def _placed(
    file: Any, data: Any, said: dict[str, Any]
) -> tuple[str | None, tuple[float, float, float, float, float, float] | None]:
    """CRS and geotransform by the CF convention: evenly spaced coordinates of its last two dimensions."""
    y, x = (_coordinate(data.dims[axis]) for axis in (data.ndim - 2, data.ndim - 1))
    if y is None or x is None or y[2] not in _TO_CRS or x[2] not in _TO_CRS:
        return None, None
    crs = "EPSG:4326" if y[2].startswith("degree") and x[2].startswith("degree") else None
    y, x = ((first * _TO_CRS[unit], step * _TO_CRS[unit], unit) for first, step, unit in (y, x))
    mapping = said.get("grid_mapping")
    mapping = mapping.decode() if isinstance(mapping, bytes) else mapping
    if isinstance(mapping, str):
        beside = data.parent.get(mapping, None) if mapping in data.parent else file.get(mapping, None)
        texts = [] if beside is None else [beside.attrs.get(key) for key in ("crs_wkt", "spatial_ref")]
        texts = [text.decode() if isinstance(text, bytes) else text for text in texts if text is not None]
        crs = next((text for text in texts if isinstance(text, str) and text), crs)
    return crs, (x[1], 0.0, x[0] - x[1] / 2, 0.0, y[1], y[0] - y[1] / 2)


def _coordinate(dimension: Any) -> tuple[float, float, str] | None:
    """First value, step and unit of a dimension's coordinates, if they are evenly spaced."""
    if not len(dimension):
        return None
    if dimension[0].ndim != 1 or dimension[0].size > _LONGEST:  # before anything is allocated
        return None
    values = np.asarray(dimension[0][:], dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    step = (values[-1] - values[0]) / (len(values) - 1)
    even = values[0] + step * np.arange(len(values))
    if step == 0 or np.abs(values - even).max() > _EVEN * abs(step):
        return None
    unit = dimension[0].attrs.get("units", "")
    return float(values[0]), float(step), unit.decode() if isinstance(unit, bytes) else str(unit)
