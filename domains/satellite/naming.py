"""What bands are called: those without names are refused, and numbers are compared with what is known of the product.

Landsat's B2, B5 and B8 are other bands than Sentinel-2's. A product that keeps the name of its archive (LC08_L2SP_..., a folder
of such files, HLS.L30...) says which, and so does a platform in a STAC item or a list; where nothing does, a number or another
name is taken for the encoder's, and said.
"""

from __future__ import annotations

import re
import shlex
from glob import escape
from itertools import islice, takewhile
from pathlib import Path

from core.bands import BandNames, Sensor
from core.contract import Input
from core.errors import BandError
from core.sensors import get_sensor
from core.sensors._products import same_light, sensor_of_platform, sensor_of_product
from datasets import Manifest
from datasets.assign import named_by

_UNNAMED = re.compile(r"band_\d+")  # what readers call the bands of a file that names none
_LISTED = 4  # paths that a sentence holds
_BARE = re.compile(r"B\d")  # what several sensors call different bands
_LOOKED_AT = 64  # names in the folder of an image; a product has a few dozen

Taken = tuple[tuple[str, str], ...]
"""Bands by their names in a file and in an encoder's input."""


def taken_by_name(path: Path, bands: BandNames, entry: Input, platform: object = None) -> Taken:
    """Give the bands of a file that an input reads by nothing but a number, or by another name than its own.

    `platform` is the satellite that a list or a STAC item names, None = none.

    Raises:
        BandError: the file is of a satellite whose band of that name is another one, or two bands are names of one.
    """
    if not entry.sensor:
        return ()
    called = named_by(bands, entry, path)
    pairs = tuple(pair for pair in zip(bands, called, strict=True) if pair[1] in entry.bands)
    product = _product(path) or (sensor_of_platform(str(platform)) if platform is not None else None)
    if product is None:
        return tuple((said, name) for said, name in pairs if said != name or _BARE.fullmatch(said))
    sensor = get_sensor(entry.sensor)
    for said, name in pairs:
        if said in product and not same_light(product.find(said), sensor.find(name)):
            raise BandError(
                f"{path}: by its name or platform a product of {product.name}, whose band {said} is at "
                f"{product.find(said).centre_nm:g} nm, but input '{entry.name}' reads {name} of {sensor.name} at "
                f"{sensor.find(name).centre_nm:g} nm: use an encoder of that sensor, or, where bands correspond by their "
                f"wavelengths, call them by names that the product does not use, such as --options "
                f"geotiff.bands=[{','.join(sensor.names[1:4])}]; if the file's name is wrong, rename it."
            )
    return ()


def note(taken: Taken, entry: Input, first: Path) -> str:
    """Say which bands are taken for which by their names alone, here and in all scenes that call them so."""
    said, called = (", ".join(names) for names in zip(*taken, strict=True))
    return (
        f"bands {said} of {first.name}, and of scenes that call them so, are taken for {called} of {entry.sensor} by these "
        "names alone; if they are of another sensor, name them by the reader's option"
    )


def _product(path: Path) -> Sensor | None:
    """The sensor that the name of an image tells, or that of a file in its folder."""
    names = [path.name, *(sorted(p.name for p in islice(path.iterdir(), _LOOKED_AT)) if path.is_dir() else ())]
    return next((sensor for name in names if (sensor := sensor_of_product(name)) is not None), None)


def check_names(manifest: Manifest) -> None:
    """Refuse images whose bands have no names: nothing tells which is which, and order means nothing.

    Raises:
        BandError: one sentence with the first such file of most bands, what to type so that it and all that have as many are
            named, and what that leaves out.
    """
    if not any(unnamed(bands) for bands in set(map(tuple, manifest.column("bands")))):
        return
    readers, kinds = manifest.column("reader"), [tuple(bands) for bands in manifest.column("bands")]
    rows = [row for row, bands in enumerate(kinds) if unnamed(bands)]
    first = max(rows, key=lambda row: (len(kinds[row]), -row))  # labels and masks have fewer bands than scenes
    reader, count = readers[first], len(kinds[first])
    kept = [row for row, bands in enumerate(kinds) if (readers[row], len(bands)) == (reader, count)]
    like = next((row for row in kept if not unnamed(kinds[row])), None)
    listed = ",".join(_for_example(count) if like is None else kinds[like])
    option = f"--options {shlex.quote(f'{reader}.bands=[{listed}]')}{_of_store(reader)}"
    how = "with the reader's option, such as" if like is None else f"as {manifest.path(like).name} does, with"
    what = (
        f"{manifest.path(first)}: expected bands with names, the file names {count - len(unnamed(kinds[first]))} of its "
        f"{count}"
    )
    if len(kept) == len(kinds):
        raise BandError(f"{what}; name all {count} in the file's order {how} {option}.")
    paths = {row: manifest.path(row) for row in range(len(kinds))}
    left = [paths[row].name for row in sorted(set(paths) - set(kept))]
    raise BandError(
        f"{what}, and one option names the bands of files that have equally many; read the {len(kept)} of {count} bands, all "
        f"named in the file's order {how} --data {_typed([paths[row] for row in kept])} {option}, which leaves out "
        f"{', '.join(left[:3])}{f' and {len(left) - 3} more' if len(left) > 3 else ''}."
    )


def unnamed(bands: BandNames) -> list[str]:
    """List the bands of a file that it does not name."""
    return [band for band in bands if _UNNAMED.fullmatch(band)]


def _typed(paths: list[Path]) -> str:
    """Paths as a person types them: one by one where there are few, else by a pattern in each folder, else by a list."""
    if len(paths) <= _LISTED:
        return " ".join(shlex.quote(str(path)) for path in paths)
    words = []
    for folder in dict.fromkeys(path.parent for path in paths):
        names = {path.name for path in paths if path.parent == folder}
        begin = _common(names)
        end = _common({name[len(begin) :][::-1] for name in names})[::-1]
        if {path.name for path in folder.iterdir() if path.match(f"{escape(begin)}*{escape(end)}")} != names:
            return "LIST.csv (a list of these files in its column `file`)"
        words.append(f"{shlex.quote(str(folder / begin))}*{shlex.quote(end) if end else ''}")
    return " ".join(words) if len(words) <= _LISTED else "LIST.csv (a list of these files in its column `file`)"


def _common(names: set[str]) -> str:
    """What all names begin with."""
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*names, strict=False))
    return "".join(column[0] for column in letters)


def _for_example(count: int) -> BandNames:
    """As many names as a file has bands."""
    return (*("blue", "green", "red", "nir")[:count], *(f"b{number}" for number in range(5, count + 1)))


def _of_store(reader: str) -> str:
    """Say more of a prepared store: a collection of them was described when it was made."""
    if reader != "zarr_array":
        return ""
    return "; prepared stores, when they are made: python -m datasets.convert SRC DST --overwrite --options geotiff.bands=[...]"
