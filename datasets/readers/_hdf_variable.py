"""An array of an HDF file, whatever the library, and which of them are the bands of an image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np

from core.errors import ConfigError, DamagedError, UnsafeError, UnsupportedError, nearest
from datasets.readers._typed import typed

Axes = Literal["yx", "byx", "yxb", "zyx"]

_SHOWN = 40  # variables that an error lists
# Quantities that stay near 1: a factor above 1 divides (MOD09 writes 10000 where CF would write 0.0001).
_NEAR_ONE = frozenset({"reflectance", "ndvi", "evi"})


@dataclass(frozen=True)
class Variable:
    """One array.

    Attributes:
        name: its path in the file.
        shape: as stored.
        dtype: numpy type string, native byte order; "" where it holds no numbers.
        chunks: blocks that it is stored in, or None.
        scale: scale_factor, or 1.
        offset: add_offset, or 0.
        fill: value that means "not measured", or None.
        valid: (lowest, highest) raw value that was measured, or None.
        unit: of the physical value, or None.
        coordinates: names of arrays that say where its pixels are.
        crs: the CRS that it names, as text.
        transform: pixel corners to that CRS.
        outside: whether its values are in another file.
        gaps: whether some of its blocks were never written.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None = None
    scale: float = 1.0
    offset: float = 0.0
    fill: float | None = None
    valid: tuple[float, float] | None = None
    unit: str | None = None
    coordinates: frozenset[str] = frozenset()
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    outside: bool = False
    gaps: bool = False


def described(name: str, shape: tuple[int, ...], dtype: np.dtype | None, said: dict[str, Any], **more: Any) -> Variable:
    """Take what attributes say by the CF convention; a valid_range wins over valid_min and valid_max."""
    numbers = {key: _numbers(said.get(key)) for key in ("scale_factor", "add_offset", "_FillValue", "missing_value")}
    limits = _numbers(said.get("valid_range"))
    low, high = _numbers(said.get("valid_min")), _numbers(said.get("valid_max"))
    valid = (limits[0], limits[1]) if len(limits) == 2 else None
    if valid is None and (low or high):
        valid = (low[0] if low else -math.inf, high[0] if high else math.inf)
    fills = numbers["_FillValue"] or numbers["missing_value"]
    return Variable(
        name=name,
        shape=shape,
        dtype=dtype.newbyteorder("=").str if dtype is not None and dtype.kind in "iuf" else "",
        scale=(numbers["scale_factor"] or [1.0])[0],
        offset=(numbers["add_offset"] or [0.0])[0],
        fill=fills[0] if fills else None,
        valid=valid,
        unit=_text(said.get("units")) or None,
        coordinates=frozenset(_text(said.get("coordinates")).split()),
        **more,
    )


def choose(path: Path, found: list[Variable], wanted: tuple[str, ...], axes: Axes) -> list[Variable]:
    """Give the variables that are the bands: those `wanted` (by path or pattern such as `sur_refl_b0?_1`), or all.

    Raises:
        ConfigError: a wanted one is not there.
        UnsupportedError: they are not of one shape and type, or it is not plain which are meant.
        UnsafeError: their values are in another file.
    """
    named = [variable for pattern in wanted for variable in _matching(path, found, pattern)]
    chosen = named if wanted else _plain(found, axes)
    if any(variable.outside for variable in chosen):
        raise UnsafeError(
            f"{path}: values of {[v.name for v in chosen if v.outside]} are in another file; copy them into one."
        )
    if not chosen:
        raise UnsupportedError(
            f"{path}: expected arrays of numbers with axes '{axes}', found {_listed(found)}; choose with "
            f"{typed('hdf.axes=...', 'hdf.variables=[NAME,NAME]')}."
        )
    odd = [v for v in chosen if not v.dtype or len(_essential(v.shape, axes)) != (2 if axes == "yx" else 3)]
    if odd or len({_essential(v.shape, axes) for v in chosen}) > 1 or len({v.dtype for v in chosen}) > 1:
        raise UnsupportedError(
            f"{path}: expected arrays of one shape and type with axes '{axes}', got {_listed(odd or chosen)}; choose by "
            f"their names, such as {typed(f'hdf.variables=[{_example(chosen)}]')}."
        )
    if axes in ("byx", "yxb") and len(chosen) > 1:
        raise UnsupportedError(
            f"{path}: expected one array whose axis is the bands, got {_listed(chosen)}; name it: "
            f"{typed(f'hdf.variables=[{chosen[0].name}]')}."
        )
    return chosen


