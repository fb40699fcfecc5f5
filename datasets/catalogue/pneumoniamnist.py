"""PneumoniaMNIST: chest radiographs of children, 28 x 28, all in one NumPy archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import DataError
from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_ARCHIVES = ("pneumoniamnist.npz", "pneumoniamnist_trainval.npz")
_LABELS = {0: "normal", 1: "pneumonia"}


def find(place: Place) -> Found:
    """The unpacked pictures; the archive itself is refused with the cure, as thousands of images are no image."""
    if not place.has("labels.csv"):
        archive = _archive(place)
        raise DataError(
            f"{archive}: holds all images in one file; unpack it first: "
            f"python -m datasets.catalogue unpack pneumoniamnist {place.root} TARGET"
        )
    lines = place.table("labels.csv", "file", "split", "pneumonia")
    place.named([line["file"] for line in lines], table="labels.csv")
    return [Row(ln["file"], Path(ln["file"]).stem, ln["split"], {"pneumonia": ln["pneumonia"]}) for ln in lines], []


def _archive(place: Place) -> Path:
    return place.path(next((name for name in _ARCHIVES if place.has(name)), _ARCHIVES[0]))


def unpack(place: Place, target: Path) -> None:
    """Write one PNG per image, and labels.csv."""
    import numpy as np
    from PIL import Image

    rows = []
    with np.load(_archive(place), allow_pickle=False) as arrays:
        for split in ("train", "val", "test"):
            if f"{split}_images" not in arrays:
                continue
            (target / split).mkdir()
            labels = arrays[f"{split}_labels"].ravel().tolist()
            for number, (pixels, label) in enumerate(zip(arrays[f"{split}_images"], labels, strict=True)):
                file = f"{split}/{split}_{number:05d}.png"
                Image.fromarray(pixels).save(target / file)
                rows.append((file, split, label))
    mini.table(target / "labels.csv", ("file", "split", "pneumonia"), *rows)


def example(root: Path) -> Sequence[Row]:
    """What unpacking gives of an archive of three images."""
    import tempfile

    import numpy as np

    pixels = (
        np.arange(3 * 28 * 28).reshape(3, 28, 28).astype(np.uint8) ^ np.array([0, 85, 170], np.uint8)[:, None, None]
    )
    labels = np.array([[0], [1], [1]], np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "train_images": pixels[:2],
            "train_labels": labels[:2],
            "test_images": pixels[2:],
            "test_labels": labels[2:],
        }
        np.savez(Path(folder) / _ARCHIVES[0], allow_pickle=False, **parts)
        unpack(Place(ENTRY, Path(folder), Path(folder)), root)
    names = (("train", 0, "0"), ("train", 1, "1"), ("test", 0, "1"))
    return [Row(f"{s}/{s}_{n:05d}.png", f"{s}_{n:05d}", s, {"pneumonia": label}) for s, n, label in names]


ENTRY = Entry(
    title="PneumoniaMNIST (MedMNIST v2)",
    domain="radiology",
    modality="chest radiographs of children, reduced to 28 x 28, 8 bit gray, no physical size",
    licence=Licence(name="CC-BY-4.0", commercial=True),
    citation=Citation(
        authors="Yang, Shi, Wei, ... Ni",
        title="MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image classification",
        year=2023,
        doi="10.1038/s41597-022-01721-8",
        arxiv="2110.14795",
    ),
    homepage="https://medmnist.com",
    labels={"pneumonia": ", ".join(f"{number} {name}" for number, name in _LABELS.items())},
    layout="""
        pneumoniamnist.npz      (train_images, train_labels, val_images, ..., test_labels), to be unpacked into:
        labels.csv              (file, split, pneumonia)
        train/train_00000.png  val/val_00000.png  test/test_00000.png
    """,
    size=Size(images=5856),
    traps=(
        "thousands of images in one file: unpack them first (`python -m datasets.catalogue unpack`)",
        "several radiographs of one child are in the set without patient ids: groups cannot be kept together",
        "copies differ: a known one lacks the test part and 826 normal training images",
    ),
    unverified=("that children have several radiographs",),
    find=find,
    example=example,
    unpack=unpack,
)
