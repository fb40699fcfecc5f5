"""One row per tile in GeoParquet: which file, when, where in the file and on Earth, and its vector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

import core
from core.batch import Batch
from core.encoders.load import Encoder
from core.errors import DataError
from core.inference import Windows
from core.preprocess import Window
from datasets import LazyImage
from datasets.geoparquet import LONLAT, corners, moved, writing_places
from datasets.times import as_time
from domains.satellite.covering import Job, UnmeasuredError, go_over, leave_out
from domains.satellite.scenes import Found, Reading, scene_of

_WHERE = ("row", "column", "height", "width")

# When a scene was taken, as names of published products say.
_CALENDAR = re.compile(r"(?:^|[_.-])(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})(?=\D|$)")  # Sentinel-1 and -2
_YEAR_DAY = re.compile(r"\.(\d{4})(\d{3})T(\d{2})(\d{2})(\d{2})(?=\D|$)")  # HLS
_GRANULE = re.compile(r"\.A(\d{4})(\d{3})(?:\.(\d{2})(\d{2}))?\.")  # MODIS and VIIRS, with the minute of a swath
_COLLECTION = re.compile(r"^L[COTEM]0\d_\w{4}_\d{6}_(\d{4})(\d{2})(\d{2})_")  # Landsat since its Collection 1
_SCENE_ID = re.compile(r"^L[COTEM]\d\d{6}(\d{4})(\d{3})[A-Z]{3}\d{2}")  # Landsat before: path, row, year, day


def write_tiles(
    reading: Reading, name: str, encoder: Encoder, jobs: Sequence[Job], path: Path, *, overwrite: bool
) -> Path:
    """Write a row per tile of every scene: in the scenes' CRS where they share one, else in longitude and latitude.

    Scenes without a CRS have rows without an outline.

    Raises:
        DataError: a scene is damaged, or nothing is measured in any; one of several is told and has no rows.
        GeometryError: scenes of several CRS, one of which crosses the antimeridian.
    """
    times = [taken(job.found) for job in jobs]
    places = {job.image.georeference.crs for job in jobs if job.image.georeference is not None}
    crs = None if not places else places.pop() if len(places) == 1 else LONLAT
    width = encoder.num_features
    columns = {
        "file": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        **dict.fromkeys(_WHERE, pa.int32()),
        "vector": pa.list_(pa.float32(), width),
    }
    about: dict[str, Any] = {"encoder": name, "pool": encoder.pool, "halfseen": core.__version__}
    about |= {"window": list(jobs[0].windows.window), "bands": list(jobs[0].entry.bands)}

    def vectors(batch: Batch) -> Tensor:
        found: Tensor = encoder(batch)[:, :, None, None]
        return found

    unmeasured: list[UnmeasuredError] = []
    with writing_places(path, columns, crs=crs, about=about, overwrite=overwrite) as add:
        for job, time in zip(jobs, times, strict=True):

            def write(
                part: Window,
                values: np.ndarray,
                valid: np.ndarray,
                job: Job = job,
                time: datetime | None = time,
            ) -> None:
                boxes = [_box(job.windows, part, cell) for cell in np.argwhere(valid)]
                if boxes:
                    outlines = [_outline(job.image, box, crs) for box in boxes]
                    add(outlines, _columns(job.image, time, boxes, values[:, valid].T))

            scene = scene_of(job.image, job.entry)
            try:
                go_over(reading, job.image, scene, job.windows, vectors, write, values=width)
            except UnmeasuredError as error:
                unmeasured.append(error)
                leave_out(unmeasured, len(jobs))
    return path


def taken(found: Found) -> datetime | None:
    """When a scene was taken: as the list's column `time` says, else the file itself, else its name.

    Where only the day is known, it is the day's first moment in UTC.

    Raises:
        DataError: the column holds no time that `datasets.times.as_time` reads.
    """
    said = found.said.get("time")
    try:
        known = found.image.time if said is None else as_time(said)
    except ValueError:
        raise DataError(f"{found.image.path}: expected a time such as 2020-08-23T10:15:00Z, got '{said}'.") from None
    if known is None:
        return time_of(found.image.path.name)
    when = datetime.fromisoformat(known)
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def time_of(name: str) -> datetime | None:
    """Read the time of acquisition in UTC from a product's name; None where the name is of no known product.

    Products that name a day only give its first moment.
    """
    for pattern, of_year in (
        (_CALENDAR, False),
        (_YEAR_DAY, True),
        (_GRANULE, True),
        (_COLLECTION, False),
        (_SCENE_ID, True),
    ):
        found = pattern.search(name)
        if found is None:
            continue
        numbers = [int(text) for text in found.groups() if text is not None]
        try:
            return _of_day(*numbers) if of_year else datetime(*numbers, tzinfo=UTC)  # type: ignore[arg-type,misc]
        except ValueError:  # a thirteenth month: not such a name after all
            return None
    return None


def _of_day(year: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    found = datetime(year, 1, 1, hour, minute, second, tzinfo=UTC) + timedelta(days=day - 1)
    if found.year != year:
        raise ValueError(f"{year} has no day {day}")
    return found


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
