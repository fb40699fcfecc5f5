"""The JSON documents of a Zarr store: read with limits, checked, and turned into what reading chunks needs."""

from __future__ import annotations

import json
import math
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import BudgetError, DamagedError, DataError, MissingDataError, UnsupportedError

Document = dict[str, Any]

_MAX_DOCUMENT = 32 << 20  # bytes; consolidated metadata of a large archive is a few MB
_TYPES = {
    "bool": "?", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8", "uint8": "u1", "uint16": "u2",
    "uint32": "u4", "uint64": "u8", "float16": "f2", "float32": "f4", "float64": "f8",
}  # fmt: skip
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def document(path: Path) -> Document:
    """Read one JSON object.

    Raises:
        MissingDataError: there is none.
        DamagedError: it is not JSON, not an object, or says one thing twice.
        BudgetError: it is larger than any metadata is.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise DamagedError(f"{path}: expected a file of JSON metadata, it is none; copy the store again.")
        if state.st_size > _MAX_DOCUMENT:
            raise BudgetError(
                f"{path}: expected metadata of at most {_MAX_DOCUMENT >> 20} MiB, the file is larger; copy it."
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingDataError(f"expected the metadata of a Zarr store, but {path} does not exist; copy it.") from None
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror}); copy the store again.") from None
    try:
        found = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise DamagedError(
            f"{path}: expected JSON metadata, but it is damaged ({error}); copy the store again."
        ) from None
    if not isinstance(found, dict):
        raise DamagedError(f"{path}: expected a JSON object, got {type(found).__name__}; copy the store again.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> Document:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {max(names, key=names.count)!r} occurs twice")
    return found


@dataclass(frozen=True)
class Codec:
    """One step from bytes on disk to voxels, as `_shards` knows them.

    Attributes:
        name: `bytes`, `transpose`, `blosc`, `zstd`, `gzip` or `crc32c`.
        detail: of `bytes` the numpy byte order, of `transpose` the order of the axes.
    """

    name: str
    detail: tuple[int, ...] | str = ""


@dataclass(frozen=True)
class ArrayFacts:
    """A Zarr v3 array on a regular grid, in the form that reading needs; hashable and picklable.

    Attributes:
        shape: of the array.
        dtype: numpy type string of what reading returns, native.
        chunk: shape of what one file holds.
        inner: shape of what is decoded at once; equal to `chunk` without sharding.
        codecs: of an inner chunk, in the order of encoding.
        sharded: whether a file is a shard with an index.
        index_at_end: where the index is.
        index_checked: whether the index carries a checksum.
        index_order: byte order of the index, `<` or `>`.
        prefix: what the name of a chunk's file begins with, `c` or nothing.
        separator: what stands between the numbers in that name.
        fill: value of a chunk that was never written.
    """

    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...]
    inner: tuple[int, ...]
    codecs: tuple[Codec, ...]
    sharded: bool
    index_at_end: bool
    index_checked: bool
    index_order: str
    prefix: str
    separator: str
    fill: float | int | bool

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunk files along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))

    @property
    def checked(self) -> bool:
        """Whether every chunk carries a checksum."""
        return any(codec.name == "crc32c" for codec in self.codecs)

    def name(self, at: tuple[int, ...]) -> str:
        """The chunk's file, relative to the array's folder."""
        parts = [self.prefix, *map(str, at)] if self.prefix else [str(i) for i in at]
        return self.separator.join(parts) or "0"


def array_facts(path: Path, found: Document) -> ArrayFacts | None:
    """Understand an array's zarr.json; None where it is well-formed but only zarr-python can decode it.

    Raises:
        DamagedError: it contradicts itself or the specification.
        UnsupportedError: its type or grid is one that is not read.
    """
    try:
        return _facts(path, found)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise DamagedError(
            f"{path}: expected the metadata of a Zarr array, but it is damaged ({type(error).__name__}: {error}); copy "
            "the store again."
        ) from None


def _facts(path: Path, found: Document) -> ArrayFacts | None:
    from_disk = _TYPES.get(found["data_type"]) if isinstance(found["data_type"], str) else None
    if from_disk is None:
        raise UnsupportedError(
            f"{path}: expected whole, real or boolean numbers, its data type is {found['data_type']!r}; convert it."
        )
    shape = _sizes(found["shape"], "shape", least=0)
    if found["chunk_grid"]["name"] != "regular":
        raise UnsupportedError(f"{path}: expected a regular chunk grid, got {found['chunk_grid']['name']!r}.")
    chunk = _sizes(found["chunk_grid"]["configuration"]["chunk_shape"], "chunk_shape")
    if len(chunk) != len(shape):
        raise ValueError(f"shape {shape} and chunk_shape {chunk} have different lengths")
    if found.get("storage_transformers"):
        raise UnsupportedError(f"{path}: expected no storage transformers, got {found['storage_transformers']!r}.")
    prefix, separator = _key_encoding(found["chunk_key_encoding"])
    fill = fill_of(found["fill_value"], from_disk)
    codecs, inner, index = found["codecs"], chunk, None
    if len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed":
        index = codecs[0]["configuration"]
        codecs, inner = index["codecs"], _sizes(index["chunk_shape"], "inner chunk_shape")
        if len(inner) != len(chunk) or any(c % i for c, i in zip(chunk, inner, strict=True)):
            raise ValueError(f"the shard shape {chunk} is not a multiple of the inner chunk shape {inner}")
    steps = _chain(codecs, len(shape))
    index_steps = _chain(index["index_codecs"], 0) if index is not None else (Codec("bytes", "<"),)
    place = index.get("index_location", "end") if index is not None else "end"
    if place not in ("start", "end"):
        raise ValueError(f"index_location is {place!r}")
    if steps is None or index_steps is None or [s.name for s in index_steps] not in (["bytes"], ["bytes", "crc32c"]):
        return None
    return ArrayFacts(
        shape=shape,
        dtype=np.dtype(from_disk).str,
        chunk=chunk,
        inner=inner,
        codecs=steps,
        sharded=index is not None,
        index_at_end=place == "end",
        index_checked=len(index_steps) == 2,
        index_order=str(index_steps[0].detail),
        prefix=prefix,
        separator=separator,
        fill=fill,
    )


def _sizes(values: Any, what: str, least: int = 1) -> tuple[int, ...]:
    good = isinstance(values, list) and all(type(n) is int and least <= n < 1 << 62 for n in values)
    if not good:
        raise ValueError(f"{what} is {values!r}")
    return tuple(values)


def _key_encoding(found: Document) -> tuple[str, str]:
    name = found["name"]
    default = {"default": "/", "v2": "."}[name]
    separator = found.get("configuration", {}).get("separator", default)
    if separator not in ("/", "."):
        raise ValueError(f"the separator of chunk names is {separator!r}")
    return ("c" if name == "default" else ""), separator


def fill_of(value: Any, dtype: str) -> float | int | bool:
    """The fill value of an array as a Python number; raises ValueError where it does not fit the type."""
    kind = np.dtype(dtype).kind
    if kind == "b" and isinstance(value, bool):
        return value
    if kind in "iu" and type(value) is int:
        return int(np.dtype(dtype).type(value))
    if kind == "f" and type(value) in (int, float):
        return float(value)
    if kind == "f" and isinstance(value, str):
        if value.startswith("0x"):
            bits = bytes.fromhex(value[2:])
            return float(np.frombuffer(bits, dtype=np.dtype(dtype).newbyteorder(">"))[0])
        return _SPECIAL[value]
    raise ValueError(f"fill_value {value!r} does not fit the type {np.dtype(dtype)}")


def _chain(codecs: Any, ndim: int) -> tuple[Codec, ...] | None:
    """The codecs, or None when one is not among those that are decoded here."""
    steps: list[Codec] = []
    for found in codecs:
        name, detail = found["name"], found.get("configuration") or {}
        if name == "bytes":
            steps.append(Codec(name, {"little": "<", "big": ">", None: "<"}[detail.get("endian")]))
        elif name == "transpose":
            order = tuple(detail["order"])
            if sorted(order) != list(range(ndim)):
                raise ValueError(f"the transpose codec's order is {order}")
            steps.append(Codec(name, order))
        elif name in ("blosc", "zstd", "gzip", "crc32c"):
            steps.append(Codec(name))
        else:
            return None
    names = [step.name for step in steps]
    if names.count("bytes") != 1 or any(n == "transpose" for n in names[names.index("bytes") :]):
        raise ValueError(f"the chain of codecs {names} does not turn an array into bytes")
    return tuple(steps) if all(n in ("transpose", "bytes") for n in names[: names.index("bytes") + 1]) else None
