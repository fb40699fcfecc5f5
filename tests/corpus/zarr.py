"""Zarr stores that are damaged, hostile or unusual, and what reading each must lead to."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import BudgetError, DamagedError, HalfseenError, UnsafeError, UnsupportedError
from core.geometry import Spacing
from datasets.image import LazyImage
from datasets.readers import _store
from datasets.readers.zarr_array import ZarrArray
from tests.corpus.kind import Accept, Kind, Refuse

Rng = np.random.Generator
SHAPE = (1, 20, 18, 16)


def content(rng: Rng) -> np.ndarray:
    """Voxels that no codec can pack away."""
    return rng.integers(-1000, 3000, SHAPE).astype(np.int16)


def prepared(folder: Path, rng: Rng) -> Path:
    """A whole prepared store."""
    path = folder / "scan.zarr"
    _store.create(path, SHAPE, np.dtype(np.int16), chunk=(1, 8, 8, 8))["image"][...] = content(rng)
    _store.finish(path, _store.attributes_of(FACTS))
    return path


FACTS = LazyImage(
    path=Path("scan.nii"),
    shape=SHAPE,
    dtype=np.dtype(np.int16),
    bands=("intensity",),
    spacing=Spacing((2.0, 1.0, 1.0), "mm"),
    chunks=SHAPE[1:],
    source=None,  # type: ignore[arg-type]
)


def foreign(folder: Path, rng: Rng, **arguments: Any) -> Path:
    """A whole store of zarr-python's making, chunks 8 x 8 x 8 without checksums."""
    import zarr

    path = folder / "scan.zarr"
    options = {"chunks": (8, 8, 8), "compressors": [], "dimension_names": ["z", "y", "x"], "fill_value": 0}
    array = zarr.create_array(path, shape=SHAPE[1:], dtype="i2", **(options | arguments))
    array[...] = content(rng)[0]
    return path


def chunk_files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and "c" in file.relative_to(path).parts)


def one_of(files: list[Path], rng: Rng) -> Path:
    return files[int(rng.integers(len(files)))]


def flip(file: Path, rng: Rng) -> None:
    data = bytearray(file.read_bytes())
    place = int(rng.integers(0, len(data) * 8))
    data[place // 8] ^= 1 << (place % 8)
    file.write_bytes(data)


def cut(file: Path, rng: Rng) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(rng.integers(0, len(data)))])


Make = Callable[[Path, Rng], Path]
Store = Callable[..., Path]


def harmed(store: Store, harm: Callable[[Path, Rng], None], **arguments: Any) -> Make:
    """A store of which one chunk file is harmed."""

    def make(folder: Path, rng: Rng) -> Path:
        path = store(folder, rng, **arguments)
        harm(one_of(chunk_files(path), rng), rng)
        return path

    return make


def edited(
    store: Store, change: Callable[[dict[str, Any], Rng], None], name: str = "zarr.json", **arguments: Any
) -> Make:
    """A store of which one metadata document is changed."""

    def make(folder: Path, rng: Rng) -> Path:
        path = store(folder, rng, **arguments)
        document = json.loads((path / name).read_text())
        change(document, rng)
        (path / name).write_text(json.dumps(document))
        return path

    return make


def without_metadata(folder: Path, rng: Rng) -> Path:
    path = prepared(folder, rng)
    (path / ("zarr.json", "image/zarr.json")[int(rng.integers(2))]).unlink()
    return path


def cut_metadata(folder: Path, rng: Rng) -> Path:
    path = prepared(folder, rng)
    cut(path / ("zarr.json", "image/zarr.json")[int(rng.integers(2))], rng)
    return path


def nested_metadata(folder: Path, rng: Rng) -> Path:
    path = foreign(folder, rng)
    depth = int(rng.integers(50_000, 200_000))
    (path / "zarr.json").write_text('{"attributes": ' + "[" * depth + "]" * depth + "}")
    return path


def oversized_metadata(folder: Path, rng: Rng) -> Path:
    path = foreign(folder, rng)
    with (path / "zarr.json").open("r+b") as file:
        file.truncate((1 << 30) + int(rng.integers(1000)))  # sparse: no disk is used
    return path


def huge(document: dict[str, Any], rng: Rng) -> None:
    document["shape"] = [int(n) for n in rng.integers(1 << 30, 1 << 40, 3)]


