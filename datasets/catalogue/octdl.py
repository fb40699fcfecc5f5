"""OCTDL: OCT B-scans by disease, with patient ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_CLASSES = ("AMD", "DME", "ERM", "NO", "RAO", "RVO", "VID")


def find(place: Place) -> Found:
    """The B-scans that the table names, in the folder of their disease."""
    place = place.within("OCTDL")
    lines = place.table("OCTDL_labels.csv", "file_name", "disease", "patient_id")
    files = [_file(line) for line in lines]
    place.named(files, table="OCTDL_labels.csv")
    rows = [
        Row(place.name(file), f"patient {line['patient_id']}", None, {"disease": line["disease"]})
        for file, line in zip(files, lines, strict=True)
    ]
    return rows, []


def _file(line: dict[str, str]) -> str:
    """The table names scans without suffix; some copies of it with."""
    return f"{line['disease']}/{line['file_name'].removesuffix('.jpg')}.jpg"


def example(root: Path) -> Sequence[Row]:
    """Three scans of two patients."""
    lines = (("amd_1047099_1", "AMD", 100), ("amd_1047099_2", "AMD", 100), ("no_1", "NO", 7))
    for name, disease, _ in lines:
        mini.photograph(root / f"OCTDL/{disease}/{name}.jpg", gray=True)
    mini.table(root / "OCTDL/OCTDL_labels.csv", ("file_name", "disease", "patient_id"), *lines)
    return [Row(f"OCTDL/{d}/{name}.jpg", f"patient {patient}", None, {"disease": d}) for name, d, patient in lines]


ENTRY = Entry(
    title="OCTDL (Optical Coherence Tomography Dataset for Image-Based Deep Learning Methods)",
    domain="retina",
    modality="OCT B-scans through the fovea (Optovue Avanti RTVue XR), JPEG of many sizes, no physical size",
    licence=Licence(name="CC-BY-4.0", commercial=True),
    citation=Citation(
        authors="Kulyabin, Zhdanov, Nikiforova, ... Maier",
        title="OCTDL: Optical Coherence Tomography Dataset for Image-Based Deep Learning Methods",
        year=2024,
        doi="10.1038/s41597-024-03182-7",
        arxiv="2312.08255",
    ),
    homepage="https://data.mendeley.com/datasets/sncdhf53xc",
    labels={"disease": ", ".join(_CLASSES)},
    layout="""
        OCTDL/OCTDL_labels.csv         (file_name, disease, patient_id, ...)
        OCTDL/AMD/amd_1047099_1.jpg
        OCTDL/DME/ ERM/ NO/ RAO/ RVO/ VID/
    """,
    size=Size(images=2064, groups=821, gigabytes=0.4),
    traps=(
        "several scans per patient: the patient is the group, never the scan",
        "60 % of the scans are AMD, 1 % RAO",
        "scan length and size of the picture differ, and with them the aspect of the retina",
    ),
    unverified=("shares of the classes",),
    repeats=True,
    find=find,
    example=example,
)
