"""BigEarthNet v2 (reBEN): Sentinel-2 patches of Europe with labels of land cover."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size
from datasets.image import Flag

_BANDS = {
    "B01": 60,
    "B02": 10,
    "B03": 10,
    "B04": 10,
    "B05": 20,
    "B06": 20,
    "B07": 20,
    "B08": 10,
    "B8A": 20,
    "B09": 60,
    "B11": 20,
    "B12": 20,
}


def find(place: Place) -> Found:
    """One folder per patch, with labels and splits of metadata.parquet; the Sentinel-2 tile is the group."""
    import pyarrow.parquet as pq

    table = pq.read_table(place.path("metadata.parquet"), columns=["patch_id", "labels", "split", "country"])
    lines = table.to_pylist()
    files = [f"BigEarthNet-S2/{_tile(line['patch_id'])}/{line['patch_id']}" for line in lines]
    place.path("BigEarthNet-S2")
    place.named(files, table="metadata.parquet")
    splits: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        splits[_tile(line["patch_id"])].add(line["split"])
    rows = []
    for file, line in zip(files, lines, strict=True):
        tile = _tile(line["patch_id"])
        labels = {"classes": "|".join(line["labels"]), "country": line["country"]}
        group = tile if len(splits[tile]) == 1 else f"{tile}/{line['split']}"
        rows.append(Row(place.name(file), group, line["split"], labels))
    parted = sum(len(found) > 1 for found in splits.values())
    text = f"the official split parts {parted} of {len(splits)} tiles: their groups are tile and split."
    return rows, [Flag("divided_group", text)] if parted else []


def _tile(patch: str) -> str:
    """S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57 is row 57, column 26 of the tile named before."""
    return patch.rsplit("_", 2)[0]


def example(root: Path) -> Sequence[Row]:
    """Two patches of one tile, and two of another that the split parts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tiles = ("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP", "S2B_MSIL2A_20170825T093029_N9999_R136_T34TEQ")
    patches = [f"{tiles[0]}_26_57", f"{tiles[0]}_26_58", f"{tiles[1]}_00_01", f"{tiles[1]}_90_01"]
    splits, rows = ("train", "train", "validation", "test"), []
    for patch, split in zip(patches, splits, strict=True):
        folder = f"BigEarthNet-S2/{_tile(patch)}/{patch}"
        for band, metres in _BANDS.items():
            mini.scene(root / folder / f"{patch}_{band}.tif", size=120 // metres, resolution=float(metres))
        group = tiles[0] if split == "train" else f"{tiles[1]}/{split}"
        rows.append(Row(folder, group, split, {"classes": "Arable land|Pastures", "country": "Austria"}))
    columns = {
        "patch_id": patches,
        "labels": [["Arable land", "Pastures"]] * 4,
        "split": list(splits),
        "country": ["Austria"] * 4,
    }
    pq.write_table(pa.table(columns), root / "metadata.parquet")
    return rows


ENTRY = Entry(
    title="BigEarthNet v2.0 (reBEN), Sentinel-2",
    domain="satellite",
    modality="Sentinel-2 L2A patches of 1200 x 1200 m, 12 bands, one uint16 GeoTIFF each at 10, 20 or 60 m, UTM",
    licence=Licence(name="CDLA-Permissive-1.0", commercial=True),
    citation=Citation(
        authors="Clasen, Hackel, Burgert, Sumbul, Demir, Markl",
        title="reBEN: refined BigEarthNet dataset for remote sensing image analysis",
        year=2025,
        arxiv="2407.03653",
    ),
    homepage="https://bigearth.net",
    labels={"classes": "19 classes of CORINE 2018, several per patch, separated by |", "country": "of the patch"},
    layout="""
        metadata.parquet              (patch_id, labels, split, country, ...)
        BigEarthNet-S2/S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP/
            S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57/
                S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_26_57_B01.tif ... _B12.tif
    """,
    size=Size(images=549488, groups=115),
    traps=(
        "bands of one patch have three resolutions (120, 60 and 20 pixels): the reader option takes the four of 10 m; "
        "20 and 60 give the others",
        "patches of one tile touch each other: the tile is the group, tile and split where the official split parts a tile",
        "several labels per patch",
        "version 1 has other splits, labels and atmospheric correction: do not mix the two",
    ),
    unverified=("whether the official split parts tiles",),
    options=("band_files.resolution_m=10",),
    find=find,
    example=example,
)
