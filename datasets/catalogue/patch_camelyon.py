"""PatchCamelyon: 96 x 96 tiles of lymph nodes with and without metastasis, packed in HDF5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import DataError
from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_STEM = "camelyonpatch_level_2_split_"


def find(place: Place) -> Found:
    """The unpacked tiles, grouped by slide; the HDF5 files themselves are refused with the cure."""
    if not place.has("labels.csv"):
        place.named(
            [f"{_STEM}{split}_{part}" for split in ("train", "valid", "test") for part in _PARTS], table="this entry"
        )
        raise DataError(
            f"{place.root}: holds all tiles in a few HDF5 files; unpack them first: "
            f"python -m datasets.catalogue unpack patch_camelyon {place.root} TARGET"
        )
    lines = place.table("labels.csv", "file", "split", "slide", "tumour")
    place.named([line["file"] for line in lines], table="labels.csv")
    return [Row(ln["file"], f"{ln['split']}/{ln['slide']}", ln["split"], {"tumour": ln["tumour"]}) for ln in lines], []


_PARTS = ("x.h5", "y.h5", "meta.csv")


def unpack(place: Place, target: Path) -> None:
    """Write one PNG per tile, and labels.csv with the slide of each."""
    from PIL import Image

    try:
        import h5py
    except ImportError:
        raise DataError(
            f"{place.root}: reading HDF5 needs h5py; install the extra: pip install halfseen[hdf]."
        ) from None
    rows = []
    for split in ("train", "valid", "test"):
        paths = [place.path(f"{_STEM}{split}_{part}") for part in _PARTS]
        slides = place.table(paths[2].name, "wsi")
        with h5py.File(paths[0], "r") as images, h5py.File(paths[1], "r") as labels:
            tiles, tumours = images["x"], labels["y"][:].ravel().tolist()
            if not len(tiles) == len(tumours) == len(slides):
                raise DataError(
                    f"{paths[0]}: {len(tiles)} tiles, {len(tumours)} labels, {len(slides)} slides; get it again."
                )
            for number, (slide, tumour) in enumerate(zip(slides, tumours, strict=True)):
                file = f"{split}/{number // 1000:03d}/{split}_{number:06d}.png"
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(tiles[number]).save(target / file, compress_level=3)
                rows.append((file, split, slide["wsi"], tumour))
    mini.table(target / "labels.csv", ("file", "split", "slide", "tumour"), *rows)


def example(root: Path) -> Sequence[Row]:
    """What unpacking gives: two tiles of one slide for training, and one for each other part."""
    tiles = [("train", 0, "camelyon16_train_normal_033", 0), ("train", 1, "camelyon16_train_normal_033", 1)]
    tiles += [("valid", 0, "camelyon16_train_tumor_091", 1), ("test", 0, "camelyon16_test_031", 0)]
    rows, lines = [], []
    for split, number, slide, tumour in tiles:
        file = f"{split}/000/{split}_{number:06d}.png"
        mini.photograph(root / file)
        lines.append((file, split, slide, tumour))
        rows.append(Row(file, f"{split}/{slide}", split, {"tumour": str(tumour)}))
    mini.table(root / "labels.csv", ("file", "split", "slide", "tumour"), *lines)
    return rows


ENTRY = Entry(
    title="PatchCamelyon (PCam)",
    domain="pathology",
    modality="H&E of lymph nodes, tiles of 96 x 96 RGB, about 0.97 um a pixel",
    licence=Licence(name="CC0-1.0", commercial=True),
    citation=Citation(
        authors="Veeling, Linmans, Winkens, Cohen, Welling",
        title="Rotation equivariant CNNs for digital pathology",
        year=2018,
        arxiv="1806.03962",
    ),
    homepage="https://github.com/basveeling/pcam",
    labels={"tumour": "1 = tumour in the central 32 x 32 pixels"},
    layout="""
        camelyonpatch_level_2_split_train_x.h5  ..._y.h5  ..._meta.csv   (and valid, test), to be unpacked into:
        labels.csv                     (file, split, slide, tumour)
        train/000/train_000000.png ...
    """,
    size=Size(images=327680),
    traps=(
        "all tiles in a few HDF5 files: unpack them first (`python -m datasets.catalogue unpack`)",
        "tiles of one slide are alike: the slide (column wsi of the meta tables) is the group",
        "only the centre decides the label: tumour at the rim of a tile does not count",
        "the tiles are from CAMELYON16: never test on the one what was trained on the other",
    ),
    unverified=("pixel size",),
    find=find,
    example=example,
    unpack=unpack,
)
