"""Statistics of one band in one pass: take a block at a time, merge in any order, ask at the end.

Whole numbers are exact whatever the blocks were: their sums are whole numbers too, and only the answer is rounded.
Real numbers are merged by Chan, Golub, LeVeque 1979; other blocks change the last digits (about 1e-14 of the value).

Percentiles come from a histogram of 65,536 fixed bins. For 8 and 16 bit whole numbers a bin is a value, so percentiles
are exact. For all others a bin is the upper 16 bits of the value as float32, ordered: 7 bits of mantissa, so a percentile
is within 2^-8 of the true one, relatively (values beyond the range of float32 fall into its last bins).
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.errors import ConfigError, DataError

BINS = 65_536

_LIMB = 16  # bits: products of two limbs sum up in int64 for up to 2^31 values
_BLOCK = 1 << 24  # values that are looked at together


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of one band; immutable, mergeable, picklable.

    Attributes:
        dtype: of the voxels, as numpy spells it.
        count: voxels seen.
        valid: those that are measured data; all figures below are of these.
        nonfinite: voxels that are NaN or infinity (never valid).
        low: least value, NaN when none is valid.
        high: greatest value, NaN when none is valid.
        total: sum of whole numbers, exact; 0 for real ones.
        squares: sum of squares of whole numbers, exact; 0 for real ones.
        centre: mean of real numbers; 0 for whole ones.
        spread: sum of squared deviations of real numbers; 0 for whole ones.
        bins: numbers of the bins that hold something, ascending.
        counts: voxels in each of them.
    """

    dtype: str
    count: int
    valid: int
    nonfinite: int
    low: float
    high: float
    total: int
    squares: int
    centre: float
    spread: float
    bins: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, dtype: np.dtype) -> Statistics:
        """Statistics of no voxel."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(str(_plain(dtype)), 0, 0, 0, math.nan, math.nan, 0, 0, 0.0, 0.0, nothing, nothing)

    @classmethod
    def of(cls, voxels: np.ndarray, valid: np.ndarray | None = None) -> Statistics:
        """Look at a block of one band, any shape; `valid` is of the same shape, None = whatever is finite."""
        flat = voxels.reshape(-1)
        inside = None if valid is None else np.broadcast_to(valid, voxels.shape).reshape(-1)
        found = cls.empty(voxels.dtype)
        for start in range(0, len(flat), _BLOCK):
            part = slice(start, start + _BLOCK)
            found = found.merge(_look(flat[part], None if inside is None else inside[part]))
        return found

    def merge(self, other: Statistics) -> Statistics:
        """Give the statistics of both together.

        Raises:
            DataError: they are of different types of voxels.
        """
        if self.dtype != other.dtype:
            raise DataError(f"expected statistics of {self.dtype} to merge, got some of {other.dtype}.")
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        valid = self.valid + other.valid
        delta = other.centre - self.centre
        share = other.valid / valid if valid else 0.0
        bins, places = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        counts = np.zeros(len(bins), dtype=np.int64)
        np.add.at(counts, places, np.concatenate([self.counts, other.counts]))
        with np.errstate(over="ignore", invalid="ignore"):  # squares beyond float64 give an infinite spread
            spread = float(np.float64(self.spread) + other.spread + np.float64(delta) ** 2 * self.valid * share)
        return Statistics(
            self.dtype,
            self.count + other.count,
            valid,
            self.nonfinite + other.nonfinite,
            float(np.fmin(self.low, other.low)),
            float(np.fmax(self.high, other.high)),
            self.total + other.total,
            self.squares + other.squares,
            self.centre + delta * share,
            spread if self.valid and other.valid else self.spread + other.spread,
            bins,
            counts,
        )

    @property
    def whole(self) -> bool:
        """Whether the voxels are whole numbers."""
        return np.dtype(self.dtype).kind in "iub"

    @property
    def mean(self) -> float:
        """Mean of the valid voxels, NaN when there are none."""
        if not self.valid:
            return math.nan
        return self.total / self.valid if self.whole else self.centre

    @property
    def std(self) -> float:
        """Standard deviation of the valid voxels (divided by their number), NaN when there are none."""
        if not self.valid:
            return math.nan
        if self.whole:  # whole numbers of any length divide with one rounding
            return math.sqrt((self.valid * self.squares - self.total**2) / self.valid**2)
        return math.sqrt(self.spread / self.valid)

    @property
    def valid_share(self) -> float:
        """Valid voxels of all voxels, 0 when there are none."""
        return self.valid / self.count if self.count else 0.0

    @property
    def nonfinite_share(self) -> float:
        """NaN and infinite voxels of all voxels, 0 when there are none."""
        return self.nonfinite / self.count if self.count else 0.0

    @property
    def mode_share(self) -> float:
        """Share of the valid voxels that are in the fullest bin; of 8 and 16 bit, that have the most common value."""
        return int(self.counts.max()) / self.valid if self.valid else 0.0

    def percentile(self, q: float) -> float:
        """Give the least value that at least `q` percent of the valid voxels do not exceed; NaN when there are none.

        Raises:
            ConfigError: `q` is not in [0, 100].
        """
        if not 0 <= q <= 100:
            raise ConfigError(f"expected a percentile in [0, 100], got {q}.")
        if not self.valid:
            return math.nan
        rank = max(1, math.ceil(self.valid * q / 100))
        place = int(np.searchsorted(np.cumsum(self.counts), rank))
        return min(max(_value(int(self.bins[place]), np.dtype(self.dtype)), self.low), self.high)

    def summary(self) -> dict[str, float]:
        """The figures that people ask for, ready for JSON (NaN stays NaN)."""
        figures: dict[str, float] = {"count": self.count, "valid": self.valid, "valid_share": self.valid_share}
        figures |= {"nonfinite": self.nonfinite, "mean": self.mean, "std": self.std, "low": self.low, "high": self.high}
        return figures | {f"p{q:g}": self.percentile(q) for q in (0.5, 1, 5, 25, 50, 75, 95, 99, 99.5)}

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON: exact sums as text, the histogram packed."""
        return {
            "dtype": self.dtype,
            "count": self.count,
            "valid": self.valid,
            "nonfinite": self.nonfinite,
            "low": None if math.isnan(self.low) else self.low,
            "high": None if math.isnan(self.high) else self.high,
            "total": str(self.total),  # JSON readers elsewhere keep 53 bits of a number
            "squares": str(self.squares),
            "centre": self.centre,
            "spread": self.spread,
            "bins": _packed(self.bins),
            "counts": _packed(self.counts),
        }

    @classmethod
    def from_dict(cls, entries: Mapping[str, Any]) -> Statistics:
        """Undo `to_dict`.

        Raises:
            DataError: an entry is missing or makes no sense.
        """
        try:
            low, high = (math.nan if entries[name] is None else float(entries[name]) for name in ("low", "high"))
            found = cls(
                dtype=str(_plain(np.dtype(entries["dtype"]))),
                count=int(entries["count"]),
                valid=int(entries["valid"]),
                nonfinite=int(entries["nonfinite"]),
                low=low,
                high=high,
                total=int(entries["total"]),
                squares=int(entries["squares"]),
                centre=float(entries["centre"]),
                spread=float(entries["spread"]),
                bins=_unpacked(entries["bins"]),
                counts=_unpacked(entries["counts"]),
            )
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise DataError(f"expected statistics as written before, got others ({error}).") from None
        if len(found.bins) != len(found.counts) or int(found.counts.sum()) != found.valid:
            raise DataError("expected statistics as written before, but their histogram does not add up.")
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Statistics) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.dtype, self.count, self.total, self.centre))


