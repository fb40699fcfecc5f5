"""EuroSAT with all 13 bands of Sentinel-2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _eurosat
from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Entry, Found, Place, Row, Size

# The files' own order: B8A comes last, not after B08.
_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A")


def find(place: Place) -> Found:
    """Class folders, below EuroSAT_MS or the older path of the archive."""
    return _eurosat.find(place.within("EuroSAT_MS", "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"), ".tif")


def example(root: Path) -> Sequence[Row]:
    """A chip of each class, with 13 bands without names."""
    files = [f"EuroSAT_MS/{name}/{name}_1.tif" for name in _eurosat.CLASSES]
    for file in files:
        mini.scene(root / file, bands=13)
    return [Row(file, Path(file).stem, None, {"class": file.split("/")[1]}) for file in files]


ENTRY = Entry(
    title="EuroSAT, 13 bands",
    domain="satellite",
    modality="Sentinel-2 L1C chips, 13 bands, 64 x 64 uint16 GeoTIFF, 10 m a pixel, UTM",
    licence=_eurosat.LICENCE,
    citation=_eurosat.CITATION,
    homepage=_eurosat.HOMEPAGE,
    labels={"class": ", ".join(_eurosat.CLASSES)},
    layout="""
        EuroSAT_MS/AnnualCrop/AnnualCrop_1.tif
        (or ds/images/remote_sensing/otherDatasets/sentinel_2/tif/AnnualCrop/..., or the class folders alone)
    """,
    size=Size(images=27000, gigabytes=2.1),
    traps=(
        "bands have no names and B8A is the last one: the reader option names them in the files' order",
        "values are top-of-atmosphere reflectance times 10,000, not surface reflectance",
        _eurosat.TRAP,
    ),
    options=(f"geotiff.bands=[{', '.join(_BANDS)}]",),
    find=find,
    example=example,
)