def huge_chunk(document: dict[str, Any], rng: Rng) -> None:
    document["chunk_grid"]["configuration"]["chunk_shape"] = [int(rng.integers(1 << 20, 1 << 40)), 4096, 8]


def negative(document: dict[str, Any], rng: Rng) -> None:
    document["shape"][int(rng.integers(3))] = [-1, 2.5, "20", None, True][int(rng.integers(5))]


def unknown_codec(document: dict[str, Any], rng: Rng) -> None:
    document["codecs"].append({"name": f"quantum{int(rng.integers(100))}", "configuration": {}})


def other_fill(document: dict[str, Any], rng: Rng) -> None:
    document["fill_value"] = [70_000, "NaN", 1.5, None, "0x00", [0]][int(rng.integers(6))]


def index_without_checksum(folder: Path, rng: Rng) -> Path:
    """A shard whose index, which carries no checksum, points somewhere else."""
    path = foreign(folder, rng, shards=(24, 24, 24))
    document = json.loads((path / "zarr.json").read_text())
    del document["codecs"][0]["configuration"]["index_codecs"][1]
    (path / "zarr.json").write_text(json.dumps(document))
    file = chunk_files(path)[0]
    data = bytearray(file.read_bytes()[:-4])
    z, y, x = (int(rng.integers(n)) for n in (3, 3, 2))  # 3 x 3 x 3 chunks, the last plane of x beyond the edge
    entry = len(data) - 16 * 27 + 16 * (9 * z + 3 * y + x)
    data[entry : entry + 8] = int(rng.integers(1 << 40, 1 << 62)).to_bytes(8, "little")
    file.write_bytes(data)
    return path


def index_flip(folder: Path, rng: Rng) -> Path:
    path = prepared(folder, rng)
    file = chunk_files(path)[0]
    data = bytearray(file.read_bytes())
    place = int(rng.integers(len(data) - 16 * 18 - 4, len(data)))
    data[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(data)
    return path


def mixed(folder: Path, rng: Rng) -> Path:
    path = foreign(folder, rng)
    old = foreign(folder / "old", rng, zarr_format=2, dimension_names=None, compressors=None)
    shutil.copyfile(old / ".zarray", path / ".zarray")
    shutil.rmtree(folder / "old")
    return path


def linked_chunk(folder: Path, rng: Rng) -> Path:
    path = foreign(folder, rng)
    file = one_of(chunk_files(path), rng)
    secret = folder / "secret"
    secret.write_bytes(rng.bytes(file.stat().st_size))
    file.unlink()
    file.symlink_to(secret)
    return path


def linked_folder(folder: Path, rng: Rng) -> Path:
    path = foreign(folder, rng)
    (path / "c").rename(folder / "elsewhere")
    (path / "c").symlink_to(folder / "elsewhere")
    return path


def linked_metadata(folder: Path, rng: Rng) -> Path:
    path = foreign(folder, rng)
    (path / "zarr.json").rename(folder / "secret.json")
    (path / "zarr.json").symlink_to(folder / "secret.json")
    return path


def half_written(folder: Path, rng: Rng) -> Path:
    path = folder / "scan.zarr"
    array = _store.create(path, SHAPE, np.dtype(np.int16), chunk=(1, 8, 8, 8))["image"]
    if rng.integers(2):
        array[...] = content(rng)
    return path


def without_a_shard(folder: Path, rng: Rng) -> Path:
    path = folder / "scan.zarr"
    array = _store.create(path, SHAPE, np.dtype(np.int16), chunk=(1, 8, 8, 8), shard=(1, 8, 24, 16))["image"]
    array[...] = content(rng)
    _store.finish(path, _store.attributes_of(FACTS))
    one_of(chunk_files(path), rng).unlink()
    return path


def names_that_differ_in_case(folder: Path, rng: Rng) -> Path:
    import zarr

    path = folder / "scan.zarr"
    group = zarr.create_group(path)
    for name in ("CT", "ct"):
        group.create_array(name, data=content(rng)[0, 0])
    return path


def key_twice(folder: Path, rng: Rng) -> Path:
    path = foreign(folder, rng)
    text = (path / "zarr.json").read_text()
    other = json.dumps([int(n) for n in rng.integers(1, 40, 3)])
    (path / "zarr.json").write_text(text.replace('"shape"', f'"shape": {other}, "shape"', 1))
    return path


def other_order(folder: Path, rng: Rng) -> Path:
    from zarr.codecs import TransposeCodec

    if rng.integers(2):
        return foreign(folder, rng, filters=[TransposeCodec(order=tuple(int(n) for n in rng.permutation(3)))])
    attributes = {"_ARRAY_DIMENSIONS": ["z", "y", "x"]}
    return foreign(folder, rng, zarr_format=2, order="F", dimension_names=None, compressors=None, attributes=attributes)


def equals_zarr_python(image: LazyImage) -> None:
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)  # two versions of metadata in one folder
        expected = zarr.open_array(image.path, mode="r")[...]
    assert np.array_equal(image.read()[0], expected)


