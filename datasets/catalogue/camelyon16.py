"""CAMELYON16: whole slides of lymph nodes with and without metastases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size
from datasets.image import Flag


def find(place: Place) -> Found:
    """Training slides by folder; test slides with reference.csv, or without labels where it is not there."""
    place = place.within("CAMELYON16", "Camelyon16")
    rows, notes = [], []
    for name, tumour in (("normal", 0), ("tumor", 1)):
        for path in place.files(f"training/{name}", "*.tif"):
            outline = place.root / f"training/lesion_annotations/{path.stem}.xml"
            labels = {"tumour": tumour, "annotation_file": place.name(outline) if outline.is_file() else None}
            rows.append(Row(place.name(path), path.stem, "train", labels))
    if place.has("testing/images"):
        known = {}
        if place.has("testing/reference.csv"):
            lines = (place.root / "testing/reference.csv").read_text(encoding="utf-8-sig").splitlines()
            cells = [line.split(",") for line in lines if line.strip()]
            known = {
                Path(cell[0].strip()).stem: int(cell[1].strip().lower() == "tumor") for cell in cells if len(cell) > 1
            }
        for path in place.files("testing/images", "*.tif"):
            if path.stem == "test_049":
                notes.append(Flag("left_out", "test_049 repeats another slide and was withdrawn: left out."))
                continue
            labels = {"tumour": known.get(path.stem), "annotation_file": None}
            rows.append(Row(place.name(path), path.stem, "test", labels))
    return rows, notes


def example(root: Path) -> Sequence[Row]:
    """A slide of each kind, and two for the test of which one does not count."""
    for file in (
        "training/normal/normal_001",
        "training/tumor/tumor_001",
        "testing/images/test_001",
        "testing/images/test_049",
    ):
        mini.slide(root / f"{file}.tif")
    mini.text(root / "training/lesion_annotations/tumor_001.xml", "<ASAP_Annotations/>")
    mini.text(root / "testing/reference.csv", "test_001,Tumor,IDC,Macro\ntest_049,Normal,None,None\n")
    outline = "training/lesion_annotations/tumor_001.xml"
    return [
        Row("training/normal/normal_001.tif", "normal_001", "train", {"tumour": 0, "annotation_file": None}),
        Row("training/tumor/tumor_001.tif", "tumor_001", "train", {"tumour": 1, "annotation_file": outline}),
        Row("testing/images/test_001.tif", "test_001", "test", {"tumour": 1, "annotation_file": None}),
    ]


ENTRY = Entry(
    title="CAMELYON16",
    domain="pathology",
    modality="H&E slides of lymph nodes, pyramidal TIFF, about 0.24 um a pixel, two hospitals",
    licence=Licence(name="CC0-1.0", commercial=True),
    citation=Citation(
        authors="Ehteshami Bejnordi, Veta, van Diest, ... the CAMELYON16 Consortium",
        title="Diagnostic assessment of deep learning algorithms for detection of lymph node metastases in women with breast "
        "cancer",
        year=2017,
        doi="10.1001/jama.2017.14585",
    ),
    homepage="https://camelyon17.grand-challenge.org/Data/",
    labels={
        "tumour": "1 = metastasis; empty where reference.csv is not there",
        "annotation_file": "XML outlines of tumour slides",
    },
    layout="""
        training/normal/normal_001.tif
        training/tumor/tumor_001.tif
        training/lesion_annotations/tumor_001.xml
        testing/images/test_001.tif
        testing/reference.csv              (test_001,Tumor,IDC,Macro; no header)
    """,
    size=Size(images=399),
    traps=(
        "the slide is the group; patients are not published",
        "test_049 repeats another slide and was withdrawn by the publishers: left out where a copy still has it",
        "20 tumour slides are outlined in part only: ground outside their outlines may be tumour",
        "hospital and scanner show in the colours, and the share of tumour differs between them",
    ),
    unverified=("pixel size",),
    find=find,
    example=example,
)