def of_bands(voxels: np.ndarray, valid: np.ndarray | None = None) -> tuple[Statistics, ...]:
    """Statistics of each band of a block (C, *S); `valid` (C, *S) or (1, *S)."""
    if valid is None:
        return tuple(Statistics.of(band) for band in voxels)
    return tuple(Statistics.of(*pair) for pair in zip(voxels, np.broadcast_to(valid, voxels.shape), strict=True))


def merge_bands(first: Sequence[Statistics], second: Sequence[Statistics]) -> tuple[Statistics, ...]:
    """Merge band by band."""
    return tuple(one.merge(other) for one, other in zip(first, second, strict=True))


def _plain(dtype: np.dtype) -> np.dtype:
    return np.dtype(dtype).newbyteorder("=")


def _look(voxels: np.ndarray, valid: np.ndarray | None) -> Statistics:
    dtype = _plain(voxels.dtype)
    nothing = Statistics.empty(dtype)
    nonfinite = 0
    if dtype.kind == "f":
        finite = np.isfinite(voxels)
        nonfinite = len(voxels) - int(np.count_nonzero(finite))
        valid = finite if valid is None else valid & finite
    values = voxels if valid is None or valid.all() else voxels[valid]
    seen = replace(nothing, count=len(voxels), nonfinite=nonfinite)
    if not len(values):
        return seen
    if dtype.kind == "b":
        values = values.astype(np.uint8)
    bins, counts = _histogram(values)
    low, high = float(values.min()), float(values.max())
    seen = replace(seen, valid=len(values), low=low, high=high, bins=bins, counts=counts)
    if dtype.kind != "f":
        total, squares = _sums(values, bins, counts)
        return replace(seen, total=total, squares=squares)
    wide = values.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        centre = float(np.clip(wide.mean(), low, high))
        spread = float(((wide - centre) ** 2).sum())
    return replace(seen, centre=centre, spread=spread)


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(_bin(values), minlength=1)
    bins = np.flatnonzero(counts)
    return bins, counts[bins].astype(np.int64)


