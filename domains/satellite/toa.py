"""Radiance at the top of the atmosphere to what sensors' bands are: reflectance in percent and brightness temperature in K.

MODIS counts (MOD021KM, MYD021KM) and ABI radiances (Level-1b) become the physical values that `core.sensors` describes, and
SatVision-TOA's value space is applied and undone. Arrays are (C, *S) with bands by name; what is no number stays none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from core.bands import BandNames, align
from core.contract import Input, Normalisation
from core.encoders.cards.satvision import satvision_input
from core.errors import BandError, ConfigError, ShapeError
from core.sensors import get_sensor
from domains.satellite.radiance import (
    GOES16_PLANCK,
    GOES16_SUN,
    MODIS_PLANCK,
    AbiPlanck,
    Satellite,
    abi_kelvin,
    modis_kelvin,
)

_GREATEST_COUNT = 32767  # larger numbers of Level-1B say why there is no measurement


ABI_BANDS: BandNames = (
    "C02",
    "C03",
    "C01",
    "C05",
    "C06",
    "C07",
    "C04",
    "C09",
    "C10",
    "C11",
    "C12",
    "C14",
    "C15",
    "C16",
)
"""The ABI channels that stand nearest to SatVision's 14 MODIS bands, in its order: all but C08 and C13."""

_LEGACY_SUN, _LEGACY_DISTANCE = 2017.0, 0.99
_LEGACY_COLDEST = (117.04327, 152.00592, 157.96591, 176.15349, 210.60493, 210.52264, 218.10147, 225.9894)
_LEGACY_HOTTEST = (221.07022, 224.44113, 242.3326, 307.42004, 290.8879, 343.72617, 345.72894, 323.5239)


def modis_physical(
    counts: np.ndarray,
    bands: BandNames,
    *,
    scales: Sequence[float],
    offsets: Sequence[float],
    satellite: Satellite,
) -> np.ndarray:
    """Calibrate counts of MODIS Level-1B, (C, *S): reflectance in percent and brightness temperature in K, float32.

    Reflectance is scale x (count - offset) and still holds the cosine of the sun's zenith angle, as SatVision reads it; radiance
    of thermal bands is scale x (count - offset) in W m-2 sr-1 um-1 and goes through the inverse of Planck's law. Counts
    above 32767 and radiances that are not above 0 become NaN.

    Args:
        counts: as the file stores them.
        bands: their names, as `core.sensors.modis_toa14`.
        scales: per band, the file's `reflectance_scales`, or `radiance_scales` of a thermal band.
        offsets: per band, alike.
        satellite: which instrument; their filters differ.

    Raises:
        BandError: a band that this table does not know.
        ShapeError: not one channel, scale and offset per band.
    """
    _check(counts, bands, "modis_toa14", scales, offsets)
    if satellite not in MODIS_PLANCK:
        raise ConfigError(f"expected the satellite terra or aqua, got '{satellite}'.")
    measured = np.where(counts <= _GREATEST_COUNT, counts, np.nan).astype(np.float64)
    ones = (1,) * (counts.ndim - 1)
    linear = (measured - np.reshape(offsets, (-1, *ones))) * np.reshape(scales, (-1, *ones))
    planck = MODIS_PLANCK[satellite]
    parts = [modis_kelvin(v, planck[b]) if b in planck else 100.0 * v for v, b in zip(linear, bands, strict=True)]
    return np.stack(parts).astype(np.float32)


def abi_physical(
    radiance: np.ndarray,
    bands: BandNames,
    *,
    distance: float = 1.0,
    planck: Mapping[str, AbiPlanck] = GOES16_PLANCK,
    sun: Mapping[str, float] = GOES16_SUN,
) -> np.ndarray:
    """Calibrate ABI radiances (C, *S), each channel by its own constants: reflectance in percent, temperature in K, float32.

    Source: GOES-R Product Definition and Users' Guide, volume 3 (Level-1b): reflectance factor = pi d^2 L / E, which still
    holds the cosine of the sun's zenith angle; T = (fk2 / ln(fk1 / L + 1) - bc1) / bc2.

    Args:
        radiance: reflective channels in W m-2 sr-1 um-1, thermal ones in mW m-2 sr-1 (cm-1)-1, as in the files.
        bands: names of the channels, such as `C02`.
        distance: from Earth to Sun in astronomical units, `earth_sun_distance_anomaly_in_AU` of the file.
        planck: of each thermal channel.
        sun: irradiance of each reflective channel.

    Raises:
        BandError: a channel without constants.
        ShapeError: not one channel per band.
    """
    _check(radiance, bands, "abi")
    if missing := [band for band in bands if band not in planck and band not in sun]:
        raise BandError(f"expected constants for each of the channels {bands}, got none for {missing}.")
    if not 0.9 < distance < 1.1:
        raise ConfigError(f"expected a distance of about 1 astronomical unit, got {distance}.")

    def calibrated(values: np.ndarray, band: str) -> np.ndarray:
        if band in planck:
            return abi_kelvin(values, planck[band])
        percent: np.ndarray = 100.0 * np.pi * distance**2 / sun[band] * np.asarray(values, np.float64)
        return percent

    return np.stack([calibrated(v, b) for v, b in zip(radiance, bands, strict=True)]).astype(np.float32)


