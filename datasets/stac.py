"""STAC on disk: items, item collections and static catalogs, as images of several files with what is said of them.

Reads STAC 1.0 (`eo:bands`, `raster:bands`) and 1.1 (`bands`), with the standard library. One item is one image: its raster
assets of the role `data`, joined by the names of their bands. Where the image lies on the earth is taken from the files,
not from the item's `proj` fields. Nothing is fetched.

Source: SpatioTemporal Asset Catalog specification 1.0.0 and 1.1.0, with its extensions EO, Raster and Grid.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from core.errors import BudgetError, DamagedError, DataError, MissingDataError, UnsafeError, UnsupportedError
from datasets.safety import inside, local

_CATALOGS = ("catalog.json", "collection.json")
_MOST = 256 << 20  # bytes of one JSON file
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|//")
_LOCAL = re.compile(r"file:(//(localhost)?(?=/))?", re.IGNORECASE)
_TIFF = (".tif", ".tiff", ".gtif", ".gtiff")
_OTHER = (".jp2", ".jpg", ".jpeg", ".png", ".nc", ".h5", ".hdf", ".zarr")


class Item(NamedTuple):
    """One image: where it lies, what is said of it, and the reader's options that join its files."""

    root: Path
    file: str
    said: dict[str, Any]
    options: tuple[str, ...]
    source: Path


class _Band(NamedTuple):
    path: Path
    name: str
    nodata: str
    scaling: str


def is_stac(path: Path) -> bool:
    """Say whether a path is a JSON file, or a folder that begins with a STAC catalog or collection."""
    return _first(path) is not None if path.is_dir() else path.suffix.lower() in (".json", ".geojson")


def items_of(path: Path, *, allow_outside: bool = False) -> list[Item]:
    """List the images of an item, an item collection, or a static catalog, in the order in which they are named.

    Raises:
        UnsafeError: an asset or a link is remote, or leads out of the folder and `allow_outside` is not set.
        MissingDataError: an asset or a linked file is not there.
        DamagedError: a file is no JSON.
        UnsupportedError: it is not STAC 1.x, or an item's images are of another kind than GeoTIFF.
        DataError: an item has no image, bands without a name or of one name, or shares its folder with another.
    """
    start = (_first(path) if path.is_dir() else None) or path
    root = start.parent.resolve()
    found = [_image(root, source, item, allow_outside) for source, item in _walk(root, start, allow_outside, set())]
    if not found:
        raise DataError(f"{start}: expected STAC items, found none; check its links, or name the items themselves.")
    times = Counter(item.root / item.file for item in found)
    shared = next((place for place, count in times.items() if count > 1), None)
    if shared is not None:
        raise DataError(
            f"{start}: {times[shared]} items have their files in {shared}; give each item a folder, or a file, of its own."
        )
    return found


def _first(folder: Path) -> Path | None:
    """The file that a catalog begins with; files of these names that hold something else are none."""
    for place in (folder / name for name in _CATALOGS):
        content = _json(place) if place.is_file() else None
        if isinstance(content, dict) and "stac_version" in content:
            return place
    return None


