"""DICOM: a folder that holds a series, a multi-frame volume, or a single radiograph; values in physical units.

Slices are ordered by where they are in the patient, never by file name or number, and must be evenly spaced: a missing
slice stretches anatomy without a trace. Like a NIfTI volume, a DICOM volume arrives as z to superior, y to anterior,
x to right. RescaleSlope and RescaleIntercept are applied, and whole numbers stay whole where the slope is 1 (CT: int16 HU).
No text of a file but its name reaches facts, flags or errors: `_dicom_elements` takes a white list of elements and nothing else.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from core.bands import RGB, BandNames
from core.errors import BandError, BudgetError, DamagedError, UnsafeError, UnsupportedError
from core.geometry import Affine, Spacing
from core.preprocess import Window
from datasets.image import Flag, LazyImage, Source
from datasets.readers._dicom_geometry import placed
from datasets.readers._dicom_header import PLAIN, Header, Pixels, is_dicom, is_slice, read_header
from datasets.readers._orientation import Orientation, canonical
from datasets.readers._typed import typed
from datasets.readers.base import Reader
from datasets.safety import inside

_PROBES = 8  # files of a folder that are looked at to tell whether it is a series
_SUFFIXES = (".dcm", ".dicom", ".ima")
_BURNED = frozenset({"US", "SC", "XA", "CR", "MG"})
_NAMED = "expected one DICOM series, got"


@dataclass(frozen=True)
class Dicom(Reader):
    """Reads a series as one volume with one band, ("intensity",); a single gray or colour image as 2D.

    Attributes:
        max_bytes: refuse images whose headers declare more, before anything is decoded.
        series: which series of a folder that holds several: the name of one of its files, or `largest`.
        uneven: `refuse` or `accept` slices at uneven distances; accepted, their mean distance is the spacing.
        burned_in: `refuse` or `accept` a file that says that text (often the patient's name) is burned into its pixels.
        bands: names of the bands, instead of ("intensity",) or ("red", "green", "blue").
    """

    suffixes: ClassVar[tuple[str, ...]] = _SUFFIXES
    max_bytes: int = 4 << 30
    series: str = ""
    uneven: Literal["refuse", "accept"] = "refuse"
    burned_in: Literal["refuse", "accept"] = "refuse"
    bands: tuple[str, ...] = ()

    def recognises(self, path: Path, head: bytes) -> bool:
        """Say whether a file has the preamble, or whether the first DICOM file of a folder is a slice."""
        if head or path.is_file():
            return head[128:132] == b"DICM"
        first = next((file for file in _probes(path) if is_dicom(file)), None)
        return first is not None and is_slice(first)

    def open(self, path: Path) -> LazyImage:
        """Read the headers.

        Raises:
            DataError: a file is damaged, of a kind that is not read or beyond the budget, slices do not make a volume,
                or text is burned into pixels.
            MissingDataError: pydicom is not installed.
        """
        headers, flags = self._series(path) if path.is_dir() else ([read_header(path)], [])
        first = headers[0]
        if any(header.pixels != first.pixels for header in headers):
            raise UnsupportedError(f"{path}: expected slices of one size and type, got several; split the series.")
        if len({PLAIN.get(header.syntax) for header in headers}) > 1:
            raise UnsupportedError(f"{path}: expected slices coded alike, got several transfer syntaxes; convert them.")
        flags += self._privacy(headers)
        planes = [
            Plane(h.path.name, n, h.offset, f.slope, f.intercept) for h in headers for n, f in enumerate(h.frames)
        ]
        self._budget(path, first.pixels, len(planes))
        if path.is_dir() or len(planes) > 1:
            return self._volume(path, headers, planes, flags)
        return self._single(path, first, planes, flags)

    def _series(self, folder: Path) -> tuple[list[Header], list[Flag]]:
        names = sorted(entry for entry in folder.iterdir() if entry.is_file() and not _ignored(entry))
        files = [inside(folder, file) for file in names if is_dicom(file)]
        others = [file for file in names if file not in set(files)]
        lost = [file for file in others if file.suffix.lower() in _SUFFIXES]
        if lost:
            raise DamagedError(f"{lost[0]}: its name says DICOM, its content does not; copy it again or remove it.")
        if not files:
            raise UnsupportedError(f"{folder}: expected a folder of DICOM files, none is one; give another folder.")
        headers = [read_header(file) for file in files]
        chosen = self._choose(folder, headers)
        flags = [Flag("other_files", f"{len(others)} files of the folder are not DICOM and were left out.")] * bool(
            others
        )
        if len(chosen) < len(headers):
            text = f"{len(headers) - len(chosen)} files of other series in the folder were left out."
            flags.append(Flag("other_series", text))
        return chosen, flags

    def _choose(self, folder: Path, headers: list[Header]) -> list[Header]:
        counts = Counter(header.series for header in headers).most_common()
        wanted = counts[0][0]
        if self.series not in ("", "largest"):
            named = [header.series for header in headers if header.path.name == self.series]
            if not named:
                raise UnsupportedError(
                    f"{folder}: expected a file called '{self.series}' that names a series, there is none; give another."
                )
            wanted = named[0]
        elif len(counts) > 1 and (self.series == "" or counts[0][1] == counts[1][1]):
            examples = {header.series: header.path.name for header in reversed(headers)}
            listed = ", ".join(f"{count} files such as {examples[series]}" for series, count in counts[:5])
            raise UnsupportedError(
                f"{folder}: {_NAMED} {len(counts)} mixed series ({listed}); split the folder, or choose with "
                f"{typed(f'dicom.series={examples[wanted]}')}."
            )
        return [header for header in headers if header.series == wanted]

    def _privacy(self, headers: list[Header]) -> list[Flag]:
        burned = [header for header in headers if header.burned_in]
        if burned and self.burned_in == "refuse":
            raise UnsafeError(
                f"{burned[0].path}: says that text is burned into its pixels (BurnedInAnnotation), which may name the "
                f"patient; remove the text, or read it with {typed('dicom.burned_in=accept')}."
            )
        if burned:
            return [Flag("burned_in", "The file says that text is burned into its pixels.")]
        kinds = sorted({header.modality for header in headers} & _BURNED)
        text = f"{', '.join(kinds)} images often have text burned into the pixels, and no header can rule that out."
        return [Flag("burned_in_unknown", text)] if kinds else []

    def _budget(self, path: Path, pixels: Pixels, count: int) -> None:
        declared = count * pixels.rows * pixels.columns * pixels.samples * max(4, pixels.allocated // 8)
        if declared > self.max_bytes:
            raise BudgetError(
                f"{path}: its headers declare {declared / 2**30:.1f} GiB of values, the budget is "
                f"{self.max_bytes / 2**30:.1f} GiB; remove it, or read it with "
                f"{typed(f'dicom.max_bytes={declared}')} if it is genuine."
            )

    def _single(self, path: Path, header: Header, planes: list[Plane], flags: list[Flag]) -> LazyImage:
        steps = header.spacing or header.detector
        if steps is None:
            flags.append(Flag("no_spacing", "The header has no pixel spacing; sizes are in pixels."))
        elif header.spacing is None:
            flags.append(
                Flag("detector_spacing", "Spacing is that at the detector: the patient is smaller than it says.")
            )
        spacing = Spacing.pixels(2) if steps is None else Spacing(steps, "mm")
        size = (header.pixels.rows, header.pixels.columns)
        return self._image(path, [header], planes, flags, None, size=size, spacing=spacing, chunks=size)

    def _volume(self, path: Path, headers: list[Header], planes: list[Plane], flags: list[Flag]) -> LazyImage:
        if headers[0].pixels.samples != 1:
            raise UnsupportedError(
                f"{path}: expected a gray volume, got frames in colour; export them as single images."
            )
        names = [plane.file + (f" frame {plane.frame}" if plane.frame else "") for plane in planes]
        order, affine, found = placed(path, headers, names, self.uneven)
        pixels = headers[0].pixels
        stored = (pixels.columns, pixels.rows, len(planes))
        orientation, turned = canonical(affine, stored, source=str(path))
        spacing = Spacing(tuple(round(v, 6) for v in turned.spacing.values), "mm")
        chunks = orientation.size((stored[0], stored[1], 1))
        ordered, size = [planes[place] for place in order], orientation.size(stored)
        image = self._image(
            path, headers, ordered, flags + found, orientation, size=size, spacing=spacing, chunks=chunks, affine=turned
        )
        return image

    def _image(
        self,
        path: Path,
        headers: list[Header],
        planes: list[Plane],
        flags: list[Flag],
        orientation: Orientation | None,
        *,
        size: tuple[int, ...],
        spacing: Spacing,
        chunks: tuple[int, ...],
        affine: Affine | None = None,
    ) -> LazyImage:
        first = headers[0]
        names: BandNames = ("intensity",) if first.pixels.samples == 1 else RGB
        if self.bands and len(self.bands) != len(names):
            raise BandError(
                f"{path}: expected {len(names)} band names, got {self.bands}; mend {typed('dicom.bands=[...]')}."
            )
        slopes = {(plane.slope, plane.intercept) for plane in planes}
        dtype = _dtype(first.pixels, slopes)
        if len(slopes) > 1:
            flags = [*flags, Flag("slope_per_slice", "Each slice has a slope of its own; it was applied.")]
        if first.pixels.colours == "MONOCHROME1":
            flags = [*flags, Flag("monochrome1", "Low values are shown bright; the values were kept as they are.")]
        padding = None if any(header.padding != first.padding for header in headers) else first.padding
        masked = any(header.padding for header in headers) and (len(slopes) > 1 or padding is None)
        masked = masked or (padding is not None and padding[0] != padding[1])
        nodata = None
        if padding is not None and not masked:
            slope, intercept = next(iter(slopes))
            nodata = (float(np.array(padding[0] * slope + intercept).astype(dtype)),) * len(names)
        root = path if path.is_dir() else path.parent
        paddings = {header.path.name: header.padding for header in headers} if masked else {}
        source = DicomSource(
            root=root,
            planes=tuple(planes),
            pixels=first.pixels,
            order=PLAIN.get(first.syntax, ""),
            orientation=orientation,
            dtype=dtype.str,
            paddings=tuple(paddings.get(plane.file) for plane in planes) if masked else (),
        )
        return LazyImage(
            path=path,
            shape=(len(names), *size),
            dtype=dtype,
            bands=self.bands or names,
            spacing=spacing,
            affine=affine,
            chunks=chunks,
            source=source,
            nodata=nodata,
            units=(first.unit,) * len(names) if first.unit else None,
            flags=tuple(flags),
        )


@dataclass(frozen=True)
class Plane:
    """One plane of pixels: file name, number of the frame, where the file's pixels begin, and its scaling."""

    file: str
    frame: int
    offset: int
    slope: float
    intercept: float


@dataclass(frozen=True)
class DicomSource(Source):
    """Where the planes are, in the order of the stored axis k.

    Attributes:
        root: folder of the files.
        planes: along k.
        pixels: how they are stored.
        order: byte order of plain pixels, "" where they are compressed.
        orientation: from (i, j, k) to (Z, Y, X); None of a 2D image.
        dtype: numpy type string of what `read` returns.
        paddings: per plane, stored values that mean "no pixel", where no single value says it; else empty.
    """

    root: Path
    planes: tuple[Plane, ...]
    pixels: Pixels
    order: str
    orientation: Orientation | None
    dtype: str
    paddings: tuple[tuple[int, int] | None, ...]

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        """Read the planes that a window needs, and of plain ones only its rows."""
        columns, rows, slices = self._stored(window)
        if self.orientation is None:
            voxels = self._values(self.planes[0], rows, columns)  # (j, i, samples)
            return np.array(voxels.transpose(2, 0, 1)[list(bands)], dtype=self.dtype, order="C")
        shape = (slices.stop - slices.start, rows.stop - rows.start, columns.stop - columns.start)
        stack = np.empty(shape, dtype=self.dtype)
        for place, plane in enumerate(self.planes[slices]):
            stack[place] = self._values(plane, rows, columns)[..., 0]
        return np.array(self.orientation.turn(stack.transpose(2, 1, 0)), order="C")[None]

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        """Exclude padding that is a range, or that differs from slice to slice."""
        if not self.paddings:
            return None
        columns, rows, slices = self._stored(window)
        planes = []
        for plane, padding in zip(self.planes[slices], self.paddings[slices], strict=True):
            stored = self._plane(plane, rows, columns)[..., 0]
            low, high = padding or (1, 0)
            planes.append((stored < low) | (stored > high))
        if self.orientation is None:
            return np.array(planes[0])[None]
        return np.array(self.orientation.turn(np.stack(planes).transpose(2, 1, 0)), order="C")[None]

    def _stored(self, window: Window) -> tuple[slice, slice, slice]:
        if self.orientation is None:
            return window[1], window[0], slice(0, 1)
        return self.orientation.stored(window, (self.pixels.columns, self.pixels.rows, len(self.planes)))

    def _values(self, plane: Plane, rows: slice, columns: slice) -> np.ndarray:
        stored = self._plane(plane, rows, columns)
        if (plane.slope, plane.intercept) == (1.0, 0.0):
            return stored
        if np.dtype(self.dtype).kind != "f":
            return stored.astype(np.int64) + int(plane.intercept)
        return stored.astype(np.float64) * plane.slope + plane.intercept

    def _plane(self, plane: Plane, rows: slice, columns: slice) -> np.ndarray:
        """Stored values (rows, columns, samples), unused bits removed and the sign extended."""
        path = self.root / plane.file
        gray = self.pixels.samples == 1
        voxels = self._mapped(path, plane)[rows, columns] if self.order and gray else _decoded(path, plane, self.pixels)
        if not (self.order and gray):
            voxels = voxels[rows, columns]
        return _bits(voxels, self.pixels) if gray else voxels

    def _mapped(self, path: Path, plane: Plane) -> np.ndarray:
        shape = (self.pixels.rows, self.pixels.columns, 1)
        dtype = np.dtype(f"{self.order}u{self.pixels.allocated // 8}")
        offset = plane.offset + plane.frame * math.prod(shape) * dtype.itemsize
        try:
            return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
        except (OSError, ValueError):
            raise DamagedError(f"{path}: expected a whole slice, but it cannot be read; copy it again.") from None


def _decoded(path: Path, plane: Plane, pixels: Pixels) -> np.ndarray:
    from pydicom.pixels.utils import pixel_array

    try:
        found = pixel_array(path, index=plane.frame)
    except Exception:  # decoders raise what they like, with text of the file in it: that goes no further
        raise DamagedError(f"{path}: frame {plane.frame} cannot be decoded; copy or export it again.") from None
    voxels = found if found.ndim == 3 else found[..., None]
    if voxels.shape != (pixels.rows, pixels.columns, pixels.samples) or voxels.dtype.itemsize * 8 != pixels.allocated:
        raise DamagedError(
            f"{path}: expected {pixels.rows} x {pixels.columns} pixels of {pixels.allocated} bits by its header, decoded "
            f"{voxels.shape} {voxels.dtype}; copy or export it again."
        )
    return np.asarray(voxels)


def _bits(voxels: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Take the bits that carry the value out of their container, in native byte order."""
    size = pixels.allocated // 8
    kind = f"i{size}" if pixels.signed else f"u{size}"
    native = voxels.astype(np.dtype(voxels.dtype.str[1:]), copy=False).view(f"u{size}")
    if pixels.stored == pixels.allocated:
        return native.view(kind)
    up = pixels.allocated - 1 - pixels.high
    moved = (native << native.dtype.type(up)).view(kind)  # the highest bit of the value is now the sign's
    value: np.ndarray = moved >> moved.dtype.type(pixels.allocated - pixels.stored)
    return value


def _dtype(pixels: Pixels, slopes: set[tuple[float, float]]) -> np.dtype:
    """The smallest type that holds every value exactly if slopes are 1, the container's first; else float."""
    low = -(1 << (pixels.stored - 1)) if pixels.signed else 0
    high = (1 << (pixels.stored - pixels.signed)) - 1
    whole = pixels.samples == 3 or all(slope == 1 and intercept == int(intercept) for slope, intercept in slopes)
    if not whole:
        return np.dtype(np.float64 if pixels.stored > 16 else np.float32)
    low += int(min(intercept for _, intercept in slopes))
    high += int(max(intercept for _, intercept in slopes))
    container = f"{'i' if pixels.signed else 'u'}{pixels.allocated // 8}"
    for name in (container, "i2", "i4"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return np.dtype(name)
    return np.dtype(np.int64)


def _ignored(file: Path) -> bool:
    return file.name.startswith(".") or file.name == "DICOMDIR"


def _probes(folder: Path) -> list[Path]:
    """The files that would show whether a folder is a series: those with DICOM's endings or none first."""
    names = sorted(entry for entry in folder.iterdir() if not _ignored(entry))
    likely = [file for file in names if file.suffix.lower() in _SUFFIXES or not file.suffix[1:].isalpha()]
    return [file for file in likely[: 4 * _PROBES] if file.is_file()][:_PROBES]
