"""NWPU-RESISC45: aerial pictures of 45 kinds of scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size


def find(place: Place) -> Found:
    """Class folders below NWPU-RESISC45."""
    place = place.within("NWPU-RESISC45")
    classes = sorted(path.name for path in place.root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise place.missing("NWPU-RESISC45/airplane")
    return [
        Row(place.name(path), path.stem, None, {"class": name})
        for name in classes
        for path in place.files(name, "*.jpg")
    ], []


def example(root: Path) -> Sequence[Row]:
    """Two pictures of two classes."""
    files = [f"NWPU-RESISC45/{name}/{name}_{number:03d}.jpg" for name in ("airplane", "sea_ice") for number in (1, 2)]
    for file in files:
        mini.photograph(root / file)
    return [Row(file, Path(file).stem, None, {"class": file.split("/")[1]}) for file in files]


ENTRY = Entry(
    title="NWPU-RESISC45",
    domain="satellite",
    modality="aerial and satellite pictures of Google Earth, 256 x 256 RGB JPEG, 0.2 to 30 m a pixel, no CRS",
    licence=Licence(name="not stated; pictures of Google Earth", commercial=None),
    citation=Citation(
        authors="Cheng, Han, Lu",
        title="Remote sensing image scene classification: benchmark and state of the art",
        year=2017,
        doi="10.1109/JPROC.2017.2675998",
        arxiv="1703.00121",
    ),
    homepage="https://gcheng-nwpu.github.io/#Datasets",
    labels={"class": "45 kinds of scene, 700 pictures each"},
    layout="""
        NWPU-RESISC45/airplane/airplane_001.jpg
    """,
    size=Size(images=31500, gigabytes=0.43),
    traps=(
        "no official split and no places: pictures of one place may be on both sides of a split",
        "pixel sizes differ by a factor of 100 and are not given",
        "the terms are not stated by the authors; copies claim CC-BY-SA, CC-BY-NC-4.0 or unknown: ask before commercial use",
    ),
    unverified=("licence", "homepage"),
    find=find,
    example=example,
)
