"""EuroSAT in colour: Sentinel-2 chips as JPEG, ten classes of land use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _eurosat
from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Entry, Found, Place, Row, Size


def find(place: Place) -> Found:
    """Class folders, below EuroSAT_RGB or the older name 2750."""
    return _eurosat.find(place.within("EuroSAT_RGB", "2750"), ".jpg")


def example(root: Path) -> Sequence[Row]:
    """Two chips of each class."""
    files = [f"EuroSAT_RGB/{name}/{name}_{number}.jpg" for name in _eurosat.CLASSES for number in (1, 2)]
    for file in files:
        mini.photograph(root / file)
    return [Row(file, Path(file).stem, None, {"class": file.split("/")[1]}) for file in files]


ENTRY = Entry(
    title="EuroSAT, RGB",
    domain="satellite",
    modality="Sentinel-2 chips, 64 x 64 RGB JPEG, 10 m a pixel, no CRS",
    licence=_eurosat.LICENCE,
    citation=_eurosat.CITATION,
    homepage=_eurosat.HOMEPAGE,
    labels={"class": ", ".join(_eurosat.CLASSES)},
    layout="""
        EuroSAT_RGB/AnnualCrop/AnnualCrop_1.jpg      (or 2750/AnnualCrop/..., or the class folders alone)
    """,
    size=Size(images=27000, gigabytes=0.09),
    traps=(_eurosat.TRAP, "no CRS and no physical values: colours are stretched"),
    find=find,
    example=example,
)