def empty_after_the_end(image: LazyImage) -> None:
    last = tuple(slice(n - 4, n) for n in image.size)
    assert image.read(last).max() == 0
    with pytest.raises(BudgetError, match=image.path.name):
        image.read()


def kinds() -> list[Kind]:
    """Every kind; stores that are prepared must be whole, foreign ones are read by the specification and flagged."""
    damaged = Refuse(DamagedError, "scan.zarr")
    return [
        Kind("prepared and whole", prepared, Accept()),
        Kind("missing shard, prepared", without_a_shard, Refuse(DamagedError, ("is missing", "reading ["))),
        Kind(
            "missing chunk, foreign",
            harmed(foreign, lambda f, _: f.unlink()),
            Accept("missing_chunks", equals_zarr_python),
        ),
        Kind("truncated, prepared", harmed(prepared, cut), Refuse(DamagedError, ("truncated", "reading ["))),
        Kind("truncated, foreign", harmed(foreign, cut), Refuse(DamagedError, "instead of 1024")),
        Kind("flipped with crc", harmed(prepared, flip), Refuse(DamagedError, ("checksum", "reading ["))),
        Kind("flipped without crc", harmed(foreign, flip), Accept("unchecked", equals_zarr_python)),
        Kind("zarr.json missing", without_metadata, Refuse(HalfseenError, "scan.zarr")),
        Kind("zarr.json cut", cut_metadata, damaged),
        Kind("zarr.json nested deeply", nested_metadata, damaged),
        Kind("zarr.json oversized", oversized_metadata, Refuse(BudgetError, "metadata")),
        Kind("sizes that are none", edited(foreign, negative), Refuse(DamagedError, "shape")),
        Kind(
            "huge shape, foreign", edited(foreign, huge, chunks=(64, 64, 64)), Accept("unchecked", empty_after_the_end)
        ),
        Kind("huge shape, prepared", edited(prepared, huge, "image/zarr.json"), Refuse(DamagedError, "seal")),
        Kind("huge chunk", edited(foreign, huge_chunk), Refuse(BudgetError, "one chunk")),
        Kind("unknown codec", edited(foreign, unknown_codec), Refuse(UnsupportedError, "quantum")),
        Kind("shard index flipped", index_flip, Refuse(DamagedError, ("checksum of its index", "reading ["))),
        Kind("shard index points away", index_without_checksum, Refuse(DamagedError, "its index points")),
        Kind("v2 and v3 mixed", mixed, Accept("v2_and_v3", equals_zarr_python)),
        Kind("fill value of another type", edited(foreign, other_fill), Refuse(DamagedError, "damaged")),
        Kind("chunk links out", linked_chunk, Refuse(UnsafeError, "leads out")),
        Kind("folder links out", linked_folder, Refuse(UnsafeError, "leads out")),
        Kind("metadata links out", linked_metadata, Refuse(UnsafeError, "leads to")),
        Kind("half-written", half_written, Refuse(DamagedError, "half-written")),
        Kind("names that differ in case", names_that_differ_in_case, Refuse(UnsupportedError, ("CT", "ct", "array"))),
        Kind("key twice", key_twice, Refuse(DamagedError, "'shape' occurs twice")),
        Kind("not in C order", other_order, Accept("unchecked", equals_zarr_python)),
        Kind("no names of axes", lambda f, r: foreign(f, r, dimension_names=None), Refuse(UnsupportedError, "axes")),
        Kind(
            "axes told",
            lambda f, r: foreign(f, r, dimension_names=None),
            Accept("no_spacing", equals_zarr_python),
            readers=(ZarrArray(axes="zyx"),),
        ),
    ]
