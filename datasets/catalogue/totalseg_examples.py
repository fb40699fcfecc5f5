"""The test volumes of the TotalSegmentator software: a CT and an MR with segmentations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_PAIRS = (("example_ct_sm.nii.gz", "example_seg.nii.gz", "CT"), ("example_mr_sm.nii.gz", "example_seg_mr.nii.gz", "MR"))


def find(place: Place) -> Found:
    """The two volumes."""
    place.named([name for pair in _PAIRS for name in pair[:2]], table="this entry")
    return [
        Row(
            place.name(image),
            Path(image).name.partition("_sm")[0],
            None,
            {"modality": kind, "label_file": place.name(label)},
        )
        for image, label, kind in _PAIRS
    ], []


def example(root: Path) -> Sequence[Row]:
    """Both volumes."""
    rows = []
    for image, label, kind in _PAIRS:
        mini.volume(root / image)
        mini.volume(root / label, label=True)
        rows.append(Row(image, f"example_{kind.lower()}", None, {"modality": kind, "label_file": label}))
    return rows


ENTRY = Entry(
    title="TotalSegmentator's test volumes",
    domain="radiology",
    modality="CT (Hounsfield units) 122 x 101 x 30 and MR 117 x 91 x 20 voxels, NIfTI, 3 mm",
    licence=Licence(name="Apache-2.0", commercial=True),
    citation=Citation(
        authors="Wasserthal, Breit, Meyer, ... Segeroth",
        title="TotalSegmentator: robust segmentation of 104 anatomic structures in CT images",
        year=2023,
        doi="10.1148/ryai.230024",
        arxiv="2208.05868",
    ),
    homepage="https://github.com/wasserth/TotalSegmentator",
    labels={"modality": "CT or MR", "label_file": "organ map: output of a model, not ground truth"},
    layout="""
        example_ct_sm.nii.gz  example_seg.nii.gz
        example_mr_sm.nii.gz  example_seg_mr.nii.gz
    """,
    size=Size(images=2, groups=2),
    traps=(
        "the organ maps are what a model said: never report a score against them",
        "the CT is stored as RAS, the MR as LPS; label numbers of CT and MR differ for the same organ",
    ),
    find=find,
    example=example,
)