def _walk(root: Path, path: Path, free: bool, seen: set[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give every item below a file, with the file that describes it; what was visited is passed over."""
    waiting = [path]
    while waiting:
        place = waiting.pop()
        if place.resolve() in seen:
            continue
        seen.add(place.resolve())
        content = _read(place)
        kind = content.get("type")
        if kind == "Feature":
            yield place, content
        elif kind in ("FeatureCollection", "ItemCollection"):
            yield from ((place, item) for item in _objects(place, content, "features"))
        elif kind in ("Catalog", "Collection"):
            _known(place, content)
            links = [link for link in _objects(place, content, "links") if link.get("rel") in ("item", "child")]
            waiting += [_place(root, place, link.get("href"), "its link", free) for link in reversed(links)]
        else:
            raise UnsupportedError(
                f"{place}: expected a STAC Item, FeatureCollection, Catalog or Collection, got type {kind!r}; only STAC "
                "is read of JSON files."
            )


def _image(root: Path, source: Path, item: dict[str, Any], free: bool) -> Item:
    _known(source, item)
    name = str(item.get("id"))
    where = f"{source}: item '{name}'"
    properties = item.get("properties")
    if item.get("id") is None or not isinstance(properties, dict) or not isinstance(item.get("assets"), dict):
        raise DataError(f"{where}: expected `id`, `properties` and `assets`, one of them is missing; mend the item.")
    bands = [
        band for key, asset in _data(where, item["assets"]) for band in _bands(root, source, where, key, asset, free)
    ]
    twice = [band for band, count in Counter(band.name for band in bands).items() if count > 1]
    if twice:
        raise DataError(
            f"{where}: band '{twice[0]}' occurs twice in its assets of role `data`; keep the role on one of them."
        )
    paths = list(dict.fromkeys(band.path for band in bands))
    folder = paths[0].parent
    if any(path.parent != folder for path in paths):
        raise DataError(
            f"{where}: expected all its files in one folder, got {paths[0]} and "
            f"{next(path for path in paths if path.parent != folder)}; move them into one."
        )
    image = paths[0] if len(paths) == 1 else folder
    base = root if image != root else root.parent
    said = {"id": name, "time": properties.get("datetime")}  # none where an item is of a span of time
    if properties.get("platform"):
        said["platform"] = str(properties["platform"])
    group = _grid(properties)
    return Item(
        base,
        Path(os.path.relpath(image, base)).as_posix(),
        said | ({"group": group} if group else {}),
        _options(bands, folder),
        source,
    )


def _data(where: str, assets: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The assets to read: of role `data`, and images."""
    described = {key: asset for key, asset in assets.items() if isinstance(asset, dict)}
    for key, asset in described.items():
        if not isinstance(asset.get("roles") or [], list):
            raise DataError(f"{where}: asset '{key}' has the roles {asset['roles']!r}, expected a list; mend the item.")
    with_role = [
        (key, asset)
        for key, asset in described.items()
        if "data" in (asset.get("roles") or []) and isinstance(asset.get("href"), str)
    ]
    images = [pair for pair in with_role if pair[1]["href"].lower().endswith(_TIFF)]
    others = [
        key
        for key, asset in with_role
        if asset["href"].lower().endswith(_OTHER)
        or (str(asset.get("type", "")).startswith("image/") and not asset["href"].lower().endswith(_TIFF))
    ]
    if others:
        raise UnsupportedError(f"{where}: expected GeoTIFFs, asset '{others[0]}' is none; convert it.")
    if not images:
        raise DataError(
            f"{where}: expected GeoTIFF assets of the role `data`, got {', '.join(assets) or 'no asset'}; add the role to "
            "the assets that are bands."
        )
    return images


def _bands(root: Path, source: Path, where: str, key: str, asset: dict[str, Any], free: bool) -> list[_Band]:
    path = _place(root, source, asset["href"], f"asset '{key}' of {where.removeprefix(f'{source}: ')}", free)
    own, eo, raster = (_objects(source, asset, name) for name in ("bands", "eo:bands", "raster:bands"))
    count = max(len(own), len(eo), len(raster), 1)
    if any(len(listed) not in (0, count) for listed in (own, eo, raster)):
        raise DataError(f"{where}: asset '{key}' lists its bands twice, and not as many; mend the item.")
    found = []
    for number in range(count):
        said = {**asset}
        for listed in (raster, eo, own):
            said |= listed[number] if listed else {}
        named = next((listed[number] for listed in (own, eo) if listed), {})
        name = named.get("name") or named.get("eo:common_name") or named.get("common_name")
        if not name and count > 1:
            raise DataError(
                f"{where}: band {number + 1} of asset '{key}' has no name; give it one in `bands` (or `eo:bands`)."
            )
        scale, offset = (said.get(f"raster:{word}", said.get(word)) for word in ("scale", "offset"))
        if scale == 0 and scale is not False:
            raise DataError(f"{where}: asset '{key}' states the scale 0, which leaves no values; mend the item.")
        scaling = (
            ""
            if scale is None and offset is None
            else f"{_number(where, key, scale, 1)} {_number(where, key, offset, 0)}"
        )
        nodata = said.get("nodata")
        silent = nodata is None or str(nodata).lower() in ("nan", "inf", "-inf")  # these never are data
        found.append(_Band(path, str(name or key), "" if silent else _number(where, key, nodata, 0), scaling))
    return found


def _number(where: str, key: str, value: Any, missing: float) -> str:
    value = missing if value is None else value
    if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
        raise DataError(f"{where}: asset '{key}' states {value!r} where a finite number belongs; mend the item.")
    return repr(value)


def _options(bands: list[_Band], folder: Path) -> tuple[str, ...]:
    columns = {
        "files": [band.path.relative_to(folder).as_posix() for band in bands],
        "bands": [band.name for band in bands],
        "nodata": [band.nodata for band in bands],
        "scaling": [band.scaling for band in bands],
    }
    return tuple(f"asset_files.{name}={json.dumps(values)}" for name, values in columns.items() if any(values))


def _grid(properties: dict[str, Any]) -> str | None:
    """The place of a fixed grid that an item covers: the same at every date."""
    if properties.get("grid:code"):
        return str(properties["grid:code"])
    for names in (
        ("s2:mgrs_tile",),
        ("mgrs:utm_zone", "mgrs:latitude_band", "mgrs:grid_square"),
        ("landsat:wrs_path", "landsat:wrs_row"),
    ):
        if all(properties.get(name) is not None for name in names):
            return "_".join(str(properties[name]) for name in names)
    return None


def _place(root: Path, source: Path, href: Any, what: str, free: bool) -> Path:
    """Where a reference leads, which must be a file that is here."""
    if not isinstance(href, str) or not href:
        raise DataError(f"{source}: {what} has no `href`; mend it.")
    plain = _LOCAL.sub("", href)
    if _REMOTE.match(plain):
        raise UnsafeError(
            f"{source}: {what} is remote ({href}); nothing is fetched, copy the file here and mend the href."
        )
    folder = source.parent.resolve()
    if plain != href or not os.path.lexists(folder / href):  # an href is a URI, but most are written as paths
        plain = unquote(plain)
    path = Path(os.path.normpath(local(folder / plain)))
    if not free:
        try:
            inside(root, path, optional=True)
        except UnsafeError as error:
            raise UnsafeError(f"{source}: {what}: {error}") from None
    else:
        path = path.resolve()  # rows of a manifest name what was allowed to lie outside by where it is
    if not path.is_file():
        raise MissingDataError(f"{source}: {what} is not at {path}; copy it there, or mend the href.")
    return path


def _known(source: Path, content: dict[str, Any]) -> None:
    version = content.get("stac_version")
    if not isinstance(version, str) or not version.startswith("1."):
        raise UnsupportedError(f"{source}: expected STAC 1.0 or 1.1, got stac_version {version!r}; migrate it.")


def _objects(source: Path, content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    values = content.get(name) or []
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DataError(f"{source}: expected `{name}` to be a list of objects; mend it.")
    return values


def _read(path: Path) -> dict[str, Any]:
    content = _json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a STAC object, got {type(content).__name__}; name a STAC file.")
    return content


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MOST:
            raise BudgetError(f"{path}: expected STAC of up to {_MOST >> 20} MiB, got more; divide it.")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BudgetError):
            raise
        raise DamagedError(f"{path}: expected JSON, but it cannot be read ({error}); write it again.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}); check its permissions.") from None
