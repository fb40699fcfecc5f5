"""RFMiD: fundus photographs with many diseases, several per photograph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_PARTS = (("Training", "Training", "train"), ("Evaluation", "Validation", "validation"), ("Test", "Testing", "test"))


def find(place: Place) -> Found:
    """The three parts; every column of their tables is a label."""
    rows = []
    for part, word, split in _PARTS:
        inner = place.within(f"{part}_Set/{part}_Set", f"{part}_Set")
        if inner == place:
            raise place.missing(f"{part}_Set")
        table = f"RFMiD_{word}_Labels.csv"
        lines = inner.table(table, "ID", "Disease_Risk")
        folder = "Test" if part == "Test" else word
        files = [f"{folder}/{line['ID']}.png" for line in lines]
        inner.named(files, table=table)
        for file, line in zip(files, lines, strict=True):
            labels = {name: value for name, value in line.items() if name != "ID"}
            rows.append(Row(inner.name(file), f"{split}/{line['ID']}", split, labels))
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """A photograph of each part, all called 1.png."""
    rows = []
    for part, word, split in _PARTS:
        file = f"{part}_Set/{'Test' if part == 'Test' else word}/1.png"
        mini.photograph(root / file)
        mini.table(root / f"{part}_Set/RFMiD_{word}_Labels.csv", ("ID", "Disease_Risk", "DR", "ARMD"), (1, 1, 0, 1))
        rows.append(Row(file, f"{split}/1", split, {"Disease_Risk": "1", "DR": "0", "ARMD": "1"}))
    return rows


ENTRY = Entry(
    title="RFMiD (Retinal Fundus Multi-Disease Image Dataset)",
    domain="retina",
    modality="colour fundus photographs, 2144 x 1424 to 4288 x 2848 RGB PNG, three cameras, no physical size",
    licence=Licence(name="CC-BY-4.0", commercial=True, registration="an account of IEEE DataPort"),
    citation=Citation(
        authors="Pachade, Porwal, Thulkar, ... Meriaudeau",
        title="Retinal Fundus Multi-Disease Image Dataset (RFMiD): a dataset for multi-disease detection research",
        year=2021,
        doi="10.3390/data6020014",
    ),
    homepage="https://ieee-dataport.org/open-access/retinal-fundus-multi-disease-image-dataset-rfmid",
    labels={"Disease_Risk": "1 = any disease", "DR, ARMD, ...": "one column per disease, 1 = present; several may be"},
    layout="""
        Training_Set/RFMiD_Training_Labels.csv        (ID, Disease_Risk, DR, ARMD, ...)
        Training_Set/Training/1.png
        Evaluation_Set/RFMiD_Validation_Labels.csv
        Evaluation_Set/Validation/1.png
        Test_Set/RFMiD_Testing_Labels.csv
        Test_Set/Test/1.png
        (each also one folder deeper: Training_Set/Training_Set/...)
    """,
    size=Size(images=3200),
    traps=(
        "all three parts begin at 1.png: the group names the part",
        "several labels per photograph: no single class",
        "no patient ids: eyes of one patient cannot be kept together",
    ),
    unverified=("licence", "that the download needs an account"),
    find=find,
    example=example,
)
