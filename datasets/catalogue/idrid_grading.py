"""IDRiD, part B: fundus photographs with grades of diabetic retinopathy and risk of macular edema."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue._jpeg import flagged
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_PARTS = (("Training", "a", "train"), ("Testing", "b", "test"))


def find(place: Place) -> Found:
    """The published folders, or a cleaned copy that lists its photographs in labels.csv."""
    if place.has("labels.csv"):
        lines = place.table("labels.csv", "file", "retinopathy_grade", "macular_edema_risk")
        place.named([line["file"] for line in lines], table="labels.csv")
        grades = ("retinopathy_grade", "macular_edema_risk")
        rows = [Row(ln["file"], Path(ln["file"]).stem, None, {name: ln[name] for name in grades}) for ln in lines]
        return rows, flagged(place.root / row.file for row in rows)
    place = place.within("B. Disease Grading")
    rows = []
    for part, letter, split in _PARTS:
        table = f"2. Groundtruths/{letter}. IDRiD_Disease Grading_{part} Labels.csv"
        lines = place.table(table, "Image name", "Retinopathy grade", "Risk of macular edema")
        files = [f"1. Original Images/{letter}. {part} Set/{line['Image name']}.jpg" for line in lines]
        place.named(files, table=table)
        for line, file in zip(lines, files, strict=True):
            labels = {
                "retinopathy_grade": line["Retinopathy grade"],
                "macular_edema_risk": line["Risk of macular edema"],
            }
            rows.append(Row(place.name(file), f"{split}/{line['Image name']}", split, labels))
    return rows, flagged(place.base / row.file for row in rows)


def example(root: Path) -> Sequence[Row]:
    """Two photographs of one name, one in each part; one of them with a comment."""
    rows = []
    for part, letter, split in _PARTS:
        file = f"B. Disease Grading/1. Original Images/{letter}. {part} Set/IDRiD_001.jpg"
        mini.photograph(root / file, comment=b"record 1, 2001-01-01" if split == "train" else b"")
        name = f"B. Disease Grading/2. Groundtruths/{letter}. IDRiD_Disease Grading_{part} Labels.csv"
        header = ("Image name", "Retinopathy grade", "Risk of macular edema ", "", "")
        mini.table(root / name, header, ("IDRiD_001", 3, 2, "", ""))
        rows.append(Row(file, f"{split}/IDRiD_001", split, {"retinopathy_grade": "3", "macular_edema_risk": "2"}))
    return rows


ENTRY = Entry(
    title="IDRiD disease grading (Indian Diabetic Retinopathy Image Dataset, part B)",
    domain="retina",
    modality="colour fundus photographs, 4288 x 2848 RGB JPEG, no physical size",
    licence=Licence(name="CC-BY-4.0", commercial=True, registration="an account of IEEE DataPort"),
    citation=Citation(
        authors="Porwal, Pachade, Kamble, ... Meriaudeau",
        title="Indian Diabetic Retinopathy Image Dataset (IDRiD): a database for diabetic retinopathy screening research",
        year=2018,
        doi="10.3390/data3030025",
    ),
    homepage="https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
    labels={
        "retinopathy_grade": "0 none, 1 mild, 2 moderate, 3 severe, 4 proliferative",
        "macular_edema_risk": "0 none, 1 not clinically significant, 2 clinically significant",
    },
    layout="""
        B. Disease Grading/1. Original Images/a. Training Set/IDRiD_001.jpg
        B. Disease Grading/1. Original Images/b. Testing Set/IDRiD_001.jpg
        B. Disease Grading/2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv
        B. Disease Grading/2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv
        (or a cleaned copy: IDRiD_001.jpg ... and labels.csv with file, retinopathy_grade, macular_edema_risk)
    """,
    size=Size(images=516),
    traps=(
        "the published JPEGs carry record numbers and dates of examinations in comments: flagged as header_text",
        "IDRiD_001.jpg of training and of testing are different photographs: the group names the part",
        "some photographs are repeated, also across the official split, with labels that disagree; identical files share a "
        "group here, re-encoded repeats are not found",
        "no patient ids: eyes of one patient cannot be kept together",
    ),
    unverified=("that the download needs an account",),
    repeats=True,
    find=find,
    example=example,
)
