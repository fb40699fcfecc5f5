"""Zarr stores: prepared ones (`datasets.convert`), plain v3 and v2 arrays, groups, OME-Zarr, and geo-referenced arrays.

Windows are read straight from the chunk files (`_shards`); zarr-python reads only what has codecs that are unknown there.
Consolidated metadata is never trusted: every array's own document is read. Booleans are read as 0 and 1 of uint8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from core.errors import DamagedError, UnsupportedError
from core.geometry import Georeference, Spacing
from datasets.image import Flag, LazyImage
from datasets.readers import _zarr_conventions as conventions
from datasets.readers._scene import band_names
from datasets.readers._shards import StoredArray, check_budget
from datasets.readers._store import IMAGE, MARK, METADATA, VALID, facts_from, read_attributes
from datasets.readers._typed import typed
from datasets.readers._zarr_nodes import ArrayNode, GroupNode, child, choose, is_node, missing_files, node
from datasets.readers._zarr_source import LibraryArray, ZarrSource
from datasets.readers.base import Reader
from datasets.safety import inside

_COUNTED = 1024  # chunk files up to which opening a foreign store counts those that are missing
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class ZarrArray(Reader):
    """Reads Zarr v2 and v3 stores in folders.

    Attributes:
        array: which array of a group that holds several.
        axes: which axis of the array is which, in its order, out of t c z y x; by default its dimension names say it.
        level: resolution of an OME-Zarr image, 0 = finest.
        time: which moment of an array with a time axis; -1 = refuse arrays with more than one.
        bands: names of the bands, where the store names none.
        max_bytes: refuse windows and chunks of more voxel bytes, before anything is allocated.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".zarr",)
    array: str = ""
    axes: str = ""
    level: int = 0
    time: int = -1
    bands: tuple[str, ...] = ()
    max_bytes: int = 4 << 30

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether a folder is a Zarr node, or a file a zip of one (which opening then refuses, with the cure)."""
        if head:
            name = head[30 : 30 + int.from_bytes(head[26:28], "little")] if head.startswith(_ZIP) else b""
            return name.rpartition(b"/")[2] in (b"zarr.json", b".zarray", b".zgroup", b".zattrs")
        return is_node(path)

    def open(self, path: Path) -> LazyImage:
        """Read and check the metadata.

        Raises:
            DataError: it is damaged, leads out of the store, is of a kind that is not read, or lacks what an option says.
            BandError: `bands` has another number of names than the image has bands.
        """
        if not path.is_dir():
            raise UnsupportedError(f"{path}: expected a Zarr store in a folder, got one in a zip file; unzip it.")
        return _prepared(self, path, _stamps(path)) or self._foreign(path)

    def _prepared(self, path: Path) -> LazyImage | None:
        for name in (METADATA, IMAGE, VALID):
            inside(path, path / name)
        attributes = read_attributes(path) if (path / METADATA).exists() else None
        if attributes is None:
            return None
        stored = self._stored(path, _array(path, IMAGE), complete=True)
        has_mask = (path / VALID).exists()
        mask = self._stored(path, _array(path, VALID), complete=True) if has_mask else None
        shape = stored.facts.shape
        facts = facts_from(attributes, path)
        if len(shape) not in (3, 4) or not _fits(facts, shape) or (mask and not _covers(mask.facts.shape, shape)):
            raise DamagedError(
                f"{path}: the facts of this prepared store contradict its arrays; convert the source again."
            )
        renamed = {}
        if self.bands:
            renamed["bands"] = band_names("zarr_array.bands", path, self.bands, facts["bands"], ())[0]
        letters = "c" + "zyx"[4 - len(shape) :]
        source = ZarrSource(stored, stored.facts.dtype, letters, letters[1:], 0, mask)
        return LazyImage(
            path=path,
            shape=shape,
            dtype=np.dtype(stored.facts.dtype),
            chunks=tuple(map(min, stored.facts.inner[1:], shape[1:])),
            source=source,
            **(facts | renamed),
        )

    def _stored(self, path: Path, found: ArrayNode, *, complete: bool = False) -> StoredArray:
        check_budget(path, (1,), found.inner, found.dtype, self.max_bytes)
        if found.facts is None:
            raise DamagedError(f"{path}: expected the codecs of a prepared store; convert the source again.")
        return StoredArray(path, found.folder, found.facts, complete, self.max_bytes)

    def _foreign(self, path: Path) -> LazyImage:
        found = node(path, path)
        if isinstance(found, ArrayNode) and MARK in found.attributes:
            raise UnsupportedError(f"{path}: is one array of a prepared store; open the store itself, {path.parent}.")
        group = found if isinstance(found, GroupNode) else None
        scales = conventions.multiscale_of(path, group.attributes) if group and not self.array else None
        if group is not None and scales is None and self.array and self.array in group.groups:
            group = _group(path, self.array)
            scales = conventions.multiscale_of(path, group.attributes)
        if group is not None and scales is not None:
            return self._multiscale(path, group, scales)
        if isinstance(found, ArrayNode):
            return self._plain(path, found, None)
        assert group is not None
        wanted = self.array if group is found else ""
        return self._plain(path, choose(path, group, wanted, _helpers(path, group)), group)

    def _plain(self, path: Path, found: ArrayNode, group: GroupNode | None) -> LazyImage:
        letters = conventions.axes_of(path, len(found.shape), found.names, self.axes)
        layout = self._layout(path, found, letters, "zyx" if "z" in letters else "yx")
        values, flags = conventions.values_of(path, found.attributes, layout.shape[0], found.dtype)
        spacing, where = Spacing.pixels(len(layout.size)), None
        placement = _placement(path, found, group, letters) if len(layout.size) == 2 else None
        if placement is not None:
            where, spacing, more = placement
            flags += more
        elif len(layout.size) == 2:
            flags += (Flag("no_crs", "It states no CRS: where its pixels are on Earth is unknown."),)
        else:
            flags += (Flag("no_spacing", "It states no voxel size: distances are in voxels."),)
        return self._image(path, found, layout, (), spacing, where, values, [*layout.flags, *flags])

    def _multiscale(self, path: Path, group: GroupNode, scales: conventions.Multiscale) -> LazyImage:
        if not 0 <= self.level < len(scales.paths):
            raise UnsupportedError(
                f"{path}: has the levels 0 to {len(scales.paths) - 1}, got {self.level}; choose with "
                f"{typed('zarr_array.level=0')}, and so on."
            )
        nodes = [_array(path, name, group.folder) for name in scales.paths]
        if any(len(found.shape) != len(scales.axes) for found in nodes):
            raise DamagedError(
                f"{path}: its multiscales name {len(scales.axes)} axes, its arrays have others; mend them."
            )
        letters = self.axes or scales.axes
        conventions.axes_of(path, len(scales.axes), None, letters)
        deep = "z" in letters and nodes[0].shape[letters.index("z")] > 1
        spatial = "zyx" if deep else "yx"
        layout = self._layout(path, nodes[self.level], letters, spatial)
        spacing, flags = scales.spacing(self.level, spatial), list(layout.flags)
        if spacing is None:
            flags.append(Flag("no_spacing", "It states no unit of length: distances are in voxels."))
        sizes = tuple(tuple(found.shape[letters.index(axis)] for axis in spatial) for found in nodes)
        named = len(scales.labels) == len(set(scales.labels) - {""}) == layout.shape[0]
        labels = scales.labels if named else ()
        return self._image(
            path, nodes[self.level], layout, labels, spacing or Spacing.pixels(len(spatial)), None, {}, flags, sizes
        )

    def _layout(self, path: Path, found: ArrayNode, letters: str, spatial: str) -> _Layout:
        sizes = dict(zip(letters, found.shape, strict=True))
        if min(found.shape) < 1:
            raise UnsupportedError(f"{path}: expected at least one voxel, its shape is {found.shape}; remove it.")
        times = sizes.get("t", 1)
        if times > 1 and not 0 <= self.time < times:
            raise UnsupportedError(
                f"{path}: expected one moment, its time axis has {times}; choose one with "
                f"{typed('zarr_array.time=0')}, to {times - 1}."
            )
        flags = []
        if found.mixed:
            flags.append(Flag("v2_and_v3", "It has metadata of Zarr v2 and of v3; v3 was read."))
        if found.facts is None or not found.facts.checked:
            flags.append(
                Flag("unchecked", "Its chunks carry no checksum: altered voxels cannot be noticed. Convert it.")
            )
        if found.facts is not None and math.prod(found.facts.grid) <= _COUNTED:
            missing, total = missing_files(found.folder, found.facts)
            if missing:
                flags.append(
                    Flag(
                        "missing_chunks",
                        f"{missing} of {total} chunk files are missing; the fill value is read.",
                    )
                )
        size = tuple(sizes[axis] for axis in spatial)
        return _Layout(
            letters, spatial, (sizes.get("c", 1), *size), max(self.time, 0) if times > 1 else 0, tuple(flags)
        )

    def _image(
        self,
        path: Path,
        found: ArrayNode,
        layout: _Layout,
        labels: tuple[str, ...],
        spacing: Spacing,
        where: Georeference | None,
        values: dict[str, Any],
        flags: list[Flag],
        levels: tuple[tuple[int, ...], ...] = (),
    ) -> LazyImage:
        check_budget(path, (1,), found.inner, found.dtype, self.max_bytes)
        names, more = band_names(
            "zarr_array.bands", path, self.bands, labels or (None,) * layout.shape[0], ("",) * layout.shape[0]
        )
        flags += more
        dtype = np.dtype(np.uint8) if found.dtype.kind == "b" else found.dtype
        inner = dict(zip(layout.letters, found.inner, strict=True))
        stored: StoredArray | LibraryArray = LibraryArray(path, found.folder, found.shape, self.max_bytes)
        if found.facts is not None:
            stored = StoredArray(path, found.folder, found.facts, False, self.max_bytes)
        return LazyImage(
            path=path,
            shape=layout.shape,
            dtype=dtype,
            bands=names,
            spacing=spacing,
            georeference=where,
            chunks=tuple(min(inner[axis], n) for axis, n in zip(layout.spatial, layout.size, strict=True)),
            source=ZarrSource(stored, dtype.str, layout.letters, layout.spatial, layout.time, None),
            levels=levels,
            level=self.level if levels else 0,
            flags=tuple(flags),
            **values,
        )


@lru_cache(maxsize=1024)
def _prepared(reader: ZarrArray, path: Path, stamps: tuple[tuple[int, ...], ...]) -> LazyImage | None:
    """What opening a prepared store gave while its metadata had these stamps: verifying it takes 0.6 ms, a tile takes 1."""
    return reader._prepared(path)


def _stamps(path: Path) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    for name in (METADATA, f"{IMAGE}/{METADATA}", f"{VALID}/{METADATA}"):
        try:
            state = (path / name).stat()
        except OSError:
            found.append(())
        else:
            found.append((state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    return tuple(found)


@dataclass(frozen=True)
class _Layout:
    """How an array's axes become (C, *S)."""

    letters: str
    spatial: str
    shape: tuple[int, ...]
    time: int
    flags: tuple[Flag, ...]

    @property
    def size(self) -> Any:
        return self.shape[1:]


