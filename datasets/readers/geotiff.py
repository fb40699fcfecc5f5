"""Scenes: GeoTIFF, COG and BigTIFF by window, with all that they say about place, bands, nodata and masks.

GDAL reads the pixels (`_gdal.py`). What it would pass over in silence is found in the file's directories when it is opened
(`_tiff.py`): a missing end, blocks that were never written, several pages. What the facts mean is in `_scene.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from core.errors import BudgetError, DamagedError, DataError, GeometryError, UnsafeError, UnsupportedError
from core.geometry import Spacing
from datasets.handles import discard
from datasets.image import Flag, LazyImage
from datasets.readers import _scene, _tiff
from datasets.readers._gdal import Handle, SceneSource, reason
from datasets.readers._typed import typed
from datasets.readers.base import Reader
from datasets.safety import local
from datasets.times import as_time

_JP2 = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_BESIDE = (".aux.xml", ".msk", ".ovr")


@dataclass(frozen=True)
class GeoTiff(Reader):
    """Reads a scene in raw values; its georeference, spacing in metres, nodata, scaling and masks are facts of the image.

    Attributes:
        bands: names of the bands, alpha left out unless it is named too; () = the file's own names.
        nodata: the value that means "not measured", one for all bands or one each, where the file is silent or wrong.
        level: resolution to read: 0 = full, 1 = the first overview in the file, ...
        sparse: blocks that were never written, in a file without nodata value: `refuse` the file, take them as
            `invalid`, or as measured zeros (`fill`).
        crs: `require` refuses a file without CRS or transform.
        palette: `index` reads the numbers of a file with a colour table instead of refusing it.
        sidecars: also read `.aux.xml`, `.msk` and world files beside the file; overviews beside it are never read.
        jp2: also read JPEG 2000.
        max_bytes: refuse larger windows, and files whose blocks are larger, before anything is allocated.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".tif", ".tiff", ".gtif", ".gtiff", ".jp2")
    bands: tuple[str, ...] = ()
    nodata: tuple[float, ...] = ()
    level: int = 0
    sparse: Literal["refuse", "invalid", "fill"] = "refuse"
    crs: Literal["accept", "require"] = "accept"
    palette: Literal["refuse", "index"] = "refuse"
    sidecars: bool = False
    jp2: bool = False
    max_bytes: int = 4 << 30

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether the content is a TIFF that is no plain photograph, or JPEG 2000."""
        if _tiff.is_tiff(head):
            return _tiff.belongs_to(path) in ("scene", "nobody")
        return head.startswith(_JP2)

    def open(self, path: Path) -> LazyImage:
        """Read the directories and the georeference.

        Raises:
            DamagedError: it is truncated, or its directories contradict it.
            GeometryError: its transform is unusable, or there is none and `crs="require"`.
            BudgetError: one block is larger than `max_bytes`.
            UnsupportedError: complex numbers, a colour table, several pages, holes, JPEG 2000: each with its option.
            BandError: `bands` or `nodata` are not as many as the file has.
            UnsafeError: it refers to other files.
        """
        path = local(path)  # once more: made absolute, a relative path may have become one of GDAL's own
        with path.open("rb") as file:
            tiff = _tiff.is_tiff(file.read(16))
        if not tiff and not self.jp2:
            raise UnsupportedError(
                f"{path}: expected a GeoTIFF, got JPEG 2000; allow it with {typed('geotiff.jp2=true')}, or convert it."
            )
        if self.sidecars:
            _only_tiffs_beside(path)
        pages = _tiff.directories(path) if tiff else ()
        overviews = _overviews(path, pages) if tiff else []
        if not 0 <= self.level <= len(overviews):
            raise UnsupportedError(
                f"{path}: expected a level from 0 to {len(overviews)}, got {self.level}; choose with "
                f"{typed('geotiff.level=0')}, and so on."
            )
        stat = path.stat()
        handle = Handle(
            str(path), (stat.st_size, stat.st_mtime_ns), "GTiff" if tiff else "JP2OpenJPEG", self.sidecars, self.level
        )
        page = pages[overviews[self.level - 1] if self.level else 0] if tiff else None
        dataset = _checked(path, handle.at(0), pages[0] if tiff else None, self.palette)
        reading = dataset if self.level == 0 else _checked(path, handle, page, self.palette)
        return self._image(path, handle, dataset, reading, page, [pages[i].size for i in overviews])

    def _image(
        self,
        path: Path,
        handle: Handle,
        dataset: Any,
        reading: Any,
        page: _tiff.Directory | None,
        overviews: list[tuple[int, int]],
    ) -> LazyImage:
        colours = [colour.name for colour in dataset.colorinterp]
        alpha, marked = _alpha(colours, dataset.descriptions, len(self.bands))
        indexes = tuple(number for number in range(1, len(colours) + 1) if number not in alpha)
        if not indexes:
            raise UnsupportedError(f"{path}: expected an image, got an alpha band alone; give the file it belongs to.")
        dtype, size = np.dtype(dataset.dtypes[0]), (int(reading.height), int(reading.width))

        def each(values: Sequence[Any]) -> list[Any]:
            return [values[index - 1] for index in indexes]

        names, flags = _scene.band_names("geotiff.bands", path, self.bands, each(dataset.descriptions), each(colours))
        said, unread = _said_nodata(dataset, page, indexes)
        nodata, more = _scene.nodata_values(path, self.nodata, said, dtype)
        georeference, spacing, placed = self._place(path, dataset, page)
        if self.level:
            factors = (dataset.height / size[0], dataset.width / size[1])
            georeference = None if georeference is None else georeference.scaled(factors)
            down, right = spacing.values
            spacing = Spacing((down * factors[0], right * factors[1]), spacing.unit)
        holes, found = self._holes(path, page, dtype, said, nodata)
        block = tuple(int(min(n, b)) for n, b in zip(size, reading.block_shapes[0], strict=True))
        units = each(dataset.units)
        source = SceneSource(
            handle=handle,
            indexes=indexes,
            itemsize=dtype.itemsize,
            max_bytes=self.max_bytes,
            mask="alpha" if alpha else "mask" if _has_mask(reading) else "none",
            alpha=alpha[0] if alpha else 0,
            holes=page if holes else None,
        )
        self._affordable(path, block, dtype, 1 if page is None or page.separate else len(colours))
        return LazyImage(
            path=path,
            shape=(len(indexes), *size),
            dtype=dtype,
            bands=names,
            spacing=spacing,
            georeference=georeference,
            chunks=block,
            source=source,
            nodata=nodata,
            scaling=_scene.scalings(path, each(dataset.scales), each(dataset.offsets)),
            units=tuple(unit or None for unit in units) if any(units) else None,
            levels=((int(dataset.height), int(dataset.width)), *overviews),
            level=self.level,
            flags=(*flags, *marked, *unread, *more, *placed, *found, *_beside(path, self.sidecars)),
            time=_acquired(dataset),
        )

    def _place(self, path: Path, dataset: Any, page: _tiff.Directory | None) -> tuple[Any, Spacing, tuple[Flag, ...]]:
        a, b, c, d, e, f = (float(value) for value in dataset.transform[:6])
        transform = (a, b, c, d, e, f)
        known = transform != (1.0, 0.0, 0.0, 0.0, 1.0, 0.0) or (page is not None and page.has_transform)
        if dataset.crs and known:
            return _scene.located(
                path, _scene.named_crs(dataset.crs), transform, (int(dataset.height), int(dataset.width))
            )
        if page is not None and page.has_control_points:
            flag = Flag("control_points", "Positions are given by control points only; warp the file to a map first.")
        elif dataset.crs:
            flag = Flag("no_transform", "The file names a CRS but not where its pixels are.")
        else:
            flag = Flag("no_crs", "The file has no coordinate reference system: the size of its pixels is not known.")
        if self.crs == "require":
            raise GeometryError(
                f"{path}: expected a CRS and a transform. {flag.text} Set them in the file, or accept it with "
                f"{typed('geotiff.crs=accept')}."
            )
        return None, Spacing.pixels(2), (flag,)

    def _holes(
        self,
        path: Path,
        page: _tiff.Directory | None,
        dtype: np.dtype,
        said: list[float | None],
        nodata: tuple[float | None, ...] | None,
    ) -> tuple[bool, tuple[Flag, ...]]:
        """Say whether never written blocks must be kept out by the source; GDAL fills them with nodata, or with 0."""
        missing = _tiff.never_written(path, page) if page is not None else np.zeros(1, dtype=bool)
        if not missing.any():
            return False, ()
        count = f"{int(missing.sum())} of {missing.size} blocks were never written"
        filled = [0.0 if value is None else _scene.representable(value, dtype) for value in said]
        if nodata is not None and None not in nodata and list(nodata) == filled:
            return False, (Flag("sparse", f"{count}; they read as nodata."),)
        if self.sparse == "refuse":
            raise UnsupportedError(
                f"{path}: expected a whole scene, but it is sparse: {count} and the file has no nodata value for them; set "
                f"one in the file, or choose: {typed('geotiff.sparse=invalid')}, or fill."
            )
        meaning = "not measured" if self.sparse == "invalid" else "measured zeros"
        return self.sparse == "invalid", (Flag("sparse", f"{count}; they are taken as {meaning}."),)

    def _affordable(self, path: Path, block: tuple[int, ...], dtype: np.dtype, samples: int) -> None:
        needed = block[0] * block[1] * samples * dtype.itemsize
        if needed > self.max_bytes:
            raise BudgetError(
                f"{path}: expected blocks of at most {self.max_bytes / 1e9:g} GB, its blocks of {block[0]} x {block[1]} "
                f"pixels take {needed / 1e9:.1f} GB; write it in tiles, or raise the budget: "
                f"{typed(f'geotiff.max_bytes={needed}')}."
            )


def _checked(path: Path, handle: Handle, page: _tiff.Directory | None, palette: str) -> Any:
    """Open, and refuse what is not read; what GDAL sees must be what the directory says."""
    try:
        dataset = handle.dataset()
        elsewhere = dataset.tags(ns="OVERVIEWS")
        colours, types = [colour.name for colour in dataset.colorinterp], dataset.dtypes
        _ = dataset.descriptions, dataset.units  # rasterio decodes them now, and they may be no text
    except DataError:
        raise
    except Exception as error:  # as above
        discard(handle.key)
        raise DamagedError(
            f"{path}: expected a scene, but GDAL cannot open it ({reason(error)}); copy it again or remove it."
        ) from None
    if elsewhere:
        raise UnsafeError(
            f"{path}: its metadata names another file to read overviews from ({elsewhere}); remove that entry."
        )
    if page is not None and ((dataset.height, dataset.width), dataset.count) != (page.size, page.samples):
        raise DamagedError(
            f"{path}: its directory says {page.samples} bands of {page.size}, GDAL reads {dataset.count} of "
            f"{(dataset.height, dataset.width)}; write the file anew."
        )
    if any(text.startswith("complex") for text in types):
        raise UnsupportedError(
            f"{path}: expected real numbers, got {types[0]}; convert it to magnitude (and phase) as separate bands."
        )
    if "palette" in colours and palette == "refuse":
        raise UnsupportedError(
            f"{path}: expected measured values, got a colour table; expand it to red, green, blue, or read its numbers "
            f"with {typed('geotiff.palette=index')}."
        )
    if "cyan" in colours:
        raise UnsupportedError(f"{path}: expected bands of a scene, got printer's colours (CMYK); convert it to RGB.")
    return dataset


def _overviews(path: Path, pages: tuple[_tiff.Directory, ...]) -> list[int]:
    """Positions of the overviews' directories; a file of several images is refused."""
    images = [page for page in pages[1:] if not page.is_overview and not page.is_mask]
    if images:
        raise UnsupportedError(
            f"{path}: expected one image, got a TIFF of {len(images) + 1} pages; split it into one file per image."
        )
    return [number for number, page in enumerate(pages) if number and page.is_overview]


