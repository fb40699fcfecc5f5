"""APTOS 2019: fundus photographs of Kaggle's blindness detection, graded for diabetic retinopathy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size
from datasets.image import Flag


def find(place: Place) -> Found:
    """The graded photographs; Kaggle's own test photographs have no grades."""
    lines = place.table("train.csv", "id_code", "diagnosis")
    files = [f"train_images/{line['id_code']}.png" for line in lines]
    place.named(files, table="train.csv")
    rows = [
        Row(file, line["id_code"], "train", {"diagnosis": line["diagnosis"]})
        for file, line in zip(files, lines, strict=True)
    ]
    notes = []
    if place.has("test_images"):
        count = len(place.files("test_images", "*.png"))
        notes = [Flag("unlabelled", f"{count} photographs in test_images have no grade: left out.")]
    return rows, notes


def example(root: Path) -> Sequence[Row]:
    """Two different photographs and the copy of one under another grade, which is what the real set holds too."""
    for name in ("000c1434d8d7", "001639a390f0"):
        mini.photograph(root / f"train_images/{name}.png")
    (root / "train_images/0024cdab0c1e.png").write_bytes((root / "train_images/000c1434d8d7.png").read_bytes())
    mini.photograph(root / "test_images/0005cfc8afb6.png")
    grades = {"000c1434d8d7": "2", "001639a390f0": "4", "0024cdab0c1e": "1"}
    mini.table(root / "train.csv", ("id_code", "diagnosis"), *grades.items())
    groups = {"0024cdab0c1e": "000c1434d8d7"}
    return [
        Row(f"train_images/{name}.png", groups.get(name, name), "train", {"diagnosis": grade})
        for name, grade in grades.items()
    ]


ENTRY = Entry(
    title="APTOS 2019 Blindness Detection",
    domain="retina",
    modality="colour fundus photographs, PNG of many sizes, several cameras, no physical size",
    licence=Licence(
        name="Kaggle competition rules",
        commercial=None,
        registration="a Kaggle account and accepting the competition's rules",
    ),
    citation=Citation(
        authors="Asia Pacific Tele-Ophthalmology Society", title="APTOS 2019 Blindness Detection (Kaggle)", year=2019
    ),
    homepage="https://www.kaggle.com/c/aptos2019-blindness-detection",
    labels={"diagnosis": "0 none, 1 mild, 2 moderate, 3 severe, 4 proliferative"},
    layout="""
        train.csv                        (id_code, diagnosis)
        train_images/000c1434d8d7.png
        test_images/0005cfc8afb6.png     (without grades)
    """,
    size=Size(images=3662),
    traps=(
        "photographs occur more than once, some with different grades: identical files share a group here, so that no split "
        "parts them; the disagreement of their grades is label noise that remains",
        "no patient ids: eyes of one patient cannot be kept together",
        "size and shape of the picture depend on the camera, the camera on the clinic, the grade on both: a short cut",
    ),
    unverified=("whether commercial use is allowed",),
    repeats=True,
    find=find,
    example=example,
)