def _bin(values: np.ndarray) -> np.ndarray:
    """Number of the bin of each value."""
    if values.dtype.kind != "f" and values.dtype.itemsize <= 2:
        if values.dtype.kind == "u":
            return values
        shift = -int(np.iinfo(values.dtype).min)
        lifted: np.ndarray = (values.astype(np.int32) + shift).astype(np.uint16)
        return lifted
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        top = float(np.finfo(np.float32).max)
        values = np.clip(values, -top, top)
    narrow = values.astype(np.float32, copy=False)
    bits = np.ascontiguousarray(narrow).view(np.uint32)
    negative = bits >> np.uint32(31) == 1
    ordered = np.where(negative, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> np.uint32(16)).astype(np.uint16)


def _value(number: int, dtype: np.dtype) -> float:
    """The value that stands for a bin: itself for 8 and 16 bit whole numbers, else the middle of the bin."""
    if dtype.kind == "b":
        return float(number)
    if dtype.kind != "f" and dtype.itemsize <= 2:
        return float(number + int(np.iinfo(dtype).min))
    ordered = np.uint32((number << 16) | 0x8000)
    bits = ordered & np.uint32(0x7FFFFFFF) if number >> 15 else ~ordered
    return float(np.array([bits], dtype=np.uint32).view(np.float32)[0])


def _sums(values: np.ndarray, bins: np.ndarray, counts: np.ndarray) -> tuple[int, int]:
    """Exact sum and sum of squares: by the histogram where bins are values, else by 16 bit limbs."""
    if values.dtype.itemsize <= 2:
        at = bins.astype(np.int64) + int(np.iinfo(values.dtype).min)  # at most 2^56 in a block: int64 is exact
        return int(np.dot(at, counts)), int(np.dot(at * at, counts))
    number = values.dtype.itemsize * 8 // _LIMB
    low = values.dtype.type((1 << _LIMB) - 1)
    limbs = [(values >> values.dtype.type(_LIMB * k)) & low for k in range(number - 1)]
    limbs.append(values >> values.dtype.type(_LIMB * (number - 1)))  # carries the sign
    wide = [limb.astype(np.int64) for limb in limbs]
    total = sum(int(limb.sum()) << (_LIMB * k) for k, limb in enumerate(wide))
    squares = sum(int(np.dot(wide[j], wide[k])) << (_LIMB * (j + k)) for j in range(number) for k in range(number))
    return total, squares


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.astype("<i8").tobytes(), 6)).decode()


def _unpacked(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype="<i8").astype(np.int64)
