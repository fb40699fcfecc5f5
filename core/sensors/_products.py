"""Which sensor a product is of, by the name that its archive gives it: band numbers mean different bands in each."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from core.bands import Band, Sensor
from core.sensors import get_sensor
from core.sensors._landsat import SOURCE, oli_bands

_PRODUCTS = (  # beginning of a name, and the sensor; HLS.L30 counts as Landsat does, with two digits
    (r"L[CO](08_L|8\d{13})", "landsat8"),
    (r"L[CO](09_L|9\d{13})", "landsat9"),
    (r"LE(07_L|7\d{13})", "landsat7"),
    (r"LT(0[45]_L|[45]\d{13})", "landsat5"),
    (r"HLS\.L30\.", "hls_l30"),
    (r"HLS\.S30\.", "sentinel2_l1c"),
    (r"S2[A-D]_MSIL1C_|(L1C_)?T\d\d[A-Z]{3}_(A\d{6}_)?\d{8}T", "sentinel2_l1c"),
    (r"S2[A-D]_MSIL2A_|L2A_T\d\d[A-Z]{3}_", "sentinel2_l2a"),
    (r"M[OY]D\w+\.A\d{7}\.", "modis_toa14"),
)
_PATTERNS = tuple((re.compile(pattern), sensor) for pattern, sensor in _PRODUCTS)


def sensor_of_product(name: str) -> Sensor | None:
    """Give the sensor whose numbers the bands of a product have, by its name, such as `LC08_L2SP_...`; None = not known."""
    found = next((sensor for pattern, sensor in _PATTERNS if pattern.match(name)), None)
    if found is None:
        return None
    return _hls_l30() if found == "hls_l30" else get_sensor(found)


def sensor_of_platform(name: str) -> Sensor | None:
    """Give the sensor of a satellite as STAC items and lists name it, such as `landsat-8` or `sentinel-2a`; None = not known."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    known = {"landsat4": "landsat5"} | {f"sentinel2{letter}": "sentinel2_l1c" for letter in ("", *"abcd")}
    known |= {each: each for each in ("landsat5", "landsat7", "landsat8", "landsat9")}
    return get_sensor(known[plain]) if plain in known else None


def same_light(one: Band, other: Band) -> bool:
    """Say whether two bands see the same part of the spectrum: the centre of each lies within the other; True for radar."""
    if one.centre_nm is None or other.centre_nm is None or one.width_nm is None or other.width_nm is None:
        return True
    return abs(one.centre_nm - other.centre_nm) <= min(one.width_nm, other.width_nm) / 2


@cache
def _hls_l30() -> Sensor:
    kept = [band for band in oli_bands() if band.name != "B8"]  # HLS has no panchromatic band
    bands = tuple(replace(band, name=re.sub(r"^B(\d)$", r"B0\1", band.name), aliases=()) for band in kept)
    return Sensor(name="hls_l30", title="Harmonized Landsat Sentinel-2, L30", bands=bands, source=SOURCE)
