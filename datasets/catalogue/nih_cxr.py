"""NIH ChestX-ray14: chest radiographs with findings mined from reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size


def find(place: Place) -> Found:
    """The published archives, or a small copy that lists its radiographs in labels.csv."""
    if place.has("labels.csv"):
        lines = place.table("labels.csv", "file", "finding_labels_nih_v2020", "view", "sex", "nih_patient_id")
        place.named([line["file"] for line in lines], table="labels.csv")
        return [
            Row(
                ln["file"],
                f"patient {ln['nih_patient_id']}",
                None,
                _labels(ln["finding_labels_nih_v2020"], ln["view"], ln["sex"]),
            )
            for ln in lines
        ], []
    table = next(
        (n for n in ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv") if place.has(n)), "Data_Entry_2017_v2020.csv"
    )
    sex = "Patient Gender" if place.has(table) and "Patient Gender" in place.table(table)[0] else "Patient Sex"
    lines = place.table(table, "Image Index", "Finding Labels", "Patient ID", sex, "View Position")
    test = {line.strip() for line in place.path("test_list.txt").read_text().splitlines()}
    where = {path.name: path for path in place.files("", "images*/**/*.png")}
    gone = [line["Image Index"] for line in lines if line["Image Index"] not in where]
    if gone:
        raise place.missing(f"{gone[0]} ({len(gone)} of {len(lines)} images that {table} names)")
    rows = []
    for line in lines:
        name = line["Image Index"]
        labels = _labels(line["Finding Labels"], line["View Position"], line[sex])
        split = "test" if name in test else "train"
        rows.append(Row(place.name(where[name]), f"patient {line['Patient ID'].zfill(8)}", split, labels))
    return rows, []


def _labels(findings: str, view: str, sex: str) -> dict[str, str | int | float | None]:
    pneumonia = int("Pneumonia" in findings.split("|"))
    return {
        "findings": findings,
        "no_finding": int(findings == "No Finding"),
        "pneumonia": pneumonia,
        "view": view,
        "sex": sex,
    }


def example(root: Path) -> Sequence[Row]:
    """Two radiographs of one patient in different archives, one of another."""
    head = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Sex", "View Position")
    lines = (
        ("00000001_000.png", "Cardiomegaly", 0, 1, 57, "M", "PA"),
        ("00000001_001.png", "Edema|Pneumonia", 1, 1, 58, "M", "AP"),
        ("00000003_000.png", "No Finding", 0, 3, 74, "F", "PA"),
    )
    mini.table(root / "Data_Entry_2017_v2020.csv", head, *lines)
    mini.text(root / "test_list.txt", "00000003_000.png\n")
    files = [f"images_{n:03d}/images/{line[0]}" for n, line in zip((1, 2, 1), lines, strict=True)]
    rows = []
    for file, line in zip(files, lines, strict=True):
        mini.photograph(root / file, gray=True)
        split = "test" if line[3] == 3 else "train"
        rows.append(Row(file, f"patient {int(line[3]):08d}", split, _labels(str(line[1]), str(line[6]), str(line[5]))))
    return rows


ENTRY = Entry(
    title="NIH ChestX-ray14",
    domain="radiology",
    modality="chest radiographs, frontal, 1024 x 1024, 8 bit gray PNG, no physical size",
    licence=Licence(name="NIH Clinical Center: no restrictions, attribution asked", commercial=True),
    citation=Citation(
        authors="Wang, Peng, Lu, Lu, Bagheri, Summers",
        title="ChestX-ray8: hospital-scale chest X-ray database and benchmarks",
        year=2017,
        doi="10.1109/CVPR.2017.369",
        arxiv="1705.02315",
    ),
    homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
    labels={
        "findings": "14 findings separated by |, or `No Finding`; mined from reports",
        "no_finding": "1 = No Finding",
        "pneumonia": "1 = Pneumonia among the findings",
        "view": "PA or AP",
        "sex": "M or F",
    },
    layout="""
        Data_Entry_2017_v2020.csv      (Image Index, Finding Labels, ..., Patient ID, ..., View Position, ...)
        test_list.txt
        images_001/images/00000001_000.png  ...  images_012/images/
        (or a small copy: 00010610_003.png ... and labels.csv)
    """,
    size=Size(images=112120, groups=30805),
    traps=(
        "many radiographs per patient: the patient id is the group; a random split of radiographs leaks",
        "labels are mined from reports by a program",
        "view and portable device (AP) go with illness: a short cut; report by view",
        "some files are RGBA instead of gray",
        "the radiographs of the RSNA pneumonia challenge are from this set",
    ),
    unverified=("that some files are RGBA",),
    find=find,
    example=example,
)