def _array(path: Path, name: str, folder: Path | None = None) -> ArrayNode:
    found = node(path, child(path, folder or path, name))
    if not isinstance(found, ArrayNode):
        raise DamagedError(f"{path}: expected an array '{name}', it is a group; copy the store again or convert it.")
    return found


def _group(path: Path, name: str) -> GroupNode:
    found = node(path, child(path, path, name))
    assert isinstance(found, GroupNode)
    return found


def _fits(facts: dict[str, Any], shape: tuple[int, ...]) -> bool:
    per_band = [facts[name] for name in ("bands", "nodata", "scaling", "units") if facts[name] is not None]
    rank = len(shape) - 1
    placed = (facts["affine"] is None or rank == 3) and (facts["georeference"] is None or rank == 2)
    return all(len(v) == shape[0] for v in per_band) and len(facts["spacing"].values) == rank and placed


def _covers(mask: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(mask) == len(shape) and mask[0] in (1, shape[0]) and mask[1:] == shape[1:]


def _helpers(path: Path, group: GroupNode) -> set[str]:
    """Arrays of a group that describe others: coordinates named like their axis, grid mappings without an axis."""
    names = set()
    for name in group.arrays if len(group.arrays) > 1 else ():
        found = node(path, inside(path, group.folder / name))
        if isinstance(found, ArrayNode) and len(found.shape) < 2:
            names.add(name)
    return names


def _placement(
    path: Path, found: ArrayNode, group: GroupNode | None, letters: str
) -> tuple[Georeference, Spacing, tuple[Flag, ...]] | None:
    mapping = str(found.attributes.get("grid_mapping", "spatial_ref"))
    sources = [found.attributes]
    corner = None
    if group is not None:
        if mapping in group.arrays:
            sources.insert(0, _array(path, mapping, group.folder).attributes)
        sources.append(group.attributes)
        corner = _from_coordinates(path, found, group, letters)
    size = (found.shape[letters.index("y")], found.shape[letters.index("x")])
    return conventions.placement_of(path, sources, size, corner)


def _from_coordinates(path: Path, found: ArrayNode, group: GroupNode, letters: str) -> tuple[float, ...] | None:
    """The transform that the coordinate arrays of y and x tell, where the group holds them."""
    names = [found.names[letters.index(axis)] for axis in "xy"] if found.names else []
    if not names or not set(names) <= set(group.arrays):
        return None
    values = []
    for name in names:
        array = _array(path, name, group.folder)
        if len(array.shape) != 1 or array.shape[0] > 1 << 20:
            return None
        stored: StoredArray | LibraryArray = LibraryArray(path, array.folder, array.shape, 1 << 26)
        if array.facts is not None:
            stored = StoredArray(path, array.folder, array.facts, False, 1 << 26)
        values.append(stored.read((slice(0, array.shape[0]),)))
    x, y = (v.astype(np.float64) for v in values)
    return conventions.from_coordinates(x, y)
