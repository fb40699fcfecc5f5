"""Prepared stores that are written from windows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from core.errors import DataError
from core.geometry import Georeference, Spacing
from datasets.readers import open_image
from datasets.testing.writer_contract import WriterContract
from datasets.writers import Facts, Writer, plan, write_image
from datasets.writers.zarr_array import ZarrArray


def scene(shape: tuple[int, ...] = (3, 150, 170), dtype: str = "uint16", **changes: object) -> Facts:
    facts = Facts(
        shape=shape,
        dtype=np.dtype(dtype),
        bands=tuple(f"B{n + 2}" for n in range(shape[0])),
        spacing=Spacing((30.0, 30.0), "m"),
        georeference=Georeference("EPSG:32615", (30.0, 0.0, 462405.0, 0.0, -30.0, 1741815.0)),
        nodata=(0.0,) * shape[0],
        scaling=tuple((0.0001, -0.1 * n) for n in range(shape[0])),
        units=("reflectance",) * shape[0],
    )
    return dataclasses.replace(facts, **changes)  # type: ignore[arg-type]


class TestZarrArray(WriterContract):
    def writer(self) -> Writer:
        return ZarrArray()

    def name(self) -> str:
        return "scene.zarr"

    def facts(self) -> list[Facts]:
        volume = Facts(
            shape=(1, 50, 20, 30), dtype=np.dtype("int16"), bands=("intensity",), spacing=Spacing((1, 1, 1), "px")
        )
        plain = {"nodata": None, "scaling": None, "units": None}
        return [
            scene(),
            scene(valid=1),
            scene(valid=3),
            scene((1, 5, 7), "float32", nodata=None),
            scene((2, 5, 7), "int16", nodata=(-1.0, None), units=None),
            *(scene((1, 5, 7), kind, **plain) for kind in ("float16", "float64", "int8", "uint64")),
            volume,
        ]

    def large(self) -> Facts:
        return scene((4, 8000, 8000))


def test_a_chunk_may_be_chosen(tmp_path: Path) -> None:
    facts = scene()
    writer = ZarrArray(chunk=(64, 32))
    windows = plan(tmp_path / "a.zarr", facts, writer=writer)
    parts = [(window, np.zeros((3, *(p.stop - p.start for p in window)), np.uint16)) for window in windows]
    path = write_image(tmp_path / "a.zarr", facts, parts, writer=writer)
    assert open_image(path).chunks == (64, 32)
    with pytest.raises(DataError, match="chunk of 2 axes"):
        write_image(tmp_path / "b.zarr", facts, parts, writer=ZarrArray(chunk=(8, 8, 8)))
