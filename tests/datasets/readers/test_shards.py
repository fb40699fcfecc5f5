"""Reading Zarr chunks without zarr-python: equal to it for any layout, and nothing damaged gets through."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from core.errors import BudgetError, DamagedError, UnsafeError
from datasets.readers._shards import StoredArray
from datasets.readers._zarr_metadata import array_facts, document

PACKERS = [
    [],
    [BloscCodec(cname="zstd", shuffle="bitshuffle")],
    [BloscCodec(cname="lz4", shuffle="shuffle"), Crc32cCodec()],
    [ZstdCodec(level=3)],
    [Crc32cCodec(), GzipCodec(level=1), Crc32cCodec()],
    [Crc32cCodec()],
]


def stored(folder: Path, *, complete: bool = False, max_bytes: int = 1 << 30) -> StoredArray:
    facts = array_facts(folder, document(folder / "zarr.json"))
    assert facts is not None
    return StoredArray(folder.parent, folder, facts, complete, max_bytes)


def made(folder: Path, data: np.ndarray, **arguments: Any) -> StoredArray:
    array = zarr.create_array(folder, shape=data.shape, dtype=data.dtype, **arguments)
    array[...] = data
    return stored(folder)


def noise(shape: tuple[int, ...], dtype: str = "i2", seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(key=seed)).integers(0, 100, shape).astype(dtype)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """A shape, how it is divided and encoded, which chunks are written, and a window."""
    ndim = draw(st.integers(1, 4))
    shape = tuple(draw(st.integers(1, 9)) for _ in range(ndim))
    inner = tuple(draw(st.integers(1, 5)) for _ in range(ndim))
    per_shard = tuple(draw(st.integers(1, 3)) for _ in range(ndim)) if draw(st.booleans()) else None
    window = []
    for n in shape:
        start = draw(st.integers(0, n - 1))
        window.append(slice(start, draw(st.integers(start + 1, n))))
    picks: list[Any] = list(window)
    if draw(st.booleans()):
        picks[0] = tuple(draw(st.lists(st.integers(0, shape[0] - 1), min_size=1, max_size=4)))
    return {
        "shape": shape,
        "inner": inner,
        "per_shard": per_shard,
        "picks": tuple(picks),
        "dtype": draw(st.sampled_from(["u1", "i2", "u4", "i8", "f4", "f8", "?"])),
        "endian": draw(st.sampled_from(["little", "big"])),
        "packer": draw(st.sampled_from(PACKERS)),
        "order": draw(st.none() | st.permutations(range(ndim))),
        "at": draw(st.sampled_from(["start", "end"])),
        "separator": draw(st.sampled_from([".", "/"])),
        "written": draw(st.integers(0, max(shape))),
        "fill": draw(st.sampled_from([0, 1])),
        "empty": draw(st.booleans()),
    }


@settings(max_examples=60, deadline=None)
@given(layouts())
def test_any_layout_and_window_equals_zarr_python(layout: dict[str, Any]) -> None:
    shape, inner = layout["shape"], layout["inner"]
    filters = [TransposeCodec(order=layout["order"])] if layout["order"] is not None else []
    codecs = [*filters, BytesCodec(endian=layout["endian"]), *layout["packer"]]
    arguments: dict[str, Any] = {"chunks": inner, "filters": filters, "compressors": layout["packer"]}
    arguments["serializer"] = BytesCodec(endian=layout["endian"])
    if layout["per_shard"] is not None:
        shard = tuple(i * n for i, n in zip(inner, layout["per_shard"], strict=True))
        sharding = ShardingCodec(chunk_shape=inner, codecs=codecs, index_location=layout["at"])
        arguments = {"chunks": shard, "filters": [], "compressors": [], "serializer": sharding}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array"
        array = zarr.create_array(
            path,
            shape=shape,
            dtype=layout["dtype"],
            fill_value=layout["fill"],
            chunk_key_encoding={"name": "default", "separator": layout["separator"]},
            config={"write_empty_chunks": layout["empty"]},
            **arguments,
        )
        array[: layout["written"]] = noise(shape, layout["dtype"])[: layout["written"]]
        picks = layout["picks"]
        got = stored(path).read(picks)
        expected = array.oindex[tuple(list(p) if isinstance(p, tuple) else p for p in picks)]
        assert got.dtype == np.dtype(layout["dtype"]) and got.dtype.isnative
        assert got.flags.c_contiguous and got.flags.writeable
        assert np.array_equal(got, expected)


def test_only_the_wanted_bytes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = made(tmp_path / "a", noise((64, 64, 64)), chunks=(16, 16, 16), shards=(64, 64, 64))
    amounts: list[int] = []
    pread = os.pread

    def counted(handle: int, length: int, offset: int) -> bytes:
        amounts.append(length)
        return pread(handle, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    array.read((slice(16, 32), slice(0, 16), slice(0, 32)))
    assert amounts[0] == 16 * 64 + 4, "the index"
    assert sum(amounts[1:]) <= 2 * 16**3 * 2 + (16 << 10), "two chunks, and what lies between them where it is little"
    assert len(amounts) <= 3


def prepared(tmp_path: Path, packer: list[Any] = PACKERS[2]) -> tuple[StoredArray, np.ndarray, Path]:
    data = noise((8, 8, 8))
    made(
        tmp_path / "a",
        data,
        chunks=(4, 4, 4),
        shards=(8, 8, 8),
        compressors=packer,
        config={"write_empty_chunks": True},
    )
    return stored(tmp_path / "a", complete=True), data, tmp_path / "a" / "c" / "0" / "0" / "0"


WHOLE = (slice(0, 8),) * 3


def test_each_of_200_flipped_bits_is_refused(tmp_path: Path) -> None:
    array, data, file = prepared(tmp_path)
    whole = file.read_bytes()
    rng = np.random.Generator(np.random.Philox(key=3))
    index = range((len(whole) - 132) * 8, len(whole) * 8)
    places = [*rng.integers(0, len(whole) * 8, 150), *rng.choice(index, 50)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << (place % 8)
        file.write_bytes(flipped)
        with pytest.raises(DamagedError, match=r"a/c/0/0/0 .*reading \[0:8, 0:8, 0:8\]"):
            array.read(WHOLE)
    file.write_bytes(whole)
    assert np.array_equal(array.read(WHOLE), data)


def test_each_truncation_is_refused(tmp_path: Path) -> None:
    array, _, file = prepared(tmp_path)
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(DamagedError, match="truncated"):
            array.read(WHOLE)


def test_a_missing_chunk_is_fill_in_a_foreign_store_and_damage_in_a_complete_one(tmp_path: Path) -> None:
    data = noise((8, 8)) + 1
    data[:4, :4] = 0
    for name, arguments in (("plain", {"chunks": (4, 4)}), ("sharded", {"chunks": (4, 4), "shards": (8, 8)})):
        made(tmp_path / name, data, fill_value=0, **arguments)
        assert np.array_equal(stored(tmp_path / name).read((slice(0, 8), slice(0, 8))), data)
        complete = stored(tmp_path / name, complete=True)
        assert np.array_equal(complete.read((slice(4, 8), slice(0, 8))), data[4:])
        with pytest.raises(DamagedError, match="every chunk"):
            complete.read((slice(0, 8), slice(0, 8)))


@pytest.mark.parametrize("packer", PACKERS[1:5])
def test_a_chunk_of_another_length_is_refused(tmp_path: Path, packer: list[Any]) -> None:
    made(tmp_path / "a", noise((4, 4)), chunks=(4, 4), compressors=packer)
    for length in (3, 5):
        made(tmp_path / f"b{length}", noise((length, 4)), chunks=(length, 4), compressors=packer)
        shutil.copyfile(tmp_path / f"b{length}" / "c" / "0" / "0", tmp_path / "a" / "c" / "0" / "0")
        with pytest.raises(DamagedError, match=r"instead of 3[26]|does not match"):
            stored(tmp_path / "a").read((slice(0, 4), slice(0, 4)))


def test_an_index_that_points_past_the_end_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "a", noise((8, 8)), chunks=(4, 4), shards=(8, 8))
    metadata = tmp_path / "a" / "zarr.json"
    content = json.loads(metadata.read_text())
    content["codecs"][0]["configuration"]["index_codecs"] = [content["codecs"][0]["configuration"]["index_codecs"][0]]
    metadata.write_text(json.dumps(content))
    file = tmp_path / "a" / "c" / "0" / "0"
    data = bytearray(file.read_bytes()[:-4])  # an index without a checksum
    file.write_bytes(data)
    assert np.array_equal(stored(tmp_path / "a").read((slice(0, 8),) * 2), noise((8, 8)))
    for value in (1 << 40, (1 << 64) - 2, len(data)):
        data[-64:-56] = value.to_bytes(8, "little")
        file.write_bytes(data)
        with pytest.raises(DamagedError, match="its index points"):
            stored(tmp_path / "a").read((slice(0, 8), slice(0, 8)))


def test_links_that_leave_the_store_are_refused_and_others_followed(tmp_path: Path) -> None:
    store, outside = tmp_path / "store", tmp_path / "outside"
    data = noise((4, 4))
    made(store / "a", data, chunks=(4, 4))
    outside.mkdir()
    file = store / "a" / "c" / "0" / "0"
    window = (slice(0, 4), slice(0, 4))
    file.rename(store / "elsewhere")
    file.symlink_to(store / "elsewhere")
    assert np.array_equal(stored(store / "a").read(window), data)
    file.unlink()
    (store / "elsewhere").rename(outside / "0")
    file.symlink_to(outside / "0")
    with pytest.raises(UnsafeError, match="leads out of it"):
        stored(store / "a").read(window)
    file.unlink()
    file.parent.rmdir()
    (store / "b").mkdir()
    shutil.copytree(store / "a", store / "b", dirs_exist_ok=True)
    (store / "b" / "c" / "0").symlink_to(outside)
    with pytest.raises(UnsafeError, match="leads out of it"):
        stored(store / "b").read(window)


def test_a_pipe_in_the_place_of_a_chunk_does_not_hang(tmp_path: Path) -> None:
    made(tmp_path / "a", noise((4, 4)), chunks=(4, 4))
    file = tmp_path / "a" / "c" / "0" / "0"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DamagedError, match="is no file"):
        stored(tmp_path / "a").read((slice(0, 4), slice(0, 4)))


def test_a_window_beyond_the_budget_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(1 << 40, 1 << 20), chunks=(64, 64), dtype="u1")
    array = stored(tmp_path / "a", max_bytes=1 << 20)
    assert array.read((slice(1 << 39, (1 << 39) + 2), slice(5, 9))).tolist() == [[0] * 4] * 2
    with pytest.raises(BudgetError, match=r"a window \(1048576, 1048576\) of uint8 takes 1024\.0 GiB"):
        array.read((slice(0, 1 << 20), slice(0, 1 << 20)))


def test_reading_leaves_no_file_open(tmp_path: Path) -> None:
    array, _, file = prepared(tmp_path)
    before = {entry.name for entry in Path("/proc/self/fd").iterdir()} if Path("/proc/self/fd").is_dir() else set()
    array.read(WHOLE)
    file.write_bytes(b"short")
    with pytest.raises(DamagedError):
        array.read(WHOLE)
    after = {entry.name for entry in Path("/proc/self/fd").iterdir()} if Path("/proc/self/fd").is_dir() else set()
    assert before == after


def test_the_threads_of_blosc_stay_off(tmp_path: Path) -> None:
    from numcodecs import blosc

    array, data, _ = prepared(tmp_path)
    assert np.array_equal(array.read(WHOLE), data)
    assert blosc.use_threads is False
