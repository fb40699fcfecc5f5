"""Sen1Floods11: floods in Sentinel-2 chips outlined by hand, eleven events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_SPLITS = ("train", "valid", "test", "bolivia")
_HAND = "data/flood_events/HandLabeled"
_BANDS = "B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B10, B11, B12"


def find(place: Place) -> Found:
    """The chips of the four lists, as Sentinel-2 images with their labels; the event is the group."""
    place = place.within("v1.1")
    rows = []
    for split in _SPLITS:
        table = place.path(f"splits/flood_handlabeled/flood_{split}_data.csv")
        chips = [
            line.split(",")[1].strip().removesuffix("_LabelHand.tif") for line in table.read_text().splitlines() if line
        ]
        names = [f"{_HAND}/{kind}/{chip}_{kind}.tif" for chip in chips for kind in ("S2Hand", "LabelHand")]
        place.named(names, table=table.name)
        for chip in chips:
            label = place.name(f"{_HAND}/LabelHand/{chip}_LabelHand.tif")
            labels = {"event": chip.partition("_")[0], "label_file": label}
            # Within an event the official lists mix chips over splits: a chip is the finest unit that they respect.
            rows.append(Row(place.name(f"{_HAND}/S2Hand/{chip}_S2Hand.tif"), chip, split, labels))
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """A chip of each list."""
    rows = []
    for split, chip in zip(_SPLITS, ("Ghana_103272", "Ghana_234935", "India_900498", "Bolivia_103757"), strict=True):
        mini.text(
            root / f"v1.1/splits/flood_handlabeled/flood_{split}_data.csv", f"{chip}_S1Hand.tif,{chip}_LabelHand.tif\n"
        )
        mini.scene(root / f"v1.1/{_HAND}/S2Hand/{chip}_S2Hand.tif", bands=13)
        label = f"v1.1/{_HAND}/LabelHand/{chip}_LabelHand.tif"
        mini.scene(root / label, dtype="int16")
        labels = {"event": chip.partition("_")[0], "label_file": label}
        rows.append(Row(f"v1.1/{_HAND}/S2Hand/{chip}_S2Hand.tif", chip, split, labels))
    return rows


ENTRY = Entry(
    title="Sen1Floods11, hand-labelled part, Sentinel-2",
    domain="satellite",
    modality="Sentinel-2 L1C chips, 13 bands, 512 x 512 GeoTIFF, 10 m; Sentinel-1 VV and VH beside them",
    licence=Licence(name="not stated by the publisher", commercial=None),
    citation=Citation(
        authors="Bonafilia, Tellman, Anderson, Issenberg",
        title="Sen1Floods11: a georeferenced dataset to train and test deep learning flood algorithms for Sentinel-1",
        year=2020,
        doi="10.1109/CVPRW50498.2020.00113",
    ),
    homepage="https://github.com/cloudtostreet/Sen1Floods11",
    labels={"event": "country of the flood", "label_file": "label raster: 1 water, 0 none, -1 not known"},
    layout="""
        v1.1/splits/flood_handlabeled/flood_train_data.csv   (Ghana_103272_S1Hand.tif,Ghana_103272_LabelHand.tif; no header)
        v1.1/splits/flood_handlabeled/flood_valid_data.csv  flood_test_data.csv  flood_bolivia_data.csv
        v1.1/data/flood_events/HandLabeled/S2Hand/Ghana_103272_S2Hand.tif
        v1.1/data/flood_events/HandLabeled/LabelHand/Ghana_103272_LabelHand.tif
    """,
    size=Size(images=446, groups=11),
    traps=(
        "chips of one flood are in several of the official lists; only Bolivia is held out as a whole. The group is the chip, "
        "so that the lists can be used; name the column `event` as the group to hold out whole floods",
        "-1 in a label is unknown (clouds), not a class",
        "bands have no names: the reader option names them",
        "the terms are not stated: ask before you pass anything on",
    ),
    unverified=("order of the bands",),
    options=(f"geotiff.bands=[{_BANDS}]",),
    find=find,
    example=example,
)
