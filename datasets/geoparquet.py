"""GeoParquet: tables whose rows lie somewhere on Earth, written in pieces, published whole.

Version 1.1.0 of the format (https://geoparquet.org/releases/v1.1.0): polygons as WKB, the CRS as PROJJSON, and the bounds of
each row in a column `bbox`, by which readers skip what lies elsewhere.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import DataError, GeometryError, RunFolderError
from core.geometry import Georeference
from core.preprocess import Window
from datasets.publishing import published
from datasets.readers._scene import is_crs_text
from datasets.safety import local

LONLAT = "OGC:CRS84"
"""Longitude and latitude, in that order."""

Corners = np.ndarray
"""(4, 2) float64: x and y of the corners of a window, in the order of its outline."""

_BOX = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
_STEPS = 8  # points along an edge that is drawn in another CRS, where straight lines are not straight


def corners(place: Georeference, window: Window) -> Corners:
    """Give the corners of a window of a scene, in the scene's CRS."""
    a, b, c, d, e, f = place.transform
    rows, columns = window
    points = [(rows.start, columns.start), (rows.stop, columns.start), (rows.stop, columns.stop)]
    points.append((rows.start, columns.stop))
    return np.array([(a * x + b * y + c, d * x + e * y + f) for y, x in points], dtype=np.float64)


def moved(outline: Corners, crs: str, to: str) -> np.ndarray:
    """Bring an outline to another CRS, (n, 2); edges get more points, for straight lines do not stay straight.

    Raises:
        GeometryError: a CRS is unknown, or the outline crosses the antimeridian and has no polygon there.
    """
    if crs == to:
        return outline
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    share = np.arange(_STEPS) / _STEPS
    edges = [a + (b - a) * share[:, None] for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True)]
    points = np.concatenate(edges)
    try:
        x, y = transform(CRS.from_user_input(crs), CRS.from_user_input(to), points[:, 0], points[:, 1])
    except CRSError as error:
        raise GeometryError(f"expected a CRS that PROJ knows, got '{crs[:80]}' ({error}).") from None
    found = np.stack([x, y], axis=1)
    if not np.isfinite(found).all() or (to == LONLAT and np.ptp(found[:, 0]) > 180):
        raise GeometryError(
            f"a window of {crs[:80]} crosses the antimeridian or the edge of that projection and is no polygon in {to}; "
            "write scenes of one CRS at a time, which stay in it."
        )
    return found


def polygon(outline: np.ndarray) -> bytes:
    """Write an outline (n, 2) as a WKB polygon, closed, and counterclockwise in its CRS."""
    x, y = outline[:, 0], outline[:, 1]
    turned = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() < 0
    ring = outline[::-1] if turned else outline
    ring = np.concatenate([ring, ring[:1]])
    return struct.pack("<BIII", 1, 3, 1, len(ring)) + ring.astype("<f8").tobytes()


@contextmanager
def writing_places(
    path: str | Path,
    columns: Mapping[str, pa.DataType],
    *,
    crs: str | None,
    about: Mapping[str, Any],
    overwrite: bool = False,
) -> Iterator[Callable[[Sequence[np.ndarray | None], Mapping[str, Any]], None]]:
    """Write a table in pieces; gives what takes outlines, (n, 2) in `crs` or None, and as many values of every column.

    The file appears when the block ends without an error.

    Args:
        path: what to write; its folder is made.
        columns: names and types beside `geometry` and `bbox`.
        crs: of all outlines; None = there are none, or in no known CRS.
        about: plain facts, kept under the key `halfseen`.
        overwrite: replace what has that name.

    Raises:
        RunFolderError: the name is taken.
        DataError: nothing was written.
        GeometryError: PROJ does not know the CRS.
    """
    path = local(path)
    if path.exists() and not overwrite:
        raise RunFolderError(f"{path} exists already; choose another name, or say overwrite.")
    described = None if crs is None else projjson(crs)
    schema = pa.schema({**columns, "bbox": _BOX, "geometry": pa.binary()})
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    rows = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as draft, pq.ParquetWriter(draft, schema, compression="zstd", store_schema=False) as file:

        def add(outlines: Sequence[np.ndarray | None], values: Mapping[str, Any]) -> None:
            nonlocal low, high, rows
            boxes: list[dict[str, float] | None] = []
            for outline in outlines:
                if outline is None:
                    boxes.append(None)
                    continue
                least, most = outline.min(axis=0), outline.max(axis=0)
                low, high = np.minimum(low, least), np.maximum(high, most)
                boxes.append(dict(zip(_BOX.names, map(float, (*least, *most)), strict=True)))
            shapes = [None if outline is None else polygon(outline) for outline in outlines]
            file.write_table(pa.table({**values, "bbox": boxes, "geometry": shapes}, schema=schema))
            rows += len(outlines)

        yield add
        if not rows:
            raise DataError(f"{path}: expected at least one row, there was none; nothing was written.")
        bounds = None if not np.isfinite(low).all() else [float(v) for v in (*low, *high)]
        facts = {"geo": json.dumps(_geo(described, bounds)), "halfseen": json.dumps(dict(about))}
        # The bounds are known only now. pyarrow would have stored its schema, with the metadata of the beginning, at once.
        arrow = base64.b64encode(schema.with_metadata(facts).serialize().to_pybytes()).decode()
        file.add_key_value_metadata(facts | {"ARROW:schema": arrow})


def projjson(crs: str) -> dict[str, Any]:
    """Describe a CRS, given as AUTHORITY:CODE or WKT, as PROJJSON.

    Raises:
        GeometryError: PROJ does not know it.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        if is_crs_text(crs):
            found: dict[str, Any] = CRS.from_user_input(crs).to_dict(projjson=True)
            return found
    except CRSError:
        pass
    raise GeometryError(f"expected a CRS as AUTHORITY:CODE or WKT that PROJ knows, got '{crs[:80]}'.")


def _geo(crs: dict[str, Any] | None, bounds: list[float] | None) -> dict[str, Any]:
    covering = {name: ["bbox", name] for name in _BOX.names}
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [] if bounds is None else ["Polygon"],
        "crs": crs,
        "orientation": "counterclockwise",
        "edges": "planar",
        "covering": {"bbox": covering},
    }
    if bounds is not None:
        column["bbox"] = bounds
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
