"""The prepared store: what `datasets.convert` writes, and what makes a Zarr group one (format version 1).

A folder `<name>.zarr`, a Zarr v3 group with the array `image` (C, *S) and, where the source had a mask, `valid`. Every
inner chunk carries a CRC-32C and is written even when it is empty, so what is missing is damage. The group's attribute
`halfseen` holds the facts of the image and a seal: a digest over these facts and the metadata of the arrays. So one
flipped bit anywhere in a store is noticed. Make one in three steps: `create`, write the arrays
(`writable`), `finish`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from core.errors import DamagedError, DataError, UnsupportedError
from core.geometry import Affine, Georeference, Spacing
from datasets.image import LazyImage
from datasets.readers._zarr_metadata import Document, document

if TYPE_CHECKING:
    import zarr

VERSION = 1
MARK = "halfseen"
IMAGE, VALID = "image", "valid"
METADATA = "zarr.json"

# Measured on real CT and MR and a 96^3 crop of 160^3 int16 (ratio to .nii.gz, decoding): zstd 5 with bytes shuffled 0.63
# to 0.83, 1.2 GB/s; bits shuffled 0.62 to 0.97 (blosc leaves chunks that are no multiple of 8 voxels unshuffled); zstd 9
# gains 2 % and packs 20x slower. lz4hc 0.68 to 0.90, 5 GB/s, but 1.2 on a noisy narrow range: an option, not the default.
CODECS: dict[str, tuple[str, int]] = {"small": ("zstd", 5), "fast": ("lz4hc", 5)}
CodecName = Literal["small", "fast"]

_EDGE = {3: 40, 2: 128}  # voxels along an edge of an inner chunk; 40: least time for a free 96^3 window
_CHUNK_BYTES = 4 << 20  # many bands are divided rather than exceeding this
_TINY = 1 << 20  # bytes of voxels up to which level 9 costs under half a second, and earns what the metadata takes
SHARD_BYTES = 64 << 20  # of voxels: what writing one file holds in memory


def inner_chunk(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Choose the shape (C, *S) that is decoded at once: all bands of a cube or a tile that divides the image evenly.

    A scene's tiles are 128 wide whatever its size, so that a plan of aligned tiles fits every image of a collection.
    """
    bands, *size = shape
    edge = _EDGE[len(size)]
    spatial = [_even(n, edge) if len(size) == 3 or n < edge else edge for n in size]
    most = max(1, _CHUNK_BYTES // (math.prod(spatial) * dtype.itemsize))
    return (_even(bands, most), *spatial)


def shard_shape(shape: tuple[int, ...], inner: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Choose the shape of one file: whole inner chunks, the whole image where that is at most 64 MiB of voxels."""
    counts = [-(-n // c) for n, c in zip(shape, inner, strict=True)]
    while math.prod(counts) * math.prod(inner) * dtype.itemsize > SHARD_BYTES and max(counts) > 1:
        longest = counts.index(max(counts))
        counts[longest] = -(-counts[longest] // 2)
    return tuple(n * c for n, c in zip(counts, inner, strict=True))


def _even(n: int, most: int) -> int:
    """The length of the fewest equal parts of n that are at most `most` long."""
    return -(-n // max(1, -(-n // most)))


def array_arguments(
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    chunk: tuple[int, ...] | None = None,
    shard: tuple[int, ...] | None = None,
    codec: CodecName = "small",
    shuffled: bool = True,
) -> dict[str, Any]:
    """Give the arguments of zarr's `create_array` for `image` or `valid` of shape (C, *S): the one definition of both.

    Args:
        shape: of the array.
        dtype: of the array; bool for `valid`.
        chunk: inner chunk (C, *S) instead of the measured choice.
        shard: shape (C, *S) of one file instead of the choice by size; rounded up to whole inner chunks.
        codec: `small`, or `fast`: decodes about five times faster and may be larger.
        shuffled: whether bytes are shuffled; see `packs_better_shuffled`.
    """
    from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

    dtype = np.dtype(dtype).newbyteorder("=")
    inner = chunk or inner_chunk(shape, dtype)
    name, level = CODECS[codec]
    if codec == "small" and math.prod(shape) * dtype.itemsize <= _TINY:
        level = 9
    shuffle: Literal["shuffle", "noshuffle"] = "shuffle" if dtype.itemsize > 1 and shuffled else "noshuffle"
    return {
        "shape": shape,
        "dtype": dtype,
        "chunks": inner,
        "shards": tuple(-(-s // c) * c for s, c in zip(shard or shard_shape(shape, inner, dtype), inner, strict=True)),
        "filters": [],
        "serializer": BytesCodec(endian="little"),
        "compressors": [
            BloscCodec(cname=name, clevel=level, shuffle=shuffle, typesize=dtype.itemsize),  # type: ignore[arg-type]
            Crc32cCodec(),
        ],
        "fill_value": dtype.type(0),
        "dimension_names": ("band", *"zyx"[-(len(shape) - 1) :]),
        "attributes": {MARK: {"version": VERSION}},
        "config": {"write_empty_chunks": True},
    }


def packs_better_shuffled(sample: np.ndarray, codec: CodecName = "small") -> bool:
    """Say whether to shuffle the bytes of real numbers like these; whole numbers always gain by it.

    Real numbers that are a few hundred values in all, such as whole numbers times a factor, pack twice as well as they
    are: the 115 float32 volumes of MSD hippocampus take 0.88 times their .nii.gz instead of 2.15.
    """
    from numcodecs import Blosc

    if sample.dtype.kind != "f":
        return True
    name, level = CODECS[codec]
    data = np.ascontiguousarray(sample)
    shuffled, plain = (len(Blosc(name, level, mode).encode(data)) for mode in (Blosc.SHUFFLE, Blosc.NOSHUFFLE))
    return bool(shuffled <= plain)


def create(
    folder: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    valid: int = 0,
    chunk: tuple[int, ...] | None = None,
    shard: tuple[int, ...] | None = None,
    codec: CodecName = "small",
    shuffled: bool = True,
) -> dict[str, zarr.Array[Any]]:
    """Make the folder and give its arrays by name, all of them empty; it is no prepared store until `finish`.

    In another process, open them with `writable`.

    Both arrays are divided into files at the same places, so that who writes whole shards of one does so of the other.

    Args:
        folder: must not exist.
        shape: (C, *S) of `image`.
        dtype: of `image`.
        valid: bands of the array `valid`: 0 = there is none, 1 = one for all bands, or C.
        chunk: see `array_arguments`.
        shard: see `array_arguments`.
        codec: see `array_arguments`.
        shuffled: see `array_arguments`.
    """
    import zarr

    arrays = {IMAGE: array_arguments(shape, dtype, chunk=chunk, shard=shard, codec=codec, shuffled=shuffled)}
    if valid:
        spatial = arrays[IMAGE]["chunks"][1:]
        inner = (min(valid, arrays[IMAGE]["chunks"][0]), *spatial)
        outer = (min(valid, arrays[IMAGE]["shards"][0]), *arrays[IMAGE]["shards"][1:])
        arrays[VALID] = array_arguments((valid, *shape[1:]), np.dtype(bool), chunk=inner, shard=outer, codec=codec)
    folder.mkdir(parents=True)
    group = zarr.create_group(folder)
    for name, arguments in arrays.items():
        group.create_array(name, **arguments)
        _write(
            folder / name / METADATA, document(folder / name / METADATA)
        )  # without the spaces: 1 KB of a small store
    return {name: writable(folder, name) for name in arrays}


def writable(folder: Path, name: str = IMAGE) -> zarr.Array[Any]:
    """Open an array of a store for writing; as zarr opens it, chunks that are all zero would be left out: damage here."""
    import zarr

    # The setting is not stored, and `open_array(config=...)` drops it (zarr 3.1.6).
    return zarr.open_array(folder / name, mode="r+").with_config({"write_empty_chunks": True})


def finish(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Seal a store whose arrays are written: put `attributes` (of `attributes_of`) into the group's metadata."""
    facts = _plain(attributes)
    facts["seal"] = _seal(facts, _arrays(folder))
    _write(folder / METADATA, {"zarr_format": 3, "node_type": "group", "attributes": {MARK: facts}})


def _write(path: Path, content: Document) -> None:
    path.write_text(json.dumps(content, separators=(",", ":"), allow_nan=False), encoding="utf-8")


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: numpy scalars become Python's, NaN and infinity become words."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _seal(facts: Document, arrays: Document) -> str:
    rest = {name: value for name, value in facts.items() if name != "seal"}
    text = json.dumps([rest, arrays], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).hexdigest()


def _arrays(folder: Path) -> Document:
    """The metadata documents of the arrays by name."""
    return {name: document(folder / name / METADATA) for name in (IMAGE, VALID) if (folder / name).exists()}


def attributes_of(
    image: LazyImage,
    *,
    statistics: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    made_by: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Give the facts of an image as a store keeps them; nothing else of the source's header is carried over."""
    where = image.georeference
    return {
        "version": VERSION,
        "bands": list(image.bands),
        "spacing": list(image.spacing.values),
        "unit": image.spacing.unit,
        "affine": [list(row) for row in image.affine.rows] if image.affine else None,
        "georeference": {"crs": where.crs, "transform": list(where.transform)} if where else None,
        "nodata": list(image.nodata) if image.nodata is not None else None,
        "scaling": [list(pair) for pair in image.scaling] if image.scaling is not None else None,
        "units": list(image.units) if image.units is not None else None,
        "statistics": dict(statistics or {}),
        "source": dict(source or {}),
        "made_by": dict(made_by or {}),
    }


def read_attributes(folder: Path) -> dict[str, Any] | None:
    """Give the verified attributes of a prepared store, or None where the folder is a Zarr store of another kind.

    Raises:
        DataError: the store is damaged or half-written, or of a later version.
    """
    group = document(folder / METADATA)
    found = group.get("attributes", {}).get(MARK) if isinstance(group.get("attributes"), dict) else None
    if group.get("node_type") == "array":
        return None
    if found is None:
        marked = folder / IMAGE / METADATA
        if marked.exists() and MARK in str(document(marked).get("attributes")):
            raise DamagedError(
                f"{folder}: expected a prepared store, but its facts are missing: it is half-written or its "
                f"{METADATA} is damaged; convert the source again."
            )
        return None
    if not isinstance(found, dict) or type(found.get("version")) is not int:
        raise DamagedError(f"{folder}: the facts of this prepared store are damaged; convert the source again.")
    if found["version"] != VERSION:
        raise UnsupportedError(
            f"{folder}: expected a prepared store of version {VERSION}, got version {found['version']}; read it with the "
            "halfseen that wrote it, or convert the source again."
        )
    whole = group.get("zarr_format") == 3 and group.get("node_type") == "group"
    if not whole or found.get("seal") != _seal(found, _arrays(folder)):
        raise DamagedError(
            f"{folder}: the metadata of this prepared store was altered (its seal does not match); convert the source "
            "again."
        )
    return found


def facts_from(attributes: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Turn a prepared store's attributes into fields of LazyImage: bands, geometry, nodata, scaling and units.

    Raises:
        DamagedError: a fact is missing or of another form.
    """
    try:
        where = attributes["georeference"]
        rows = attributes["affine"]
        if rows is not None and np.shape(rows) != (3, 4):
            raise ValueError(f"the affine is {rows!r}")
        if attributes["unit"] not in ("mm", "m", "px"):
            raise ValueError(f"the unit of its spacing is {attributes['unit']!r}")
        nodata, scaling, units = (attributes[name] for name in ("nodata", "scaling", "units"))
        return {
            "bands": tuple(map(str, attributes["bands"])),
            "spacing": Spacing(tuple(map(float, attributes["spacing"])), attributes["unit"]),
            "affine": Affine.of(np.array(rows, dtype=np.float64), source=str(path)) if rows is not None else None,
            "georeference": Georeference(where["crs"], tuple(map(float, where["transform"]))) if where else None,  # type: ignore[arg-type]
            "nodata": tuple(None if v is None else float(v) for v in nodata) if nodata is not None else None,
            "scaling": tuple((float(s), float(o)) for s, o in scaling) if scaling is not None else None,
            "units": tuple(units) if units is not None else None,
        }
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise type(error)(f"{path}: {error}") from None
        raise DamagedError(
            f"{path}: the facts of this prepared store are damaged ({type(error).__name__}: {error}); convert the source "
            "again."
        ) from None
