"""When images were taken: from lists, STAC and files to the manifest, and from there to `Batch.times`."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import torch
from PIL import Image

from core.contract import Input, Normalisation
from core.errors import DataError
from datasets.collect import entries_of
from datasets.converting.prepare import convert
from datasets.examine import examine
from datasets.index import build_manifest
from datasets.loader import TileLoader, whole_batches
from datasets.manifest import Manifest
from datasets.readers import open_image
from datasets.sample import StreamSpec
from datasets.times import as_time, frame_of

SCENE = Input(
    name="scene",
    bands=("red", "green", "blue"),
    patch=(4, 4),
    size=(16, 16),
    spacing=(1.0, 1.0),
    unit="px",
    normalisation=Normalisation(method="fixed", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)),
)
MTL = """GROUP = LANDSAT_METADATA_FILE
  GROUP = IMAGE_ATTRIBUTES
    DATE_ACQUIRED = 2020-08-23
    SCENE_CENTER_TIME = "16:38:39.1234567Z"
  END_GROUP = IMAGE_ATTRIBUTES
END
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2020-08-23T10:15:00Z", "2020-08-23T10:15:00Z"),
        ("2020-08-23 10:15", "2020-08-23T10:15:00Z"),
        ("2020-08-23T23:30:00-02:00", "2020-08-24T01:30:00Z"),
        ("2020-08-23T10:15:00.25Z", "2020-08-23T10:15:00.250000Z"),
        (" 2020-08-23 ", "2020-08-23"),
        ("20200823", "2020-08-23"),
        ("20200823T101500Z", "2020-08-23T10:15:00Z"),
        ("2020-08-23T10Z", "2020-08-23T10:00:00Z"),
        ("2020-08-23t10:15:00.1234567z", "2020-08-23T10:15:00.123456Z"),
        ("2020-08-23T10:15:00,5+0530", "2020-08-23T04:45:00.500000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        (datetime(2020, 8, 23, 10, 15, tzinfo=timezone(timedelta(hours=2))), "2020-08-23T08:15:00Z"),
        (datetime(2020, 8, 23, 10, 15), "2020-08-23T10:15:00Z"),
        (date(2020, 8, 23), "2020-08-23"),
    ],
)
def test_times_have_one_form(value: object, expected: str) -> None:
    assert as_time(value) == expected
    assert as_time(expected) == expected


