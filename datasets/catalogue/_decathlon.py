"""The layout that all tasks of the Medical Segmentation Decathlon share, and their terms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Found, Licence, Place, Row
from datasets.image import Flag

LICENCE = Licence(name="CC-BY-SA-4.0", commercial=True)
CITATION = Citation(
    authors="Antonelli, Reinke, Bakas, ... Cardoso",
    title="The Medical Segmentation Decathlon",
    year=2022,
    doi="10.1038/s41467-022-30695-9",
    arxiv="2106.05735",
)
HOMEPAGE = "http://medicaldecathlon.com"
TRAP = "the archives hold `._*` files of macOS, which are no volumes: left out here, but not by a plain folder scan"


def labels(values: str) -> dict[str, str]:
    """The one label column, and what the numbers in its volumes mean."""
    return {"label_file": f"label volume of a training image: {values}; test labels are not published"}


def layout(task: str, stem: str) -> str:
    """The tree of one task."""
    return (
        f"{task}/dataset.json\n{task}/imagesTr/{stem}_001.nii.gz\n{task}/labelsTr/{stem}_001.nii.gz\n"
        f"{task}/imagesTs/{stem}_002.nii.gz        (without labels)"
    )


def find(place: Place, task: str) -> Found:
    """Training volumes with their labels, then the test volumes where they are there."""
    place = place.within(task)
    volumes = place.files("imagesTr", "*.nii.gz")
    place.named([f"labelsTr/{path.name}" for path in volumes], table="imagesTr")
    rows = [
        Row(place.name(path), _stem(path), "train", {"label_file": place.name(f"labelsTr/{path.name}")})
        for path in volumes
    ]
    if place.has("imagesTs"):
        rows += [
            Row(place.name(p), _stem(p), "test", {"label_file": None}) for p in place.files("imagesTs", "*.nii.gz")
        ]
        return rows, [Flag("unlabelled", "the test volumes have no labels.")]
    return rows, []


def _stem(path: Path) -> str:
    return path.name.removesuffix(".nii.gz")


def example(root: Path, task: str, stem: str, channels: int = 0) -> Sequence[Row]:
    """Two training volumes and one test volume, with the junk of the real archives."""
    for number in (1, 4):
        mini.volume(root / task / f"imagesTr/{stem}_{number:03d}.nii.gz", channels=channels)
        mini.volume(root / task / f"labelsTr/{stem}_{number:03d}.nii.gz", label=True)
        mini.text(root / task / f"imagesTr/._{stem}_{number:03d}.nii.gz", "Mac OS X")
    mini.volume(root / task / f"imagesTs/{stem}_002.nii.gz", channels=channels)
    mini.text(root / task / "dataset.json", "{}")
    rows = [
        Row(
            f"{task}/imagesTr/{stem}_{n}.nii.gz",
            f"{stem}_{n}",
            "train",
            {"label_file": f"{task}/labelsTr/{stem}_{n}.nii.gz"},
        )
        for n in ("001", "004")
    ]
    return [*rows, Row(f"{task}/imagesTs/{stem}_002.nii.gz", f"{stem}_002", "test", {"label_file": None})]
