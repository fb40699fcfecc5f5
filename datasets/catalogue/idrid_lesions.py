"""IDRiD, part A: fundus photographs with outlines of lesions and the optic disc."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue._jpeg import flagged
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_LESIONS = {
    "MA": "1. Microaneurysms",
    "HE": "2. Haemorrhages",
    "EX": "3. Hard Exudates",
    "SE": "4. Soft Exudates",
    "OD": "5. Optic Disc",
}
_PARTS = (("a. Training Set", "train"), ("b. Testing Set", "test"))


def find(place: Place) -> Found:
    """The published folders, or a copy with `images` and `masks`; a label that is not there means none present."""
    if place.has("images"):
        photographs = place.files("images", "*.jpg")
        place.files("masks", "*.png")
        rows = [_row(place, photo, None, lambda photo, code: f"masks/{photo.stem}_{code}.png") for photo in photographs]
        return rows, flagged(photographs)
    place = place.within("A. Segmentation")
    rows, photographs = [], []
    for folder, split in _PARTS:
        truths = f"2. All Segmentation Groundtruths/{folder}"
        place.path(truths)
        for photo in place.files(f"1. Original Images/{folder}", "*.jpg"):
            photographs.append(photo)
            rows.append(
                _row(place, photo, split, lambda p, code, t=truths: f"{t}/{_LESIONS[code]}/{p.stem}_{code}.tif")  # type: ignore[misc]
            )
    return rows, flagged(photographs)


def _row(place: Place, photo: Path, split: str | None, where: Callable[[Path, str], str]) -> Row:
    found = {code: where(photo, code) for code in _LESIONS}
    labels = {f"label_{code}": place.name(file) if place.has(file) else None for code, file in found.items()}
    return Row(place.name(photo), photo.stem, split, labels)


def example(root: Path) -> Sequence[Row]:
    """A photograph of each part; the second has no soft exudates."""
    rows = []
    for (folder, split), name in zip(_PARTS, ("IDRiD_01", "IDRiD_55"), strict=True):
        file = f"A. Segmentation/1. Original Images/{folder}/{name}.jpg"
        mini.photograph(root / file)
        labels: dict[str, str | None] = {f"label_{code}": None for code in _LESIONS}
        for code, lesion in _LESIONS.items():
            if split == "test" and code == "SE":
                continue
            labels[f"label_{code}"] = (
                f"A. Segmentation/2. All Segmentation Groundtruths/{folder}/{lesion}/{name}_{code}.tif"
            )
            mini.mask(root / str(labels[f"label_{code}"]))
        rows.append(Row(file, name, split, labels))
    return rows


ENTRY = Entry(
    title="IDRiD lesion outlines (Indian Diabetic Retinopathy Image Dataset, part A)",
    domain="retina",
    modality="colour fundus photographs, 4288 x 2848 RGB JPEG, no physical size",
    licence=Licence(name="CC-BY-4.0", commercial=True, registration="an account of IEEE DataPort"),
    citation=Citation(
        authors="Porwal, Pachade, Kamble, ... Meriaudeau",
        title="Indian Diabetic Retinopathy Image Dataset (IDRiD): a database for diabetic retinopathy screening research",
        year=2018,
        doi="10.3390/data3030025",
    ),
    homepage="https://ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid",
    labels={
        f"label_{code}": f"label picture of {lesion[3:].lower()}; empty = none present"
        for code, lesion in _LESIONS.items()
    },
    layout="""
        A. Segmentation/1. Original Images/a. Training Set/IDRiD_01.jpg
        A. Segmentation/1. Original Images/b. Testing Set/IDRiD_55.jpg
        A. Segmentation/2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms/IDRiD_01_MA.tif
        A. Segmentation/2. All Segmentation Groundtruths/b. Testing Set/...
        (or a copy: images/IDRiD_01.jpg and masks/IDRiD_01_MA.png ... _HE _EX _SE _OD)
    """,
    size=Size(images=81),
    traps=(
        "12 million pixels with lesions of a few pixels: reducing a photograph erases them",
        "a lesion kind that is absent has no label file",
        "the published JPEGs carry record numbers and dates of examinations in comments: flagged as header_text",
        "photographs of part A may occur in part B under other names: do not train on one and test on the other",
    ),
    unverified=("that the download needs an account", "overlap of the parts"),
    find=find,
    example=example,
)
