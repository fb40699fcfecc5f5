"""The images of a run, counted from its manifest `data.parquet`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_KINDS = {"photograph": 2, "scene": 2, "volume": 3}  # names of inputs that are nouns for their images, and their rank


@dataclass(frozen=True)
class DataFacts:
    """Counts of the manifest `data.parquet`: images and groups per kind and split; of `splits` those that have a label."""

    images: dict[str, int]
    groups: int
    held_out_images: int
    held_out_groups: int
    file_bytes: int | None
    splits: dict[str, tuple[int, int]]


def nouns(config: Mapping[str, Any]) -> dict[int, str]:
    """What the images of each rank are called: as the stream that reads them is, where that is a noun."""
    data = config.get("data")
    streams = data.get("streams") if isinstance(data, Mapping) else None
    names = {entry.get("input") for entry in streams or () if isinstance(entry, Mapping)}
    return {3: "volumes"} | {ndim: f"{name}s" for name, ndim in _KINDS.items() if name in names}


def label_of(config: Mapping[str, Any]) -> str | None:
    """The column that a fine-tuning learnt; None = every image has a label, as those of a domain's own set have."""
    images = config.get("images")
    label = images.get("label") if isinstance(images, Mapping) else None
    return label if isinstance(label, str) else None


def read_data(path: Path, nouns: Mapping[int, str], label: str | None, problems: list[str]) -> DataFacts | None:
    """Count; None where there is no manifest, or none that can be read, which `problems` then says."""
    if not path.is_file():
        return None
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        have = parquet.read_schema(path).names
        wanted = [name for name in ("ndim", "group", "split", "bytes", label) if name in have]
        table = parquet.read_table(path, columns=wanted).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        problems.append(f"data.parquet could not be read ({error}).")
        return None
    rows = len(next(iter(table.values()), []))
    images: dict[str, int] = {}
    for ndim in table.get("ndim", [0] * rows):
        kind = nouns.get(ndim, "images")
        images[kind] = images.get(kind, 0) + 1
    groups, splits = table.get("group", list(range(rows))), table.get("split", [""] * rows)
    held_out = [group for group, split in zip(groups, splits, strict=True) if split == "held_out"]
    size = sum(count or 0 for count in table["bytes"]) if "bytes" in table else None
    labelled: dict[str, list[Any]] = {}
    for group, split, value in zip(groups, splits, table.get(label or "", [True] * rows), strict=True):
        if split and value is not None and str(value).strip() not in ("", "nan"):
            labelled.setdefault(split, []).append(group)
    counts = {split: (len(found), len(set(found))) for split, found in labelled.items()}
    return DataFacts(images, len(set(groups)), len(held_out), len(set(held_out)), size, counts)