def abi_satvision_legacy(radiance: np.ndarray, bands: BandNames) -> np.ndarray:
    """Calibrate ABI radiances as the released fine-tuning code of SatVision-TOA does; for weights that were trained on that.

    One sun (2017 W m-2 um-1, that of C01), one distance (0.99) and the Planck constants of one channel (C12) for all, so that
    only C12 comes out as a temperature: use `abi_physical` for all else. Arguments and errors as there.
    """
    _check(radiance, bands, "abi")
    everywhere = {band: GOES16_PLANCK["C12"] for band in GOES16_PLANCK}
    return abi_physical(
        radiance, bands, distance=_LEGACY_DISTANCE, planck=everywhere, sun=dict.fromkeys(GOES16_SUN, _LEGACY_SUN)
    )


CALIBRATIONS: dict[str, Callable[[np.ndarray, BandNames], np.ndarray]] = {
    "per_channel": abi_physical,
    "satvision_legacy": abi_satvision_legacy,
}
"""Ways to calibrate ABI radiances, by name."""


def abi_input(calibration: Literal["per_channel", "satvision_legacy"] = "per_channel") -> Input:
    """Describe ABI as SatVision-TOA reads it: `ABI_BANDS` in the places of MODIS bands, 128 x 128 pixels of 2 km.

    `per_channel`: temperatures are temperatures, so the value space is MODIS's. `satvision_legacy`: the authors' own
    minima and maxima, which go with `abi_satvision_legacy`; no sensor is named, since its numbers have no unit.
    """
    modis = satvision_input()
    facts = {"bands": ABI_BANDS, "spacing": (2000.0, 2000.0), "name": "toa"}
    if calibration == "per_channel":
        return replace(modis, sensor="abi", **facts)  # type: ignore[arg-type]
    if calibration != "satvision_legacy":
        raise ConfigError(f"expected a calibration of {', '.join(CALIBRATIONS)}, got '{calibration}'.")
    warm = [band in GOES16_PLANCK for band in ABI_BANDS]
    low, high = np.zeros(len(warm)), np.full(len(warm), 100.0)
    low[warm], high[warm] = _LEGACY_COLDEST, _LEGACY_HOTTEST
    space = Normalisation(method="fixed", mean=tuple(low.tolist()), std=tuple((high - low).tolist()), full_scale=False)
    return replace(modis, sensor="", normalisation=space, **facts)  # type: ignore[arg-type]


def normalise(values: np.ndarray, bands: BandNames, entry: Input) -> np.ndarray:
    """Bring physical values (C, *S) into an input's value space, in the order of its bands, float32. Nothing is cut off.

    Raises:
        BandError: another number of bands than channels, or a band of the input is missing.
    """
    offset, scale, picked = _space(values, bands, entry)
    normalised: np.ndarray = ((picked - offset) / scale).astype(np.float32)
    return normalised


def restore(values: np.ndarray, bands: BandNames, entry: Input) -> np.ndarray:
    """Undo `normalise`: physical values in the order of the input's bands, float32. Errors as there."""
    offset, scale, picked = _space(values, bands, entry)
    restored: np.ndarray = (picked * scale + offset).astype(np.float32)
    return restored


def _space(values: np.ndarray, bands: BandNames, entry: Input) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(values) != len(bands):
        raise BandError(f"expected one channel for each of {bands}, got {len(values)}.")
    if entry.normalisation.method != "fixed":
        raise ConfigError(f"input '{entry.name}': expected a fixed normalisation, got {entry.normalisation.method}.")
    order = align(bands, entry.bands)
    picked = values if order is None else values[order]
    ones = (1,) * (values.ndim - 1)
    mean, std = (np.reshape(numbers, (-1, *ones)) for numbers in (entry.normalisation.mean, entry.normalisation.std))
    return mean, std, picked.astype(np.float64)


def _check(values: np.ndarray, bands: BandNames, sensor: str, *numbers: Sequence[float]) -> None:
    known = get_sensor(sensor)
    for band in bands:
        known.find(band)
    if len(set(bands)) != len(bands) or any(len(given) != len(bands) for given in (values, *numbers)):
        raise ShapeError(
            f"expected one channel, and one number of each kind, for each of the bands {bands}, got "
            f"{[len(given) for given in (values, *numbers)]}."
        )
