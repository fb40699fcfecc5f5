"""Whether numbers are in the unit of a sensor's bands: counts for reflectance, Celsius for kelvin, linear power for dB.

And, where no sensor tells a unit, whether they are of the magnitude that an encoder's value space is made for.
"""

from __future__ import annotations

import numpy as np

from core.bands import Band, BandUnit
from core.contract import Input
from core.errors import BandError, ShapeError

_UNITS: dict[BandUnit, str] = {
    "reflectance": "reflectance in 0..1",
    "percent reflectance": "reflectance in percent, 0..100",
    "K": "brightness temperature in K",
    "dB": "backscatter in dB, about -40..10",
    "linear power": "backscatter as linear power",
    "dn": "counts as delivered",
    "full scale": "shares of full scale, 0..1",
}

_TOGETHER: dict[BandUnit, tuple[str, str]] = {
    "percent reflectance": ("reflectance in 0..1", "multiply by 100"),
    "dB": ("linear power or amplitude", "take 10 log10 of the power"),
}

_SCALE = "by the file's own scale and offset or before"
_CURES: dict[BandUnit, tuple[tuple[float, float, str], ...]] = {
    "reflectance": (
        (2.0, 200.0, f"it looks like percent or a picture of 8 bit, bring it to 0..1 {_SCALE}"),
        (200.0, 70000.0, f"it looks like counts, divide by 10000 or as the product's metadata says, {_SCALE}"),
    ),
    "percent reflectance": ((200.0, 70000.0, f"it looks like counts, scale them to reflectance {_SCALE}"),),
    "K": (
        (-140.0, 100.0, "it looks like degrees Celsius or radiance, convert it to K"),
        (510.0, 70000.0, f"it looks like counts or hundredths of K, scale them {_SCALE}"),
    ),
    "dB": ((40.0, 70000.0, "it looks like amplitude counts, calibrate them and take 10 log10 of the power"),),
    "full scale": ((1.0, 70000.0, "it looks like counts, divide by the full scale of the file's type"),),
}

_FAR = 100
"""Times: what is off by more in every band of every image is another unit.

The commonest confusion, counts for reflectance, is 10,000 times, and half of that as a factor is 100. Places and seasons move
all bands together by much less: an encoder of one land cover of EuroSAT finds chips of the others at most 2.6 times away in
every band (5.5 in red alone). Open water reflects 1/100 of land in near infrared, but half of it in blue; clouds are 30 times
as bright as water in blue. The price: counts of nothing but water may pass for an encoder of land.
"""


def check_range(entry: Input, low: np.ndarray, median: np.ndarray, high: np.ndarray, *, source: str) -> None:
    """Refuse physical values that are not in the unit of the input's sensor: counts for reflectance, linear power for dB.

    Percent for shares lies in no band's plausible range, so the median tells; the reverse is plausible in each band alone
    (0.2 percent is a dark pixel), so all bands are looked at together, and so is linear power, which is never negative.
    An input without a sensor says nothing of its units, and nothing is checked (`check_magnitude` does what can be done); a
    band without data (NaN) is passed over.

    Args:
        entry: the input.
        low: (C,) a low percentile of each band of the input, such as the 1st, of physical values: after the file's scaling.
        median: (C,) and
        high: (C,) such as the 99th.
        source: what to call the values in an error, usually the file.

    Raises:
        BandError: a sentence with the band, its median, the expected unit and what to do.
        ShapeError: not one number per band.
    """
    bands = entry.described
    numbers = np.array([low, median, high], dtype=np.float64)
    if not bands:
        return
    if numbers.shape != (3, len(bands)):
        raise ShapeError(f"{source}: expected three numbers for each of {entry.bands}, got shape {numbers.shape}.")
    wrong = [
        (band, values)
        for band, values in zip(bands, numbers.T, strict=True)
        if np.isfinite(values).all() and not _plausible(band, *values)
    ]
    if wrong:
        band, values = wrong[0]
        others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BandError(
            f"{source}: band {band.name} has median {values[1]:.6g}{others}, the encoder expects {_UNITS[band.unit]}: "
            f"{_cure(band, *values)}."
        )
    for unit, (looks_like, cure) in _TOGETHER.items():
        columns = [at for at, band in enumerate(bands) if band.unit == unit and np.isfinite(numbers[:, at]).all()]
        least, most = (numbers[0, columns].min(), numbers[2, columns].max()) if columns else (0.0, 0.0)
        share = unit == "percent reflectance" and 0.02 < most <= 2.0
        linear = unit == "dB" and least >= 0.0 and most > 0.0
        if share or linear:
            raise BandError(
                f"{source}: the bands {', '.join(bands[at].name for at in columns)} lie between {least:.6g} and {most:.6g}, "
                f"which is {looks_like}; the encoder expects {_UNITS[unit]}: {cure}."
            )


