"""fMoW-Sentinel: time series of Sentinel-2 at the places of Functional Map of the World."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size


def find(place: Place) -> Found:
    """The chips that the tables name; the place is the group."""
    place = place.within("fmow-sentinel")
    rows = []
    for split in ("train", "val", "test_gt"):
        if split == "test_gt" and not place.has("test_gt.csv"):
            continue
        lines = place.table(f"{split}.csv", "category", "location_id", "image_id", "timestamp")
        files = [
            f"{split}/{ln['category']}/{ln['category']}_{ln['location_id']}/"
            f"{ln['category']}_{ln['location_id']}_{ln['image_id']}.tif"
            for ln in lines
        ]
        place.named(files, table=f"{split}.csv")
        for file, line in zip(files, lines, strict=True):
            labels = {"category": line["category"], "timestamp": line["timestamp"]}
            rows.append(Row(place.name(file), f"{split}/{line['category']}_{line['location_id']}", split, labels))
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """Two dates of one airport for training, a zoo for validation."""
    rows = []
    chips = {"train": (("airport", 0, 0), ("airport", 0, 100)), "val": (("zoo", 7, 3),)}
    for split, lines in chips.items():
        stamp = "2015-07-02T00:00:00Z"
        head = ("", "category", "location_id", "image_id", "timestamp")
        mini.table(root / f"fmow-sentinel/{split}.csv", head, *((n, *line, stamp) for n, line in enumerate(lines)))
        for kind, spot, image in lines:
            file = f"fmow-sentinel/{split}/{kind}/{kind}_{spot}/{kind}_{spot}_{image}.tif"
            mini.scene(root / file, bands=13)
            rows.append(Row(file, f"{split}/{kind}_{spot}", split, {"category": kind, "timestamp": stamp}))
    return rows


ENTRY = Entry(
    title="fMoW-Sentinel",
    domain="satellite",
    modality="Sentinel-2 composites of 90 days, 13 bands, GeoTIFF chips of many sizes, 10 m",
    licence=Licence(name="terms of the Stanford Digital Repository", commercial=None),
    citation=Citation(
        authors="Cong, Khanna, Meng, ... Ermon",
        title="SatMAE: pre-training transformers for temporal and multi-spectral satellite imagery",
        year=2022,
        arxiv="2207.08051",
    ),
    homepage="https://purl.stanford.edu/vg497cb6002",
    labels={"category": "62 kinds of building and land use", "timestamp": "of the composite"},
    layout="""
        fmow-sentinel/train.csv  val.csv  test_gt.csv    (, category, location_id, image_id, timestamp, ...)
        fmow-sentinel/train/airport/airport_0/airport_0_0.tif
    """,
    size=Size(images=None),
    traps=(
        "several dates of one place: the place is the group",
        "image_id up to 99 belongs to a picture of fMoW, higher ones are further dates",
        "bands have no names: the reader option names them; bands 1, 9 and 10 are commonly left out",
    ),
    unverified=("licence and commercial use", "number of images", "order of the bands", "meaning of image_id"),
    options=("geotiff.bands=[B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B10, B11, B12]",),
    find=find,
    example=example,
)
