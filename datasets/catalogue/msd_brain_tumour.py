"""Medical Segmentation Decathlon, task 1: brain tumours in four MR sequences (BraTS 2016 and 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _decathlon
from datasets.catalogue.base import Entry, Found, Place, Row, Size

_TASK = "Task01_BrainTumour"


def find(place: Place) -> Found:
    """The task's folders."""
    return _decathlon.find(place, _TASK)


def example(root: Path) -> Sequence[Row]:
    """Volumes with a fourth axis of four sequences."""
    return _decathlon.example(root, _TASK, "BRATS", channels=4)


ENTRY = Entry(
    title="Medical Segmentation Decathlon task 1, brain tumours (BraTS)",
    domain="radiology",
    modality="MR, 4D NIfTI of four sequences (FLAIR, T1, T1 with gadolinium, T2), 240 x 240 x 155 voxels, 1 mm",
    licence=_decathlon.LICENCE,
    citation=_decathlon.CITATION,
    homepage=_decathlon.HOMEPAGE,
    labels=_decathlon.labels("0 background, 1 edema, 2 non-enhancing tumour, 3 enhancing tumour"),
    layout=_decathlon.layout(_TASK, "BRATS"),
    size=Size(images=750),
    traps=(
        "the sequences are the fourth axis, unnamed: the reader options name them",
        "label numbers differ from BraTS itself, where enhancing tumour is 4",
        "the patients are those of BraTS 2016 and 2017 under other names: never test on BraTS what was trained on this",
        _decathlon.TRAP,
    ),
    options=("nifti.fourth_axis=bands", "nifti.bands=[flair, t1, t1gd, t2]"),
    find=find,
    example=example,
)