def squeezed(shape: tuple[int, ...], axes: Axes) -> int:
    """How many leading axes of length 1 (a time, a band) are not among `axes`."""
    return len(shape) - len(_essential(shape, axes))


def physical(path: Path, variable: Variable, *, hdf4: bool, rule: str) -> tuple[float, float, bool]:
    """Give (scale, offset) with physical = raw * scale + offset, and whether the file's factor is a divisor.

    NetCDF: raw * scale_factor + add_offset. HDF4: scale_factor * (raw - add_offset), as its library and NASA's products
    define it; where the factor is a divisor, (raw - add_offset) / scale_factor.
    """
    scale, offset = variable.scale, variable.offset
    if not (math.isfinite(scale) and math.isfinite(offset)) or scale == 0:
        raise DamagedError(f"{path}: {variable.name} has scale_factor {scale} and add_offset {offset}; mend the file.")
    whole = variable.dtype[1:2] in "iu"
    divides = rule == "divide" or (rule == "auto" and whole and scale > 1 and str(variable.unit).lower() in _NEAR_ONE)
    factor = 1 / scale if divides else scale
    return factor, (0.0 - factor * offset if hdf4 or divides else offset) + 0.0, divides


def _plain(found: list[Variable], axes: Axes) -> list[Variable]:
    places = {name for variable in found for name in variable.coordinates}
    wanted = 2 if axes == "yx" else 3
    return [
        variable
        for variable in found
        if variable.dtype
        and len(_essential(variable.shape, axes)) == wanted
        and variable.name.rpartition("/")[2] not in places
    ]


def _matching(path: Path, found: list[Variable], pattern: str) -> list[Variable]:
    plain = pattern.strip("/")
    hits = [v for v in found if v.name == plain] or [v for v in found if fnmatchcase(v.name, plain)]
    hits = hits or [v for v in found if fnmatchcase(v.name.rpartition("/")[2], plain)]
    if not hits:
        raise ConfigError(f"{path}: has no array '{pattern}': {nearest(plain, [v.name for v in found])}")
    return hits


def _essential(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    while len(shape) > len(axes) and shape[0] == 1:
        shape = shape[1:]
    return shape


def _example(variables: list[Variable]) -> str:
    """Two arrays that go together, as an option is typed: of the shape and type that most have."""
    kinds = Counter((v.shape, v.dtype) for v in variables if v.dtype)
    kind = max(kinds, key=lambda kind: kinds[kind]) if kinds else None
    return ",".join([v.name.rpartition("/")[2] for v in variables if (v.shape, v.dtype) == kind][:2]) or "NAME,NAME"


def _listed(variables: Iterable[Variable]) -> str:
    names = [
        f"{v.name} {'x'.join(map(str, v.shape))} {np.dtype(v.dtype) if v.dtype else 'no numbers'}" for v in variables
    ]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"[{', '.join(names[:_SHOWN])}{more}]"


def _numbers(value: Any) -> list[float]:
    if value is None or isinstance(value, str | bytes):
        return []
    flat = np.asarray(value).ravel()
    return [float(v) for v in flat] if flat.dtype.kind in "iuf" else []


def _text(value: Any) -> str:
    """A short printable text, else nothing."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    text = value.strip(" \0") if isinstance(value, str) else ""
    return text if text.isprintable() and len(text) <= 200 else ""
