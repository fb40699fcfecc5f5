"""NCT-CRC-HE-100K: tiles of colorectal tissue in nine classes, and CRC-VAL-HE-7K."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_PARTS = (("NCT-CRC-HE-100K", "train"), ("NCT-CRC-HE-100K-NONORM", "train"), ("CRC-VAL-HE-7K", "test"))
_CLASSES = {
    "ADI": "adipose",
    "BACK": "background",
    "DEB": "debris",
    "LYM": "lymphocytes",
    "MUC": "mucus",
    "MUS": "smooth muscle",
    "NORM": "normal mucosa",
    "STR": "tumour stroma",
    "TUM": "tumour epithelium",
}


def find(place: Place) -> Found:
    """Class folders of whichever archives are there; both versions of the 100,000 tiles at once are refused."""
    from core.errors import DataError

    parts = [(folder, split) for folder, split in _PARTS if place.has(folder)]
    if not parts:
        raise place.missing(_PARTS[0][0])
    if sum(split == "train" for _, split in parts) == 2:
        raise DataError(
            f"{place.root}: has both {_PARTS[0][0]} and {_PARTS[1][0]}, the same tissue twice; keep one of them."
        )
    rows = []
    for folder, split in parts:
        for name in _CLASSES:
            tiles = place.files(f"{folder}/{name}", "*.tif")
            rows += [Row(place.name(path), path.stem, split, {"class": name}) for path in tiles]
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """One tile of each class for training, and one for the test."""
    rows = []
    for folder, split in (_PARTS[0], _PARTS[2]):
        for name in _CLASSES:
            file = f"{folder}/{name}/{name}-{'AAAFLCLY' if split == 'train' else 'TCGA-AACVHPTM'}.tif"
            mini.photograph(root / file)
            rows.append(Row(file, Path(file).stem, split, {"class": name}))
    return rows


ENTRY = Entry(
    title="NCT-CRC-HE-100K and CRC-VAL-HE-7K",
    domain="pathology",
    modality="H&E of colorectal tissue, tiles of 224 x 224 RGB TIFF, 0.5 um a pixel",
    licence=Licence(name="CC-BY-4.0", commercial=True),
    citation=Citation(
        authors="Kather, Krisam, Charoentong, ... Halama",
        title="Predicting survival from colorectal cancer histology slides using deep learning: a retrospective multicenter "
        "study",
        year=2019,
        doi="10.1371/journal.pmed.1002730",
    ),
    homepage="https://zenodo.org/records/1214456",
    labels={"class": ", ".join(f"{code} {name}" for code, name in _CLASSES.items())},
    layout="""
        NCT-CRC-HE-100K/ADI/ADI-AAAFLCLY.tif     (or NCT-CRC-HE-100K-NONORM/)
        CRC-VAL-HE-7K/ADI/ADI-TCGA-AACVHPTM.tif
    """,
    size=Size(images=107180, gigabytes=12.5),
    traps=(
        "no patient ids: a split of the 100,000 tiles leaks; test on CRC-VAL-HE-7K, whose 50 patients are others",
        "colours of NCT-CRC-HE-100K are normalised (Macenko), those of -NONORM are not",
        "JPEG traces and colour differ between classes: models score high without seeing tissue",
    ),
    unverified=("JPEG traces",),
    find=find,
    example=example,
)