@pytest.mark.parametrize(
    "value",
    [
        "", "morning", "2020", "2020-08", "2020-W35", "2020-13-01", "2020-02-30", "202008-23", "23.8.2020", 17, 2.5, 1598177700,
        "2020-08-23T10:15.5Z", "2020-08-23T10:1500", "2020-08-23T10:15:61Z", "2020-08-23T24:00:00Z", "2020-08-23T10:15:00 UTC",
        "20200823101500", "2020-08-23T", "2020-08-23T10:15:00+25:00", "٢٠٢٠-08-23",
        "0001-01-01T00:00:00+01:00", "9999-12-31T23:30:00-01:00",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        as_time(value)


def test_a_frame_is_year_month_and_hour_and_never_half_known() -> None:
    frame = frame_of("2016-01-31T15:59:20Z")
    assert frame is not None
    assert (frame.tolist(), frame.dtype) == ([[2016.0, 1.0, 15.0]], np.float32)
    assert frame_of("2016-01-31") is None
    assert frame_of(None) is None


def pictures(folder: Path, times: list[Any], name: str = "list.csv") -> Path:
    """Pictures and a list of them with a column `time`."""
    folder.mkdir(exist_ok=True)
    for number in range(len(times)):
        values = np.random.Generator(np.random.Philox(key=number)).integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    files = [f"{number}.png" for number in range(len(times))]
    if name.endswith(".csv"):
        lines = [f"{file},{time or ''}" for file, time in zip(files, times, strict=True)]
        (folder / name).write_text("\n".join(["file,time", *lines]) + "\n")
    else:
        pq.write_table(pa.table({"file": files, "time": times}), folder / name)
    return folder / name


def test_lists_say_when_in_text_or_as_timestamps(tmp_path: Path) -> None:
    manifest = build_manifest([pictures(tmp_path, ["2020-08-23T10:15:00+02:00", "2020-08-23", None])])
    assert manifest.column("time") == ["2020-08-23T08:15:00Z", "2020-08-23", None]
    assert manifest.label_names == ()
    typed = build_manifest([pictures(tmp_path, [datetime(2020, 8, 23, 10, tzinfo=UTC)], "list.parquet")])
    assert typed.column("time") == ["2020-08-23T10:00:00Z"]
    exact = pa.array([1598177700123456789, None], pa.timestamp("ns", tz="Europe/Berlin"))
    precise = build_manifest(
        [pictures(tmp_path, exact.cast(pa.timestamp("us", tz="UTC"), safe=False).to_pylist(), "us.parquet")]
    )
    pq.write_table(pa.table({"file": ["0.png", "1.png"], "time": exact}), tmp_path / "ns.parquet")
    assert build_manifest([tmp_path / "ns.parquet"]).column("time") == precise.column("time")
    assert precise.column("time") == ["2020-08-23T10:15:00.123456Z", None]
    with pytest.raises(DataError, match=r"list\.csv: 0\.png has the time 'noon', expected ISO 8601 such as"):
        build_manifest([pictures(tmp_path, ["noon"])])


def test_time_is_kept_by_files_checks_and_conversions(tmp_path: Path) -> None:
    manifest = build_manifest([pictures(tmp_path / "set", ["2020-08-23T10:15:00Z", None])])
    manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").table.equals(manifest.table)
    assert [entry.said["time"] for entry in entries_of(manifest)] == ["2020-08-23T10:15:00Z", None]
    out = convert([tmp_path / "m.parquet"], tmp_path / "out").out
    assert Manifest.read(out / "manifest.parquet").column("time") == ["2020-08-23T10:15:00Z", None]


def test_the_digest_sees_times(tmp_path: Path) -> None:
    one, other, none = (
        build_manifest([pictures(tmp_path, [time])]) for time in ("2020-08-23T10:15:00Z", "2020-08-23", None)
    )
    assert len({one.digest, other.digest, none.digest}) == 3
    times = [["2020-08-23", None], [None, "2020-08-23"], ["2020-08-24", None], [None, None]]
    assert len({build_manifest([pictures(tmp_path, some)]).digest for some in times}) == 4


def test_a_manifest_from_before_knows_no_times(tmp_path: Path) -> None:
    manifest = build_manifest([pictures(tmp_path, [None, None])])
    older = manifest.table.drop_columns(["time"])
    pq.write_table(older, tmp_path / "old.parquet")
    read = Manifest.read(tmp_path / "old.parquet")
    assert read.table.equals(manifest.table)
    assert read.digest == manifest.digest


def band(path: Path, **tags: str) -> Path:
    """One band of 24 x 32 pixels of 30 m, with GDAL's tags on how it was taken."""
    path.parent.mkdir(exist_ok=True)
    place = {"crs": "EPSG:32615", "transform": rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)}
    with rasterio.open(path, "w", driver="GTiff", height=24, width=32, count=1, dtype="uint16", **place) as file:
        file.write(np.arange(768, dtype=np.uint16).reshape(1, 24, 32))
        file.update_tags(TIFFTAG_DATETIME="1999:01:01 00:00:00")  # when the file was written: no time of the scene
        if tags:
            file.update_tags(ns="IMAGERY", **tags)
    return path


def test_a_geotiff_says_when_it_was_taken(tmp_path: Path) -> None:
    said = {"ACQUISITIONDATETIME": "2015-07-02 10:30:31"}
    assert open_image(band(tmp_path / "a.tif", **said)).time == "2015-07-02T10:30:31Z"
    assert open_image(band(tmp_path / "b.tif")).time is None
    assert open_image(band(tmp_path / "c.tif", ACQUISITIONDATETIME="in summer")).time is None
    assert build_manifest([tmp_path]).column("time") == ["2015-07-02T10:30:31Z", None, None]


def test_a_landsat_scene_says_when_it_was_taken(tmp_path: Path) -> None:
    name = "LC08_L1TP_022049_20200823_20200905_02_T1"
    folder = tmp_path / name
    for number in (3, 4):
        band(folder / f"{name}_B{number}.TIF")
    assert open_image(folder).time is None
    (folder / f"{name}_MTL.txt").write_text(MTL)
    assert open_image(folder).time == "2020-08-23T16:38:39.123456Z"
    (folder / f"{name}_MTL.txt").write_text(MTL.replace("2020-08-23", "soon"))
    assert open_image(folder).time is None


def test_a_list_goes_before_the_file(tmp_path: Path) -> None:
    band(tmp_path / "a.tif", ACQUISITIONDATETIME="2015-07-02 10:30:31")
    (tmp_path / "list.csv").write_text("file,time\na.tif,2016-01-01\n")
    assert build_manifest([tmp_path / "list.csv"]).column("time") == ["2016-01-01"]
    entry = entries_of(build_manifest([tmp_path / "a.tif"]))[0]
    facts = examine(entry).facts
    assert facts is not None
    assert facts["time"] == entry.said["time"] == "2015-07-02T10:30:31Z"


TIMES = [f"20{10 + number}-0{number + 1}-15T{number + 6:02d}:45:00Z" for number in range(6)]
FRAMES = torch.tensor([[[2010.0 + number, 1.0 + number, 6.0 + number]] for number in range(6)])


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_bring_year_month_and_hour_of_each_scene(workers: int, tmp_path: Path) -> None:
    manifest = build_manifest([pictures(tmp_path, list(TIMES))])
    stream = StreamSpec(input=SCENE, batch_size=4)
    batches = list(TileLoader(manifest, [stream], seed=3, workers=workers).batches(0, 3))
    for batch in batches:
        assert batch.times is not None
        assert batch.times.dtype == torch.float32
        assert torch.equal(batch.times, FRAMES[batch.row])
    assert len({int(row) for batch in batches for row in batch.row}) == 6
    (whole,) = whole_batches(manifest, SCENE, 8)
    assert whole.times is not None
    assert torch.equal(whole.times, FRAMES)


@pytest.mark.parametrize("unknown", [None, "2020-08-23"])
def test_where_one_scene_is_without_time_no_batch_has_any(unknown: str | None, tmp_path: Path) -> None:
    manifest = build_manifest([pictures(tmp_path, [*TIMES[:3], unknown])])
    loader = TileLoader(manifest, [StreamSpec(input=SCENE, batch_size=2)], seed=3)
    assert [batch.times for batch in loader.batches(0, 4)] == [None] * 4


def test_a_volume_has_no_frames_and_so_no_times(
    manifest: Manifest, photograph_input: Input, volume_input: Input
) -> None:
    dated = manifest.with_column("time", ["2020-08-23T10:15:00Z"] * len(manifest))
    streams = [StreamSpec(input=photograph_input, batch_size=2), StreamSpec(input=volume_input, batch_size=2)]
    picture, volume = TileLoader(dated, streams, seed=3).batches(0, 2)
    assert picture.times is not None
    assert picture.times.tolist() == [[[2020.0, 8.0, 10.0]]] * 2
    assert (volume.image.ndim, volume.times) == (5, None)
