"""CheXpert: chest radiographs of Stanford with 14 findings mined from reports, with uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_FOLDERS = ("CheXpert-v1.0-small", "CheXpert-v1.0")


def find(place: Place) -> Found:
    """The radiographs of train.csv and valid.csv; all columns after the view are findings."""
    place = place.within(*_FOLDERS)
    rows = []
    for split in ("train", "valid"):
        lines = place.table(f"{split}.csv", "Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
        files = [line["Path"].partition("/")[2] for line in lines]  # the path begins with the name of the archive
        place.named(files, table=f"{split}.csv")
        for file, line in zip(files, lines, strict=True):
            patient = next(part for part in Path(file).parts if part.startswith("patient"))
            labels = {name: _plain(value) for name, value in line.items() if name != "Path"}
            rows.append(Row(place.name(file), patient, split, labels))
    return rows, []


def _plain(value: str) -> str | None:
    return value.removesuffix(".0") or None


def example(root: Path) -> Sequence[Row]:
    """Two views of a patient for training, one of another for validation."""
    head = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "Edema")
    rows = []
    views = {
        "train": (
            ("patient00001/study1/view1_frontal.jpg", "AP", "-1.0"),
            ("patient00001/study1/view2_lateral.jpg", "", ""),
        ),
        "valid": (("patient64541/study1/view1_frontal.jpg", "PA", "1.0"),),
    }
    for split, lines in views.items():
        table = []
        for file, view, edema in lines:
            mini.photograph(root / f"CheXpert-v1.0-small/{split}/{file}", gray=True)
            side = "Frontal" if "frontal" in file else "Lateral"
            table.append((f"CheXpert-v1.0-small/{split}/{file}", "Male", 60, side, view, edema))
            labels = {"Sex": "Male", "Age": "60", "Frontal/Lateral": side, "AP/PA": view or None}
            labels["Edema"] = edema.removesuffix(".0") or None
            rows.append(Row(f"CheXpert-v1.0-small/{split}/{file}", file.partition("/")[0], split, labels))
        mini.table(root / f"CheXpert-v1.0-small/{split}.csv", head, *table)
    return rows


ENTRY = Entry(
    title="CheXpert",
    domain="radiology",
    modality="chest radiographs, frontal and lateral, 8 bit gray JPEG, no physical size",
    licence=Licence(
        name="Stanford University Dataset Research Use Agreement",
        commercial=False,
        registration="registration with Stanford and accepting the research use agreement",
    ),
    citation=Citation(
        authors="Irvin, Rajpurkar, Ko, ... Ng",
        title="CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison",
        year=2019,
        doi="10.1609/aaai.v33i01.3301590",
        arxiv="1901.07031",
    ),
    homepage="https://stanfordmlgroup.github.io/competitions/chexpert/",
    labels={
        "Sex, Age, Frontal/Lateral, AP/PA": "of the patient and the view",
        "No Finding, Edema, ...": "14 findings: 1 present, 0 absent, -1 uncertain, empty = not mentioned",
    },
    layout="""
        CheXpert-v1.0-small/train.csv         (Path, Sex, Age, Frontal/Lateral, AP/PA, No Finding, ...)
        CheXpert-v1.0-small/valid.csv
        CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg
        (or CheXpert-v1.0/ with full resolution)
    """,
    size=Size(images=224316, groups=65240),
    traps=(
        "-1 means uncertain and empty means not mentioned: neither is 0; both are kept as they are",
        "several studies and views per patient: the patient is the group",
        "findings of training are mined from reports; those of valid are by radiologists",
        "paths in the tables begin with the name of the archive",
    ),
    unverified=("that the agreement excludes commercial use",),
    find=find,
    example=example,
)
