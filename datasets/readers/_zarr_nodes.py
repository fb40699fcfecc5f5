"""Finding the array to read in a Zarr store, v2 or v3: the one array of a group, a named one, or a level of an OME image."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, DamagedError, DataError, MissingDataError, UnsupportedError, nearest
from datasets.readers._typed import typed
from datasets.readers._zarr_metadata import ArrayFacts, Codec, Document, array_facts, document, fill_of
from datasets.safety import inside

V3, V2_ARRAY, V2_GROUP, V2_ATTRIBUTES = "zarr.json", ".zarray", ".zgroup", ".zattrs"


@dataclass(frozen=True)
class ArrayNode:
    """An array as its metadata describes it.

    Attributes:
        folder: where it is.
        shape: of the array.
        dtype: native.
        inner: shape of what is decoded at once.
        facts: its layout, or None where only zarr-python can decode it.
        names: of its axes, None where it names none.
        attributes: its own.
        mixed: whether the folder holds metadata of both versions of Zarr.
    """

    folder: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    inner: tuple[int, ...]
    facts: ArrayFacts | None
    names: tuple[str, ...] | None
    attributes: Document
    mixed: bool = False


@dataclass(frozen=True)
class GroupNode:
    """A group: its folder, its attributes and the names of the arrays and groups in it."""

    folder: Path
    attributes: Document
    arrays: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


def is_node(folder: Path) -> bool:
    """Say whether a folder is a Zarr array or group of either version."""
    return any(os.path.lexists(folder / name) for name in (V3, V2_ARRAY, V2_GROUP))


def child(store: Path, folder: Path, name: str) -> Path:
    """The folder of a node by its path in the store, which it must not leave.

    Raises:
        UnsafeError: the path, or a link on it, leads out of the store.
        MissingDataError: there is no such node.
    """
    path = inside(store, folder / name)
    if not is_node(path):
        raise MissingDataError(f"{store}: expected an array or group '{name}' in it, but there is none.")
    return path


def node(store: Path, folder: Path) -> ArrayNode | GroupNode:
    """Read the metadata of a node; nothing of its arrays' content.

    Raises:
        DamagedError: its metadata is damaged.
        UnsafeError: its metadata lies outside the store.
        UnsupportedError: its type, grid or codec is not read.
    """
    mixed = (folder / V3).exists() and any((folder / name).exists() for name in (V2_ARRAY, V2_GROUP))
    if os.path.lexists(folder / V3):
        found = document(inside(store, folder / V3))
        if found.get("zarr_format") != 3 or found.get("node_type") not in ("array", "group"):
            raise DamagedError(
                f"{store}: expected {folder / V3} to describe a Zarr v3 array or group, got format "
                f"{found.get('zarr_format')!r} and node type {found.get('node_type')!r}; copy the store again."
            )
        attributes = _object(store, found.get("attributes") or {})
        if found["node_type"] == "group":
            return _group(store, folder, attributes)
        return _array_v3(store, folder, found, attributes, mixed)
    attributes = document(inside(store, folder / V2_ATTRIBUTES)) if os.path.lexists(folder / V2_ATTRIBUTES) else {}
    if os.path.lexists(folder / V2_ARRAY):
        return _array_v2(store, folder, document(inside(store, folder / V2_ARRAY)), attributes)
    if document(inside(store, folder / V2_GROUP)).get("zarr_format") != 2:
        raise DamagedError(f"{store}: expected {folder / V2_GROUP} to describe a Zarr v2 group; copy the store again.")
    return _group(store, folder, attributes)


def _object(store: Path, value: Any) -> Document:
    if not isinstance(value, dict):
        raise DamagedError(
            f"{store}: expected attributes to be a JSON object, got {value!r:.80}; copy the store again."
        )
    return value


def _group(store: Path, folder: Path, attributes: Document) -> GroupNode:
    arrays: list[str] = []
    groups: list[str] = []
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        path = Path(entry.path)
        if not entry.is_dir() or not is_node(inside(store, path)):
            continue
        kind = document(inside(store, path / V3)).get("node_type") if (path / V3).exists() else None
        is_array = kind == "array" or (kind is None and (path / V2_ARRAY).exists())
        (arrays if is_array else groups).append(entry.name)
    return GroupNode(folder, attributes, tuple(arrays), tuple(groups))


def _array_v3(store: Path, folder: Path, found: Document, attributes: Document, mixed: bool) -> ArrayNode:
    facts = array_facts(store, found)
    names = found.get("dimension_names")
    if names is not None and not (isinstance(names, list) and len(names) == len(found["shape"])):
        raise DamagedError(f"{store}: expected a name per axis of {found['shape']}, got {names!r}; mend its metadata.")
    known = tuple(names) if names and all(isinstance(name, str) for name in names) else None
    if facts is not None:
        return ArrayNode(folder, facts.shape, np.dtype(facts.dtype), facts.inner, facts, known, attributes, mixed)
    return _by_library(store, folder, _codec_names(found.get("codecs")), known, attributes, mixed)


def _codec_names(codecs: Any) -> list[str]:
    """Names for a message, of whatever stands there: nothing of it was checked beyond the first unknown codec."""
    names: list[str] = []
    for codec in codecs if isinstance(codecs, list) else ():
        settings = codec.get("configuration") if isinstance(codec, dict) else None
        names.append(str(codec.get("name") if isinstance(codec, dict) else codec))
        names += _codec_names(settings.get("codecs")) if isinstance(settings, dict) else []
    return names


def _by_library(
    store: Path, folder: Path, codecs: list[str], names: tuple[str, ...] | None, attributes: Document, mixed: bool
) -> ArrayNode:
    """Describe an array whose codecs only zarr-python knows; or say that it does not either."""
    import zarr

    try:
        array = zarr.open_array(folder, mode="r")
        inner = array.chunks
    except Exception as error:  # what zarr-python and a codec's plugin raise is not declared anywhere
        raise UnsupportedError(
            f"{store}: expected codecs that are known here, got {', '.join(codecs) or 'none'} "
            f"({type(error).__name__}: {error}); install the codec's package or convert the store."
        ) from None
    dtype = _read_dtype(store, np.dtype(array.dtype))
    return ArrayNode(folder, tuple(array.shape), dtype, tuple(inner), None, names, attributes, mixed)


def _read_dtype(store: Path, dtype: np.dtype) -> np.dtype:
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UnsupportedError(
            f"{store}: expected whole, real or boolean numbers, its data type is {dtype}; convert it."
        )
    return dtype.newbyteorder("=")


def _array_v2(store: Path, folder: Path, found: Document, attributes: Document) -> ArrayNode:
    names = attributes.get("_ARRAY_DIMENSIONS")
    try:
        known = tuple(map(str, names)) if isinstance(names, list) and len(names) == len(found["shape"]) else None
        facts = _facts_v2(store, found)
        codecs = [str((found.get(key) or {}).get("id")) for key in ("compressor",)]
        codecs += [str(entry.get("id")) for entry in found.get("filters") or []]
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DamagedError(
            f"{store}: expected {folder / V2_ARRAY} to describe a Zarr v2 array, but it is damaged "
            f"({type(error).__name__}: {error}); copy the store again."
        ) from None
    if facts is None:
        return _by_library(store, folder, codecs, known, attributes, False)
    return ArrayNode(folder, facts.shape, np.dtype(facts.dtype), facts.inner, facts, known, attributes)


def _facts_v2(store: Path, found: Document) -> ArrayFacts | None:
    """The same facts as of a v3 array, where the codec is one that is decoded here."""
    if found["zarr_format"] != 2:
        raise ValueError(f"zarr_format is {found['zarr_format']!r}")
    if not isinstance(found["dtype"], str):
        raise UnsupportedError(f"{store}: expected numbers, its data type is {found['dtype']!r}; convert it.")
    stored = np.dtype(found["dtype"])
    dtype = _read_dtype(store, stored)
    shape, chunk = tuple(found["shape"]), tuple(found["chunks"])
    if len(shape) != len(chunk) or any(type(n) is not int or n < 0 for n in shape + chunk) or 0 in chunk:
        raise ValueError(f"shape {shape} and chunks {chunk} do not fit")
    separator = found.get("dimension_separator", ".")
    if separator not in ("/", "."):
        raise ValueError(f"the separator of chunk names is {separator!r}")
    packer = (found["compressor"] or {}).get("id")
    if found.get("filters") or packer not in (None, "blosc", "zstd", "gzip"):
        return None
    if found["order"] not in ("C", "F"):
        raise ValueError(f"order is {found['order']!r}")
    turn = (Codec("transpose", tuple(range(len(shape)))[::-1]),) if found["order"] == "F" else ()
    order = Codec("bytes", ">" if stored.byteorder == ">" else "<")
    return ArrayFacts(
        shape=shape,
        dtype=dtype.str,
        chunk=chunk,
        inner=chunk,
        codecs=(*turn, order, *((Codec(packer),) if packer else ())),
        sharded=False,
        index_at_end=True,
        index_checked=False,
        index_order="<",
        prefix="",
        separator=separator,
        fill=0 if found["fill_value"] is None else fill_of(found["fill_value"], dtype.str),
    )


def choose(store: Path, group: GroupNode, wanted: str, ignored: set[str]) -> ArrayNode:
    """Give the one image array of a group, or the named one.

    Args:
        store: the store's folder.
        group: the group.
        wanted: name of the array; empty = there must be only one.
        ignored: arrays that describe others: coordinates, grid mappings.

    Raises:
        ConfigError: there is no array of that name.
        UnsupportedError: there are several, or none.
    """
    if wanted:
        if not is_node(inside(store, group.folder / wanted)):
            raise ConfigError(f"{store}: has no array '{wanted}': {nearest(wanted, group.arrays)}")
        found = node(store, child(store, group.folder, wanted))
        if isinstance(found, ArrayNode):
            return found
        return choose(store, found, "", set())
    candidates = [name for name in group.arrays if name not in ignored]
    nodes = [(name, node(store, group.folder / name)) for name in candidates] if len(candidates) > 1 else []
    images = [name for name, found in nodes if isinstance(found, ArrayNode) and len(found.shape) >= 2]
    candidates = images or candidates
    if len(candidates) == 1:
        found = node(store, inside(store, group.folder / candidates[0]))
        assert isinstance(found, ArrayNode)
        return found
    if not candidates:
        inner = f"; it holds the groups {', '.join(group.groups)}, open one of them" if group.groups else ""
        raise UnsupportedError(f"{store}: expected a Zarr group with an array, it has none{inner or '; remove it'}.")
    raise UnsupportedError(
        f"{store}: expected one array, the group holds several: {', '.join(candidates)}; choose with "
        f"{typed(f'zarr_array.array={candidates[0]}')}."
    )


def missing_files(folder: Path, facts: ArrayFacts) -> tuple[int, int]:
    """Count the chunk files that an array lacks, and those it should have; the fill value is read in their place."""
    have = 0
    for base, _, files in os.walk(folder):
        for file in files:
            name = (Path(base) / file).relative_to(folder).as_posix()
            at = name.removeprefix(facts.prefix + facts.separator if facts.prefix else "").split(facts.separator)
            if len(at) == len(facts.grid) and all(i.isdecimal() for i in at):
                have += all(int(i) < n for i, n in zip(at, facts.grid, strict=True))
    total = math.prod(facts.grid)
    return total - have, total