def check_magnitude(entry: Input, low: np.ndarray, median: np.ndarray, high: np.ndarray, *, source: str) -> None:
    """Refuse values that are far smaller, or far larger, than an input without a sensor is normalised for.

    All bands of all images must be more than 100 times off, in one direction. Too small is judged by the 99th percentile,
    too large by the median, for water is darker than land by more than anything is brighter, and fill that nobody declared is
    mostly 0. A band that is 0 all over, or has no data (NaN), tells nothing; nor does an input with a sensor (`check_range`),
    or one whose images are normalised each by itself.

    Args:
        entry: the input.
        low: (R, C) the 1st percentile of each of R images and of each band of the input, of physical values.
        median: (R, C) and
        high: (R, C) the 99th.
        source: what to call the values in an error, usually the file.

    Raises:
        BandError: a sentence with a band, its median, what the encoder is trained on, and what to do.
        ShapeError: not one number per image and band.
    """
    space, numbers = entry.normalisation, np.array([low, median, high], dtype=np.float64)
    if entry.sensor or space.method != "fixed":
        return
    if numbers.ndim != 3 or numbers.shape[2] != len(entry.bands):
        raise ShapeError(f"{source}: expected numbers (R, C) of {entry.bands}, got shape {numbers.shape[1:]}.")
    known = np.isfinite(numbers).all(axis=0) & (numbers != 0).any(axis=0)
    if not known.any():
        return
    mean, sizes = np.abs(space.mean), np.abs(numbers)
    far = {
        "smaller": np.maximum(sizes[0], sizes[2]) * _FAR < mean,
        "larger": sizes[1] > (mean + space.std) * _FAR,
    }
    for word, where in far.items():
        if where[known].all():
            image, band = np.argwhere(known)[0]
            raise BandError(
                f"{source}: band {entry.bands[band]} has median {numbers[1, image, band]:.6g}, the encoder is trained on "
                f"values about {space.mean[band]:.6g} (deviation {space.std[band]:.6g}) there, and every band is more than "
                f"{_FAR} times {word} than it should be: bring the images to the unit of those that it is trained on, by the "
                "file's own scale and offset or before."
            )


def _plausible(band: Band, low: float, median: float, high: float) -> bool:
    """Say whether the median lies in the band's range, and nothing further out than five times that range is wide."""
    reach = 5 * (band.high - band.low)
    return band.low <= median <= band.high and band.high - reach <= low and high <= band.low + reach


def _cure(band: Band, low: float, median: float, high: float) -> str:
    outer = median if not band.low <= median <= band.high else max(low, high, key=abs)
    for least, most, cure in _CURES.get(band.unit, ()):
        if least <= outer <= most:
            return cure
    if outer == median:
        return f"plausible is {band.low:g} to {band.high:g}, convert the values or name the sensor that they are from"
    return f"values reach {outer:.6g}, declare it as nodata or convert the values; plausible is {band.low:g} to {band.high:g}"
