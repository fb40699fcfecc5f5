"""EyePACS: the large set of Kaggle's Diabetic Retinopathy Detection, two eyes per patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size
from datasets.image import Flag


def find(place: Place) -> Found:
    """The graded photographs; the patient is the part of the name before the eye."""
    lines = place.table("trainLabels.csv", "image", "level")
    files = [f"train/{line['image']}.jpeg" for line in lines]
    place.named(files, table="trainLabels.csv")
    rows = [
        Row(file, line["image"].rpartition("_")[0], "train", {"level": line["level"]})
        for file, line in zip(files, lines, strict=True)
    ]
    if place.has("test"):
        count = len(place.files("test", "*.jpeg"))
        return rows, [Flag("unlabelled", f"{count} photographs in test have no grade in trainLabels.csv: left out.")]
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """Both eyes of two patients."""
    grades = {"10_left": "0", "10_right": "0", "13_left": "2", "13_right": "1"}
    for name in grades:
        mini.photograph(root / f"train/{name}.jpeg")
    mini.photograph(root / "test/1_left.jpeg")
    mini.table(root / "trainLabels.csv", ("image", "level"), *grades.items())
    return [Row(f"train/{name}.jpeg", name[:2], "train", {"level": grade}) for name, grade in grades.items()]


ENTRY = Entry(
    title="EyePACS (Kaggle Diabetic Retinopathy Detection, training part)",
    domain="retina",
    modality="colour fundus photographs, JPEG of many sizes, several cameras, no physical size",
    licence=Licence(
        name="Kaggle competition rules",
        commercial=None,
        registration="a Kaggle account and accepting the competition's rules",
    ),
    citation=Citation(
        authors="Cuadros, Bresnick",
        title="EyePACS: an adaptable telemedicine system for diabetic retinopathy screening",
        year=2009,
        doi="10.1177/193229680900300315",
    ),
    homepage="https://www.kaggle.com/c/diabetic-retinopathy-detection",
    labels={"level": "0 none, 1 mild, 2 moderate, 3 severe, 4 proliferative"},
    layout="""
        trainLabels.csv          (image, level)
        train/10_left.jpeg
        train/10_right.jpeg
        test/1_left.jpeg         (without grades)
    """,
    size=Size(images=35126, groups=17563, gigabytes=35.0),
    traps=(
        "both eyes of a patient are there (10_left, 10_right): the patient is the group",
        "some photographs are upside down or mirrored, as through a condensing lens",
        "74 % of the grades are 0, and grades are by one reader: noisy",
        "the archives come in parts that must be joined before they are unpacked",
    ),
    unverified=("whether commercial use is allowed",),
    repeats=True,
    find=find,
    example=example,
)
