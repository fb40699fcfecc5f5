"""Medical Segmentation Decathlon, task 4: hippocampus in MR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _decathlon
from datasets.catalogue.base import Entry, Found, Place, Row, Size


def find(place: Place) -> Found:
    """The task's folders, or a copy with `images` and `labels`."""
    if not place.has("images"):
        return _decathlon.find(place, "Task04_Hippocampus")
    volumes = place.files("images", "*.nii.gz")
    place.named([f"labels/{path.name}" for path in volumes], table="images")
    rows = [
        Row(place.name(path), path.name.removesuffix(".nii.gz"), None, {"label_file": f"labels/{path.name}"})
        for path in volumes
    ]
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """The task's folders."""
    return _decathlon.example(root, "Task04_Hippocampus", "hippocampus")


ENTRY = Entry(
    title="Medical Segmentation Decathlon task 4, hippocampus",
    domain="radiology",
    modality="MR (T1), NIfTI, crops of about 36 x 50 x 35 voxels, 1 mm",
    licence=_decathlon.LICENCE,
    citation=_decathlon.CITATION,
    homepage=_decathlon.HOMEPAGE,
    labels=_decathlon.labels("0 background, 1 anterior, 2 posterior"),
    layout=_decathlon.layout("Task04_Hippocampus", "hippocampus")
    + "\n(or a copy: images/hippocampus_001.nii.gz and labels/hippocampus_001.nii.gz)",
    size=Size(images=390),
    traps=(
        "float32 and uint8 volumes with very different scales of intensity: normalise each volume by itself",
        "crops smaller than common patch sizes: pad",
        _decathlon.TRAP,
    ),
    unverified=("number of images: 260 and 130 in dataset.json, 263 and 131 in the paper",),
    find=find,
    example=example,
)
