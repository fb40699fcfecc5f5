"""TotalSegmentator's CT data set, version 2: whole bodies with 117 structures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size


def find(place: Place) -> Found:
    """One folder per subject; splits from meta.csv."""
    place = place.within("Totalsegmentator_dataset_v201")
    lines = place.table("meta.csv", "image_id", "age", "gender", "study_type", "split", delimiter=";")
    place.named([f"{line['image_id']}/ct.nii.gz" for line in lines], table="meta.csv")
    rows = []
    for line in lines:
        labels = {name: line[name] or None for name in ("age", "gender", "study_type")}
        labels["label_folder"] = place.name(f"{line['image_id']}/segmentations")
        rows.append(Row(place.name(f"{line['image_id']}/ct.nii.gz"), line["image_id"], line["split"], labels))
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """A training and a test subject."""
    head = ("image_id", "age", "gender", "institute", "study_type", "split")
    lines = (("s0000", 70, "m", "A", "ct thorax", "train"), ("s0004", "", "f", "B", "ct abdomen", "test"))
    mini.table(root / "meta.csv", head, *lines, delimiter=";")
    rows = []
    for name, age, gender, _, study, split in lines:
        mini.volume(root / f"{name}/ct.nii.gz")
        mini.volume(root / f"{name}/segmentations/liver.nii.gz", label=True)
        labels = {
            "age": str(age) or None,
            "gender": gender,
            "study_type": study,
            "label_folder": f"{name}/segmentations",
        }
        rows.append(Row(f"{name}/ct.nii.gz", name, split, labels))
    return rows


ENTRY = Entry(
    title="TotalSegmentator CT data set, version 2.0.1",
    domain="radiology",
    modality="CT in Hounsfield units, NIfTI, resampled to 1.5 mm, any part of the body",
    licence=Licence(name="CC-BY-4.0", commercial=True),
    citation=Citation(
        authors="Wasserthal, Breit, Meyer, ... Segeroth",
        title="TotalSegmentator: robust segmentation of 104 anatomic structures in CT images",
        year=2023,
        doi="10.1148/ryai.230024",
        arxiv="2208.05868",
    ),
    homepage="https://zenodo.org/records/10047292",
    labels={
        "age, gender, study_type": "of the patient and the examination",
        "label_folder": "one binary NIfTI per structure, 117 of them",
    },
    layout="""
        meta.csv                                (image_id;age;gender;institute;study_type;split;...)
        s0000/ct.nii.gz
        s0000/segmentations/liver.nii.gz
    """,
    size=Size(images=1228, groups=1228),
    traps=(
        "meta.csv is separated by semicolons and begins with a byte order mark",
        "label numbers and names differ between versions 1 (104 structures) and 2 (117)",
        "a folder scan would take the 117 label volumes of a subject for images",
        "labels were made with models in the loop; structures cut off by the field of view are often empty",
    ),
    unverified=("that no patient occurs twice",),
    find=find,
    example=example,
)
