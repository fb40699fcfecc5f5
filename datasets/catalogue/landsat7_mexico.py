"""Landsat 7 over Mexico: the two scenes of the open geoprocessing tutorial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size
from datasets.image import Flag

_SCENES = {"LE70220491999322EDC01_stack.gtif": "1999-11-18", "LE70220492002106EDC00_stack.gtif": "2002-04-16"}
_BANDS = "b1, b2, b3, b4, b5, b7, b6_thermal, fmask"
_FILL = Flag(
    "unset_nodata",
    "LE70220492002106EDC00_stack.gtif has no nodata value but is filled with 16000: open it with geotiff.nodata=[16000].",
)


def find(place: Place) -> Found:
    """Both dates; they show one place and are one group."""
    place.named(list(_SCENES), table="this entry")
    rows = [Row(place.name(file), "path 22 row 49", None, {"date": date}) for file, date in _SCENES.items()]
    return rows, [_FILL]


def example(root: Path) -> Sequence[Row]:
    """Both files with eight bands."""
    for file in _SCENES:
        mini.scene(root / file, bands=8, dtype="int16", resolution=30.0)
    return [Row(file, "path 22 row 49", None, {"date": date}) for file, date in _SCENES.items()]


ENTRY = Entry(
    title="Landsat 7 in Mexico (open-geo-tutorial)",
    domain="satellite",
    modality="Landsat 7 ETM+, six reflectance bands, one thermal, one mask, 250 x 250 int16 GeoTIFF, 30 m, UTM 15N",
    licence=Licence(name="CC-BY-SA-4.0", commercial=True),
    citation=Citation(authors="Holden", title="Open source geoprocessing tutorial", year=2014),
    homepage="https://github.com/ceholden/open-geo-tutorial",
    labels={"date": "of the acquisition"},
    layout="""
        LE70220491999322EDC01_stack.gtif
        LE70220492002106EDC00_stack.gtif
        training_data.gtif  training_data.shp       (land cover of some polygons, not read by this entry)
    """,
    size=Size(images=2, groups=1),
    traps=(
        "nodata is -9999 in 1999 and not set in 2002, where 16000 fills: flagged as unset_nodata",
        "band 8 is a mask (Fmask), no measurement: the reader option names it fmask",
        "the thermal band comes after band 7",
        "two names of the training polygons are swapped",
    ),
    unverified=("citation's year",),
    options=(f"geotiff.bands=[{_BANDS}]",),
    find=find,
    example=example,
)
