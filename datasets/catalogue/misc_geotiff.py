"""Four small GeoTIFFs of other projects' test data, each with another habit of nodata."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_FILES = {  # file: (sensor, licence, bands, type)
    "L7_ETMs.tif": ("Landsat 7, six bands", "Apache-2.0 (stars)", 6, "uint8"),
    "RGB.byte.tif": ("Landsat, colour", "BSD-3-Clause (rasterio)", 3, "uint8"),
    "S1A__IW___A_20150309T173017_VV_grd_mli_geo_norm_db.tif": ("Sentinel-1 VV, dB", "MIT (pyroSAR)", 1, "float32"),
    "naip_m_4709963_se_14_1_20150926.tif": ("NAIP, red green blue near infrared, 5 m", "MIT (opengeos)", 4, "uint8"),
}


def find(place: Place) -> Found:
    """The four files."""
    place.named(list(_FILES), table="this entry")
    return [Row(place.name(file), Path(file).stem, None, {"sensor": facts[0]}) for file, facts in _FILES.items()], []


def example(root: Path) -> Sequence[Row]:
    """Files of these names, bands and types."""
    for file, (_, _, bands, kind) in _FILES.items():
        mini.scene(root / file, bands=bands, dtype=kind, resolution=30.0)
    return [Row(file, Path(file).stem, None, {"sensor": facts[0]}) for file, facts in _FILES.items()]


ENTRY = Entry(
    title="Small GeoTIFFs of stars, rasterio, pyroSAR and opengeos",
    domain="satellite",
    modality="Landsat 7, a colour composite, Sentinel-1 and NAIP; GeoTIFF with CRS",
    licence=Licence(name="one each: Apache-2.0, BSD-3-Clause, MIT, MIT", commercial=True),
    citation=Citation(authors="stars, rasterio, pyroSAR and opengeos contributors", title="Test data", year=2024),
    homepage="https://github.com/rasterio/rasterio/tree/main/tests/data",
    labels={"sensor": "what took the picture"},
    layout="\n".join(_FILES),
    size=Size(images=4, groups=4),
    traps=(
        "four conventions of nodata: none, 0 in 8 bit, -99 in float, 0 that is also a value",
        "bands have no names: they are read as band_1, band_2, ...",
    ),
    unverified=("citation's year: test data without a publication",),
    find=find,
    example=example,
)
