"""RSNA pneumonia challenge: chest radiographs as DICOM with boxes around opacities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size
from datasets.image import Flag


def find(place: Place) -> Found:
    """One row per radiograph, however many boxes it has."""
    boxes: dict[str, int] = defaultdict(int)
    for line in place.table("stage_2_train_labels.csv", "patientId", "x", "y", "width", "height", "Target"):
        boxes[line["patientId"]] += line["Target"] == "1"
    place.named([f"stage_2_train_images/{name}.dcm" for name in boxes], table="stage_2_train_labels.csv")
    rows = [
        Row(
            place.name(f"stage_2_train_images/{name}.dcm"), name, "train", {"pneumonia": int(count > 0), "boxes": count}
        )
        for name, count in boxes.items()
    ]
    if place.has("stage_2_test_images"):
        count = len(place.files("stage_2_test_images", "*.dcm"))
        return rows, [Flag("unlabelled", f"{count} radiographs in stage_2_test_images have no labels: left out.")]
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """One radiograph without box, one with two."""
    head = ("patientId", "x", "y", "width", "height", "Target")
    lines = (("0004cfab", "", "", "", "", 0), ("00436515", 264, 152, 213, 379, 1), ("00436515", 562, 152, 256, 453, 1))
    mini.table(root / "stage_2_train_labels.csv", head, *lines)
    for name in ("0004cfab", "00436515"):
        mini.dicom(root / f"stage_2_train_images/{name}.dcm")
    mini.dicom(root / "stage_2_test_images/0000a175.dcm")
    return [
        Row("stage_2_train_images/0004cfab.dcm", "0004cfab", "train", {"pneumonia": 0, "boxes": 0}),
        Row("stage_2_train_images/00436515.dcm", "00436515", "train", {"pneumonia": 1, "boxes": 2}),
    ]


ENTRY = Entry(
    title="RSNA Pneumonia Detection Challenge (2018)",
    domain="radiology",
    modality="chest radiographs, 1024 x 1024, 8 bit DICOM",
    licence=Licence(
        name="RSNA and Kaggle competition rules",
        commercial=None,
        registration="a Kaggle account and accepting the competition's rules",
    ),
    citation=Citation(
        authors="Shih, Wu, Halabi, ... Stein",
        title="Augmenting the National Institutes of Health chest radiograph dataset with expert annotations of possible "
        "pneumonia",
        year=2019,
        doi="10.1148/ryai.2019180041",
    ),
    homepage="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge",
    labels={"pneumonia": "1 = at least one opacity", "boxes": "how many opacities are boxed"},
    layout="""
        stage_2_train_labels.csv               (patientId, x, y, width, height, Target: one row per box)
        stage_2_train_images/0004cfab-14fd-4e49-80ba-63a80b6bddd6.dcm
        stage_2_test_images/...                (without labels)
    """,
    size=Size(images=26684),
    traps=(
        "the table has one row per box: rows are not images",
        "patientId names a radiograph; the radiographs are those of NIH ChestX-ray14, so that patients of the two sets overlap "
        "and one real patient may have several ids: never test on the one what was trained on the other",
        "the DICOM files were made from 8 bit PNG: no physical units",
    ),
    unverified=("licence", "whether commercial use is allowed"),
    find=find,
    example=example,
)
