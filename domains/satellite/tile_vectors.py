"""One row per tile in GeoParquet: which file, when, where in the file and on Earth, and its vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

import core
from core.batch import Batch
from core.contract import Input
from core.encoders.load import Encoder
from core.errors import DataError
from core.inference import Windows
from core.preprocess import Window
from datasets import LazyImage
from datasets.geoparquet import LONLAT, corners, moved, writing_places
from domains.satellite.covering import go_over
from domains.satellite.scenes import Found, Reading, scene_of
from domains.satellite.times import time_of

_WHERE = ("row", "column", "height", "width")


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """One scene, the input that reads it, and its tiles: windows that give one value each."""

    found: Found
    entry: Input
    windows: Windows

    @property
    def image(self) -> LazyImage:
        """The scene."""
        return self.found.image


def write_tiles(
    reading: Reading, name: str, encoder: Encoder, scenes: Sequence[Tiles], path: Path, *, overwrite: bool
) -> Path:
    """Write a row per tile of every scene: in the scenes' CRS where they share one, else in longitude and latitude.

    Scenes without a CRS have rows without an outline.

    Raises:
        DataError: a scene is damaged, or nothing in it is measured.
        GeometryError: scenes of several CRS, one of which crosses the antimeridian.
    """
    times = [taken(tiles.found) for tiles in scenes]
    places = {tiles.image.georeference.crs for tiles in scenes if tiles.image.georeference is not None}
    crs = None if not places else places.pop() if len(places) == 1 else LONLAT
    width = encoder.num_features
    columns = {
        "file": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        **dict.fromkeys(_WHERE, pa.int32()),
        "vector": pa.list_(pa.float32(), width),
    }
    about: dict[str, Any] = {"encoder": name, "pool": encoder.pool, "halfseen": core.__version__}
    about |= {"window": list(scenes[0].windows.window), "bands": list(scenes[0].entry.bands)}

    def vectors(batch: Batch) -> Tensor:
        found: Tensor = encoder(batch)[:, :, None, None]
        return found

    with writing_places(path, columns, crs=crs, about=about, overwrite=overwrite) as add:
        for tiles, time in zip(scenes, times, strict=True):

            def write(
                part: Window,
                values: np.ndarray,
                valid: np.ndarray,
                tiles: Tiles = tiles,
                time: datetime | None = time,
            ) -> None:
                boxes = [_box(tiles.windows, part, cell) for cell in np.argwhere(valid)]
                if boxes:
                    outlines = [_outline(tiles.image, box, crs) for box in boxes]
                    add(outlines, _columns(tiles.image, time, boxes, values[:, valid].T))

            scene = scene_of(tiles.image, tiles.entry)
            go_over(reading, tiles.image, scene, tiles.windows, vectors, write, values=width)
    return path


def taken(found: Found) -> datetime | None:
    """When a scene was taken: what the list's column `time` says (ISO 8601, UTC if it names no zone), else its name.

    Raises:
        DataError: the column holds something else.
    """
    said = found.said.get("time")
    if said is None:
        return time_of(found.image.path.name)
    try:
        when = said if isinstance(said, datetime) else datetime.fromisoformat(str(said))
    except ValueError:
        raise DataError(f"{found.image.path}: expected a time such as 2020-08-23T10:15:00Z, got '{said}'.") from None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _box(windows: Windows, part: Window, cell: np.ndarray) -> tuple[slice, slice]:
    """The pixels of one tile, cut off where the scene ends."""
    ranges = []
    for axis in (0, 1):
        start = (part[axis].start + int(cell[axis])) * windows.cell[axis]
        ranges.append(slice(start, min(start + windows.cell[axis], windows.size[axis])))
    return ranges[0], ranges[1]


def _outline(image: LazyImage, box: tuple[slice, slice], crs: str | None) -> np.ndarray | None:
    if image.georeference is None or crs is None:
        return None
    return moved(corners(image.georeference, box), image.georeference.crs, crs)


def _columns(
    image: LazyImage, time: datetime | None, boxes: list[tuple[slice, slice]], vectors: np.ndarray
) -> dict[str, Any]:
    flat = pa.array(np.ascontiguousarray(vectors).ravel())
    places = [(y.start, x.start, y.stop - y.start, x.stop - x.start) for y, x in boxes]
    return {
        "file": [str(image.path)] * len(boxes),
        "time": [time] * len(boxes),
        **dict(zip(_WHERE, map(list, zip(*places, strict=True)), strict=True)),
        "vector": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
    }