def _alpha(colours: list[str], described: Sequence[str | None], named: int) -> tuple[tuple[int, ...], tuple[Flag, ...]]:
    """Numbers of the bands that are transparency.

    GDAL marks the last of any four 8-bit bands so when it writes them, infrared too: a band with a name of its own is one.
    """
    alpha = [
        number
        for number, (colour, text) in enumerate(zip(colours, described, strict=True), start=1)
        if colour == "alpha" and (text or "alpha").strip().lower() == "alpha"
    ]
    if not alpha or named == len(colours):
        return (), ()
    text = f"Band {alpha[0]} is marked as transparency and says what is measured; if it is a band, name all {len(colours)}."
    return tuple(alpha), (Flag("alpha", text),)


def _has_mask(dataset: Any) -> bool:
    """Whether there is a mask in, or beside, the file; GDAL calls an alpha band one too."""
    from rasterio.enums import MaskFlags

    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def _said_nodata(
    dataset: Any, page: _tiff.Directory | None, indexes: tuple[int, ...]
) -> tuple[list[float | None], tuple[Flag, ...]]:
    """What the file says of each band: rasterio leaves out what does not fit the type, so the tag itself is asked."""
    values: list[float | None] = [dataset.nodatavals[index - 1] for index in indexes]
    if page is None or page.nodata is None:
        return values, ()
    try:
        tag = float(page.nodata)
    except ValueError:
        flag = Flag("nodata_out_of_range", f"The file's nodata value '{page.nodata[:40]}' is no number and is ignored.")
        return [None] * len(values), (flag,)
    return [tag if value is None else value for value in values], ()


def _only_tiffs_beside(path: Path) -> None:
    """GDAL opens a mask beside the file with any of its drivers, VRT included."""
    for ending in (".msk", ".ovr"):
        beside = path.with_name(path.name + ending)
        if beside.is_file():
            with beside.open("rb") as file:
                if not _tiff.is_tiff(file.read(16)):
                    raise UnsafeError(f"{beside}: expected a TIFF beside {path.name}, got another kind; remove it.")


def _acquired(dataset: Any) -> str | None:
    """When the scene was taken, as GDAL's metadata of a scene say; TIFF's own date is when the file was written."""
    said = dataset.tags(ns="IMAGERY").get("ACQUISITIONDATETIME")
    try:
        return None if said is None else as_time(said)
    except ValueError:
        return None


def _beside(path: Path, read: bool) -> tuple[Flag, ...]:
    names = [path.name + ending for ending in _BESIDE]
    found = [name for name in names if path.with_name(name).exists()]
    if not found:
        return ()
    text = "read too (overviews excepted)" if read else f"not read; {typed('geotiff.sidecars=true')} reads them"
    return (Flag("sidecar", f"Beside the file lies {', '.join(found)}, {text}."),)
