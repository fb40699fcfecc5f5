"""What the metadata beside a scene of one file per band says of all bands: when it was taken, and what its counts mean.

Sources: USGS, Landsat Collection 2 data format control books and Level-2 science product guides (`_MTL.txt`; groups and
keys, reflectance at the top of the atmosphere divided by the sine of the sun's elevation); ESA, Sentinel-2 products
specification, processing baseline 04.00 (`MTD_MSIL1C.xml`, `MTD_MSIL2A.xml`: (count + offset) / quantification).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import DataError
from datasets.readers._typed import typed
from datasets.times import as_time

_MOST = 1 << 20  # characters that are read; such a file has 10,000 to 100,000
_MSI = (1, 2, 3, 4, 5, 6, 7, 8, "8A", 9, 10, 11, 12)  # Sentinel-2's bands in the order of their `band_id`


@dataclass(frozen=True)
class SceneMetadata:
    """What was found.

    Attributes:
        path: the file that says it; None = there is none.
        time: when the scene was taken, as `times.as_time` writes it.
        scaling: by the band's name in the file names, (scale, offset) of reflectance or kelvin = count * scale + offset.
        nodata: the count that means "not measured" where a file does not say.
    """

    path: Path | None = None
    time: str | None = None
    scaling: dict[str, tuple[float, float]] = field(default_factory=dict)
    nodata: float | None = None


def scene_metadata(folder: Path, bands: tuple[str, ...]) -> SceneMetadata:
    """Read what Landsat's or Sentinel-2's file says of the named bands; nothing where there is no such file, or several.

    Args:
        folder: of the scene; of Sentinel-2 also one inside the `.SAFE` folder.
        bands: as in the names of the files: B4, SR_B4, ST_B10, B04, B8A.

    Raises:
        DataError: a scale or an offset is no number, or a scale is not positive.
    """
    found = list(folder.glob("*_MTL.txt"))
    if len(found) == 1:
        return _landsat(found[0], bands)
    product = next((one for one in folder.absolute().parents if one.suffix.upper() == ".SAFE"), folder)
    found = [path for level in ("1C", "2A") if (path := product / f"MTD_MSIL{level}.xml").is_file()]
    return _sentinel2(found[0], bands) if len(found) == 1 else SceneMetadata()


def _landsat(path: Path, bands: tuple[str, ...]) -> SceneMetadata:
    groups: dict[str, dict[str, str]] = {}
    group = ""
    for key, value in re.findall(r'^[ \t]*(\w+)[ \t]*=[ \t]*"?([^"\r\n]*?)"?\s*$', _text(path), re.MULTILINE):
        if key in ("GROUP", "END_GROUP"):
            group = value if key == "GROUP" else ""
        groups.setdefault(group, {}).setdefault(key, value)
    everywhere = {key: value for said in reversed(groups.values()) for key, value in said.items()}
    # a day without a time of day is what it is; a time of day alone is no time
    when = "T".join(everywhere[name] for name in ("DATE_ACQUIRED", "SCENE_CENTER_TIME") if name in everywhere)
    scaling = {}
    for band in bands:
        level, _, number = band.rpartition("B")
        if level == "ST_":
            found = _pair(path, groups, "SURFACE_TEMPERATURE_PARAMETERS", f"TEMPERATURE_{{}}_BAND_{band}")
        else:
            place = "SURFACE_REFLECTANCE_PARAMETERS" if level == "SR_" else "RADIOMETRIC_RESCALING"
            found = _pair(path, groups, place, f"REFLECTANCE_{{}}_BAND_{number}")
        if found is not None and not level:  # at the top of the atmosphere
            sun = math.sin(math.radians(_number(path, "SUN_ELEVATION", everywhere.get("SUN_ELEVATION", ""))))
            found = (found[0] / sun, found[1] / sun) if sun > 0 else None  # at night reflectance means nothing
        if found is not None:
            scaling[band] = found
    return SceneMetadata(path, _time(when), scaling)


def _pair(path: Path, groups: dict[str, dict[str, str]], place: str, key: str) -> tuple[float, float] | None:
    """Find the two numbers of a band in the group whose name ends so; None where they are not there."""
    said = next((said for name, said in groups.items() if name.endswith(place)), {})
    scale, offset = key.format("MULT"), key.format("ADD")
    if scale not in said or offset not in said:
        return None
    return _number(path, scale, said[scale], positive=True), _number(path, offset, said[offset])


def _sentinel2(path: Path, bands: tuple[str, ...]) -> SceneMetadata:
    text = _text(path)
    divisor = re.search(r"<(?:BOA_)?QUANTIFICATION_VALUE[^>]*>\s*([^<]*?)\s*<", text)
    offsets = dict(re.findall(r'<(?:RADIO|BOA)_ADD_OFFSET\s+band_id="(\d+)"[^>]*>\s*([^<]*?)\s*<', text))
    scaling = {}
    if divisor is not None and bands:
        counts = _number(path, "the quantification value", divisor[1], positive=True)
        for place, name in enumerate(_MSI):
            if (band := f"B{name:0>2}") in bands:
                offset = _number(path, f"the offset of {band}", offsets.get(str(place), "0"))  # none before 04.00
                scaling[band] = (1.0 / counts, offset / counts)
    when = re.search(r"<PRODUCT_START_TIME>\s*([^<]*?)\s*<", text)
    silent = re.search(r"<SPECIAL_VALUE_TEXT>\s*NODATA\s*<.*?<SPECIAL_VALUE_INDEX>\s*(\d+)\s*<", text, re.DOTALL)
    return SceneMetadata(path, _time(when[1] if when else ""), scaling, float(silent[1]) if silent else None)


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(_MOST)


def _time(text: str) -> str | None:
    try:
        return as_time(text)
    except ValueError:
        return None


def _number(path: Path, name: str, text: str, *, positive: bool = False) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or (positive and number <= 0):
        raise DataError(
            f"{path}: expected a {'positive ' if positive else ''}number for {name}, got '{text}'; mend it, or read counts "
            f"as they are with {typed('band_files.scale=none')}."
        )
    return number
