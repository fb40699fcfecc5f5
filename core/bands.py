"""Bands by name: the order of a file's channels never decides anything, their names do.

What a name means (wavelength, unit, plausible values) stands in `core.sensors`, one sensor per file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from core.errors import BandError, ConfigError, nearest

BandNames = tuple[str, ...]

RGB: BandNames = ("red", "green", "blue")

BandUnit = Literal["reflectance", "percent reflectance", "K", "dB", "linear power", "dn", "full scale"]
"""What the numbers of a band are.

`reflectance`: 0..1, may pass 1 over bright clouds. `percent reflectance`: 0..100. `K`: brightness temperature. `dB`: ten
times the decimal logarithm of backscatter; `linear power`: backscatter itself. `dn`: counts as delivered. `full scale`: share
of the largest number of the file's type, the convention of photographs.
"""


@dataclass(frozen=True, kw_only=True)
class Band:
    """One band of a sensor.

    Attributes:
        name: how products of the sensor call it.
        centre_nm: centre wavelength; None where none is meant, such as for radar.
        width_nm: from edge to edge at half of the response.
        unit: what its numbers are.
        resolution_m: ground sampling distance at nadir.
        low: least plausible value in `unit`.
        high: greatest plausible value in `unit`.
        aliases: other names of the same band.
    """

    name: str
    centre_nm: float | None
    width_nm: float | None
    unit: BandUnit
    resolution_m: float | None
    low: float
    high: float
    aliases: BandNames = ()

    def __post_init__(self) -> None:
        if not self.name or not math.isfinite(self.low) or not math.isfinite(self.high) or not self.low < self.high:
            raise ConfigError(
                f"band '{self.name}': expected a name and finite low < high, got {self.low} and {self.high}."
            )
        if (self.centre_nm is None) != (self.width_nm is None):
            raise ConfigError(f"band '{self.name}': expected a centre and a width in nm, or neither.")
        for what, value in (("centre", self.centre_nm), ("width", self.width_nm), ("resolution", self.resolution_m)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"band '{self.name}': expected a positive finite {what}, got {value}.")


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """The bands of one product of an instrument, in the product's order.

    Attributes:
        name: the stem of its file in `core.sensors`.
        title: for people.
        bands: all of them.
        source: the public document that the numbers are from.
    """

    name: str
    title: str
    bands: tuple[Band, ...]
    source: str

    def __post_init__(self) -> None:
        called = [name for band in self.bands for name in (band.name, *band.aliases)]
        if not called or len(set(called)) != len(called):
            raise ConfigError(f"sensor '{self.name}': expected bands whose names and aliases differ, got {called}.")

    @property
    def names(self) -> BandNames:
        """The names of all bands."""
        return tuple(band.name for band in self.bands)

    def find(self, name: str) -> Band:
        """Find a band by its name or an alias.

        Raises:
            BandError: no band of this sensor is called so.
        """
        for band in self.bands:
            if name == band.name or name in band.aliases:
                return band
        raise BandError(f"sensor '{self.name}' has no band '{name}': {nearest(name, self.names)}")

    def __contains__(self, name: str) -> bool:
        return any(name == band.name or name in band.aliases for band in self.bands)


def align(have: BandNames, want: BandNames) -> list[int] | None:
    """Give the index into `have` of each wanted band, or None when the order already agrees.

    Raises:
        BandError: a wanted band is missing, or a name occurs twice.
    """
    if len(set(have)) != len(have):
        raise BandError(f"expected each band once, got {have}.")
    if have == want:
        return None
    missing = [band for band in want if band not in have]
    if missing:
        raise BandError(f"expected bands {want}, but {missing} are not among the image's bands {have}.")
    return [have.index(band) for band in want]


def nearest_bands(have: tuple[Band, ...], want: tuple[Band, ...], tolerance_nm: float) -> tuple[Band, ...]:
    """Find for each wanted band the one of `have` whose centre wavelength is nearest; on a tie the narrower.

    A band may be found more than once.

    Raises:
        BandError: a wanted band has no wavelength, or nothing lies within `tolerance_nm` of it; all are listed.
    """
    if not (math.isfinite(tolerance_nm) and tolerance_nm >= 0):
        raise ConfigError(f"expected a finite tolerance in nm of at least 0, got {tolerance_nm}.")
    found: list[Band] = []
    problems: list[str] = []
    for band in want:
        distances = [
            (abs(other.centre_nm - band.centre_nm), other.width_nm or 0.0, index)
            for index, other in enumerate(have)
            if other.centre_nm is not None and band.centre_nm is not None
        ]
        if not distances:
            problems.append(f"'{band.name}' cannot be compared by wavelength")
            continue
        distance, _, index = min(distances)
        found.append(have[index])
        if distance > tolerance_nm:
            problems.append(
                f"'{band.name}' at {band.centre_nm:g} nm is {distance:g} nm from the nearest, '{have[index].name}'"
            )
    if problems:
        raise BandError(
            f"expected a band within {tolerance_nm:g} nm of each wanted one, but {'; '.join(problems)}; "
            "name the bands to take one by one, or allow a greater tolerance."
        )
    return tuple(found)


_TRUE = ((650.0, 60.0), (555.0, 50.0), (475.0, 50.0))  # red, green, blue: wanted centre and how far the band may be, nm
_FALSE = ((850.0, 80.0), (650.0, 60.0), (555.0, 50.0))  # vegetation in red, as in colour-infrared film
_NO_GREEN = ((650.0, 60.0), (850.0, 80.0), (475.0, 50.0))  # near infrared in the place of green: vegetation stays green
_DRY = ((2200.0, 150.0), (850.0, 80.0), (650.0, 60.0))  # short-wave infrared, for sensors with few visible bands
_WIDEST_NM = 250.0  # a panchromatic band is no colour


def display_bands(sensor: Sensor | None, have: BandNames) -> BandNames:
    """Choose three bands to show as red, green and blue, or one to show in grey; see `display_choice`."""
    return display_choice(sensor, have)[0]


def display_choice(sensor: Sensor | None, have: BandNames) -> tuple[BandNames, str]:
    """Choose the bands to show as red, green and blue, and say what the picture is; one band = shades of grey.

    True colour where there are bands near 650, 555 and 475 nm; else near infrared in the place of the colour that is
    missing, colour-infrared, or short-wave infrared; else, for radar with two polarisations, both and their first again; else
    the first band alone. Among bands within reach the nearest to the wanted wavelength is chosen. Without a sensor only the
    names red, green and blue are understood.

    Returns:
        three bands or one, all of `have`, and one of `true colour`, `near infrared as green`, `colour infrared`,
        `short-wave infrared`, `two polarisations`, `one band`.

    Raises:
        BandError: no band at all.
    """
    if not have:
        raise BandError("expected at least one band to show, got none.")
    if set(RGB) <= set(have):
        return RGB, "true colour"
    known = [(name, sensor.find(name)) for name in have if name in sensor] if sensor is not None else []
    kinds = {
        "true colour": _TRUE,
        "near infrared as green": _NO_GREEN,
        "colour infrared": _FALSE,
        "short-wave infrared": _DRY,
    }
    for kind, wanted in kinds.items():
        found = tuple(_near(known, centre, reach) for centre, reach in wanted)
        if all(found) and len(set(found)) == len(found):
            return tuple(name for name in found if name), kind
    radar = [name for name, band in known if band.unit in ("dB", "linear power")]
    if len(radar) == 2:
        return (radar[0], radar[1], radar[0]), "two polarisations"
    return have[:1], "one band"


def _near(known: list[tuple[str, Band]], centre: float, reach: float) -> str | None:
    distances = [
        (abs(band.centre_nm - centre), band.width_nm, name)
        for name, band in known
        if band.centre_nm is not None and band.width_nm is not None and band.width_nm <= _WIDEST_NM
    ]
    close = [found for found in distances if found[0] <= reach]
    return min(close)[2] if close else None
