"""Sunnybrook Cardiac Data: short-axis cine MR slices with the left ventricle, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size


def find(place: Place) -> Found:
    """Slices in `images` with their label pictures in `labels`; the patient stands before `-IM-`."""
    slices = place.files("images", "*.png")
    place.named([f"labels/{path.name}" for path in slices], table="images")
    rows = []
    for path in slices:
        patient = path.name.partition("-IM-")[0]
        labels = {
            "diagnosis": patient.removeprefix("SC-").rpartition("-")[0],
            "label_file": place.name(f"labels/{path.name}"),
        }
        rows.append(Row(place.name(path), patient, None, labels))
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """Two slices of one patient, one of another."""
    rows = []
    for patient, diagnosis, number in (("SC-HF-I-01", "HF-I", 48), ("SC-HF-I-01", "HF-I", 59), ("SC-N-02", "N", 80)):
        name = f"{patient}-IM-0001-{number:04d}.dcm.png"
        mini.photograph(root / "images" / name, gray=True)
        mini.mask(root / "labels" / name)
        rows.append(Row(f"images/{name}", patient, None, {"diagnosis": diagnosis, "label_file": f"labels/{name}"}))
    return sorted(rows, key=lambda row: row.file)


ENTRY = Entry(
    title="Sunnybrook Cardiac Data, left ventricle (slices as PNG)",
    domain="radiology",
    modality="MR (cine, short axis), single slices 256 x 256, 8 bit PNG, no physical size",
    licence=Licence(name="CC0-1.0", commercial=True),
    citation=Citation(
        authors="Radau, Lu, Connelly, Paul, Dick, Wright",
        title="Evaluation framework for algorithms segmenting short axis cardiac MRI",
        year=2009,
    ),
    homepage="https://www.cardiacatlas.org/sunnybrook-cardiac-data/",
    labels={
        "diagnosis": "HF-I heart failure with infarction, HF-NI without, HYP hypertrophy, N normal",
        "label_file": "label picture of the left ventricle",
    },
    layout="""
        images/SC-HF-I-01-IM-0001-0048.dcm.png
        labels/SC-HF-I-01-IM-0001-0048.dcm.png
    """,
    size=Size(images=None, groups=45),
    traps=(
        "slices and phases of one heart are nearly alike: the patient is the group",
        "as PNG, spacing, orientation and the scale of intensities are lost",
        "this is the layout of a PNG copy; the official DICOM folders with contour files are not read by this entry",
    ),
    unverified=("citation's DOI", "homepage"),
    find=find,
    example=example,
)
