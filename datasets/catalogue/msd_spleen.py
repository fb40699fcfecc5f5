"""Medical Segmentation Decathlon, task 9: spleen in CT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _decathlon
from datasets.catalogue.base import Entry, Found, Place, Row, Size

_CROP = "sub-spleen2_ct"


def find(place: Place) -> Found:
    """The task's folders, or the single crop that ivadomed's test data hold."""
    if not place.has(f"{_CROP}.nii.gz"):
        return _decathlon.find(place, "Task09_Spleen")
    place.path(f"{_CROP}_seg-manual.nii.gz")
    labels = {"label_file": place.name(f"{_CROP}_seg-manual.nii.gz")}
    return [Row(place.name(f"{_CROP}.nii.gz"), "spleen_2", None, labels)], []


def example(root: Path) -> Sequence[Row]:
    """The task's folders."""
    return _decathlon.example(root, "Task09_Spleen", "spleen")


ENTRY = Entry(
    title="Medical Segmentation Decathlon task 9, spleen",
    domain="radiology",
    modality="CT in Hounsfield units, NIfTI, 512 x 512 voxels of about 0.8 mm, slices 1.5 to 8 mm apart",
    licence=_decathlon.LICENCE,
    citation=_decathlon.CITATION,
    homepage=_decathlon.HOMEPAGE,
    labels=_decathlon.labels("0 background, 1 spleen"),
    layout=_decathlon.layout("Task09_Spleen", "spleen")
    + f"\n(or one crop: {_CROP}.nii.gz and {_CROP}_seg-manual.nii.gz)",
    size=Size(images=61),
    traps=(
        "anisotropic: slices are up to ten times as far apart as pixels",
        "portal venous phase of patients with liver metastases: no healthy people",
        _decathlon.TRAP,
    ),
    unverified=("range of slice distances",),
    find=find,
    example=example,
)
