"""eo-learn's example: one place in Slovenia, Sentinel-2 on five dates, packed in one NumPy array."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.errors import DataError
from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_ARRAY = "S2_L1C_13band_5dates.npy"
_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_CLOUDY = (0, 1)


def find(place: Place) -> Found:
    """The unpacked dates, one group as they show one place; the array of all dates is refused with the cure."""
    if not place.has("labels.csv"):
        array = place.path(_ARRAY)
        raise DataError(
            f"{array}: holds five dates in one array (date, y, x, band); unpack it first: "
            f"python -m datasets.catalogue unpack eolearn_s2_slovenia {place.root} TARGET"
        )
    lines = place.table("labels.csv", "file", "cloudy", "label_file")
    place.named([line[name] for line in lines for name in ("file", "label_file")], table="labels.csv")
    rows = [
        Row(line["file"], "slovenia", None, {"cloudy": line["cloudy"], "label_file": line["label_file"]})
        for line in lines
    ]
    return rows, []


def unpack(place: Place, target: Path) -> None:
    """Write one GeoTIFF per date with names, CRS and transform, the land cover, and labels.csv."""
    import json

    box = json.loads(place.path("bbox.geojson").read_text())
    corners = np.array(box["coordinates"][0])
    epsg = int(box["crs"]["properties"]["name"].rpartition(":")[2])
    dates = np.load(place.path(_ARRAY), allow_pickle=False)
    cover = np.load(place.path("LULC.npy"), allow_pickle=False)
    if dates.ndim != 4 or dates.shape[3] != len(_BANDS) or cover.shape[:2] != dates.shape[1:3]:
        raise DataError(
            f"{place.root}: expected (date, y, x, {len(_BANDS)}) and land cover alike, got {dates.shape}, {cover.shape}."
        )
    _write(target / "cover.tif", cover.transpose(2, 0, 1).astype(np.uint8), corners, epsg, ("cover",), 0)
    rows = []
    for number, date in enumerate(dates):
        _write(target / f"date_{number}.tif", date.transpose(2, 0, 1), corners, epsg, _BANDS, None)
        rows.append((f"date_{number}.tif", int(number in _CLOUDY), "cover.tif"))
    mini.table(target / "labels.csv", ("file", "cloudy", "label_file"), *rows)


def _write(
    path: Path, array: np.ndarray, corners: np.ndarray, epsg: int, names: Sequence[str], nodata: int | None
) -> None:
    import rasterio
    from rasterio import Affine

    (west, south), (east, north) = corners.min(axis=0), corners.max(axis=0)
    count, height, width = array.shape
    place = Affine((east - west) / width, 0.0, west, 0.0, (south - north) / height, north)
    options = {"count": count, "height": height, "width": width, "dtype": array.dtype, "nodata": nodata}
    with rasterio.open(path, "w", driver="GTiff", crs=f"EPSG:{epsg}", transform=place, **options) as file:
        file.write(array)
        file.descriptions = tuple(names)


def example(root: Path) -> Sequence[Row]:
    """What unpacking gives of two small dates."""
    import json
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        values = np.random.Generator(np.random.Philox(key=5)).random((2, 8, 9, 13), np.float32)
        np.save(folder / _ARRAY, values)
        np.save(folder / "LULC.npy", np.ones((8, 9, 1), np.uint16))
        box = [[465000, 5079000], [465000, 5079080], [465090, 5079080], [465090, 5079000], [465000, 5079000]]
        crs = {"properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
        mini.text(folder / "bbox.geojson", json.dumps({"crs": crs, "coordinates": [box]}))
        unpack(Place(ENTRY, folder, folder), root)
    return [Row(f"date_{n}.tif", "slovenia", None, {"cloudy": "1", "label_file": "cover.tif"}) for n in range(2)]


ENTRY = Entry(
    title="eo-learn's example patch in Slovenia",
    domain="satellite",
    modality="Sentinel-2 L1C, 13 bands of float32 reflectance, 101 x 100 pixels of 10 m, five dates, UTM 33N",
    licence=Licence(name="MIT; contains Copernicus Sentinel data", commercial=True),
    citation=Citation(authors="Sinergise", title="eo-learn, a library for Earth observation (example data)", year=2018),
    homepage="https://github.com/sentinel-hub/eo-learn",
    labels={
        "cloudy": "1 = seen to be cloudy",
        "label_file": "land cover: 0 none, 1 crops, 2 forest, 3 grass, 4 shrubs, 8 built",
    },
    layout="""
        S2_L1C_13band_5dates.npy  LULC.npy  bbox.geojson    to be unpacked into:
        date_0.tif ... date_4.tif  cover.tif  labels.csv    (file, cloudy, label_file)
    """,
    size=Size(images=5, groups=1),
    traps=(
        "five dates of one place are one group: nothing can be split, nothing measured here is a benchmark",
        "the array is (date, y, x, band) without names: unpack it (`python -m datasets.catalogue unpack`)",
        "the first two dates are cloudy; the cloud masks of 68 dates in the same folder belong to another series",
    ),
    unverified=("citation's year", "order of the bands"),
    find=find,
    example=example,
    unpack=unpack,
)
