"""GeoParquet files: outlines, CRS, bounds, and what is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import DataError, GeometryError, RunFolderError
from core.geometry import Georeference
from datasets.geoparquet import LONLAT, corners, moved, polygon, projjson, writing_places

UTM = Georeference("EPSG:32615", (30.0, 0.0, 462405.0, 0.0, -30.0, 1741815.0))
WINDOW = (slice(10, 20), slice(0, 40))


def test_corners_are_those_of_the_window() -> None:
    assert corners(UTM, WINDOW).tolist() == [
        [462405.0, 1741515.0],
        [462405.0, 1741215.0],
        [463605.0, 1741215.0],
        [463605.0, 1741515.0],
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_a_polygon_is_closed_counterclockwise_wkb(turned: bool) -> None:
    outline = np.array([(0.0, 0.0), (4.0, 0.0), (4.0, 2.0), (0.0, 2.0)])
    data = polygon(outline[::-1] if turned else outline)
    assert struct.unpack("<BIII", data[:13]) == (1, 3, 1, 5)
    ring = np.frombuffer(data[13:], "<f8").reshape(5, 2)
    assert ring[0].tolist() == ring[-1].tolist()
    x, y = ring[:-1].T
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2 == 8.0


def test_another_crs_moves_every_point() -> None:
    found = moved(corners(UTM, WINDOW), UTM.crs, LONLAT)
    assert found.shape == (32, 2)
    assert np.allclose(found[0], (-93.3501, 15.7526), atol=1e-3)
    assert moved(corners(UTM, WINDOW), UTM.crs, UTM.crs).shape == (4, 2)
    edge = Georeference("EPSG:32601", (1000.0, 0.0, 1e5, 0.0, -1000.0, 4e6))  # zone 1 begins at 180 degrees
    with pytest.raises(GeometryError, match="antimeridian"):
        moved(corners(edge, (slice(0, 100), slice(0, 200))), edge.crs, LONLAT)


def write(path: Path, crs: str | None = UTM.crs, pieces: int = 2, overwrite: bool = False) -> pa.Table:
    columns = {"file": pa.string(), "vector": pa.list_(pa.float32(), 3)}
    with writing_places(path, columns, crs=crs, about={"pool": "mean"}, overwrite=overwrite) as add:
        for piece in range(pieces):
            box = (slice(piece * 10, piece * 10 + 10), slice(0, 40))
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(3, dtype=np.float32) + piece), 3)
            add([corners(UTM, box) if crs else None], {"file": ["a.tif"], "vector": vectors})
    return pq.read_table(path)


def test_a_table_says_where_its_rows_lie(tmp_path: Path) -> None:
    table = write(tmp_path / "deep/tiles.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    assert (geo["version"], geo["primary_column"]) == ("1.1.0", "geometry")
    column = geo["columns"]["geometry"]
    assert column["bbox"] == [462405.0, 1741215.0, 463605.0, 1741815.0]
    assert (column["encoding"], column["geometry_types"], column["edges"]) == ("WKB", ["Polygon"], "planar")
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 32615}
    assert column["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    assert table["bbox"].to_pylist()[1] == {
        "xmin": 462405.0, "ymin": 1741215.0, "xmax": 463605.0, "ymax": 1741515.0,
    }  # fmt: skip
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 3), "width is kept"
    assert table["vector"].to_pylist() == [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    assert json.loads(table.schema.metadata[b"halfseen"]) == {"pool": "mean"}


def test_rows_without_a_place_have_none(tmp_path: Path) -> None:
    table = write(tmp_path / "tiles.parquet", crs=None)
    column = json.loads(table.schema.metadata[b"geo"])["columns"]["geometry"]
    assert (column["crs"], column["geometry_types"], "bbox" in column) == (None, [], False)
    assert table["geometry"].to_pylist() == [None, None]


def test_nothing_is_left_of_a_table_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "tiles.parquet"
    with pytest.raises(DataError, match="at least one row"):
        write(path, pieces=0)
    with pytest.raises(GeometryError, match="expected a CRS"):
        write(path, crs="EPSG:999999")
    with pytest.raises(pa.ArrowInvalid), writing_places(path, {"n": pa.int64()}, crs=None, about={}) as add:
        add([None], {"n": ["one"]})
    assert list(tmp_path.iterdir()) == []
    write(path)
    with pytest.raises(RunFolderError, match="exists already"):
        write(path)
    assert write(path, pieces=1, overwrite=True).num_rows == 1


def test_longitude_comes_first() -> None:
    assert projjson(LONLAT)["coordinate_system"]["axis"][0]["direction"] == "east"
