"""DICOM written in code, and the eight kinds of it that must be refused, repaired or flagged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DamagedError, GeometryError, UnsafeError, UnsupportedError
from datasets.image import LazyImage
from tests.corpus.kind import Accept, Kind, Refuse

CT, MR, PET, CR, US, ENHANCED_CT = (f"1.2.840.10008.5.1.4.1.1.{tail}" for tail in ("2", "4", "128", "1", "6.1", "2.1"))
EXPLICIT, IMPLICIT, BIG, RLE = (f"1.2.840.10008.1.2{tail}" for tail in (".1", "", ".2", ".5"))
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
AXIAL = (1, 0, 0, 0, 1, 0)
NAMES = ("Quixwell", "Zebrandt", "Ovidalgo", "Thrumble")


def dataset(pixels: np.ndarray, **elements: Any) -> Any:
    """A data set of pixels ([frames,] rows, columns[, 3]) whose elements, by keyword, may be set or, as None, removed."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    syntax = UID(elements.pop("syntax", EXPLICIT))
    colour = pixels.shape[-1] == 3
    data.SOPClassUID, data.SOPInstanceUID = elements.pop("SOPClassUID", CT), generate_uid(entropy_srcs=[repr(elements)])
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = EXPLICIT if syntax == RLE else syntax
    data.Modality, data.SeriesInstanceUID = "CT", "1.2.3.4"
    data.Rows, data.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        data.PlanarConfiguration = 0
    if pixels.ndim - colour == 3:
        data.NumberOfFrames = len(pixels)
    bits = pixels.dtype.itemsize * 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    data.PixelData = stored + b"\0" * (len(stored) % 2)
    data["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in elements.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    if syntax == RLE:
        data.compress(RLE)
    return data


def save(data: Any, path: Path) -> Path:
    """Write a data set with its preamble."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def series(
    folder: Path,
    voxels: np.ndarray,
    *,
    orientation: tuple[float, ...] = AXIAL,
    origin: tuple[float, float, float] = (-10.0, -20.0, 30.0),
    gap: float = 2.5,
    skip: tuple[int, ...] = (),
    change: Callable[[int, dict[str, Any]], None] | None = None,
    name: Callable[[int], str] = lambda number: f"s{(number * 7) % 101:03d}.dcm",
    **elements: Any,
) -> Path:
    """Write (slices, rows, columns) as one file per slice along the normal; names are in another order than positions."""
    normal = np.cross(orientation[:3], orientation[3:])
    for number, plane in enumerate(voxels):
        if number in skip:
            continue
        own: dict[str, Any] = {
            "ImageOrientationPatient": [float(v) for v in orientation],
            "ImagePositionPatient": [float(v) for v in np.asarray(origin) + number * gap * normal],
            "PixelSpacing": [0.75, 0.5],
            "SliceThickness": gap,
            **elements,
        }
        if change is not None:
            change(number, own)
        save(dataset(plane, **own), folder / name(number))
    return folder


def noise(rng: np.random.Generator, shape: tuple[int, ...] = (6, 9, 8)) -> np.ndarray:
    """Whole numbers of 12 bits in 16."""
    return rng.integers(0, 4096, shape).astype(np.uint16)


def _no_pixels(folder: Path, rng: np.random.Generator) -> Path:
    return save(dataset(noise(rng, (9, 8)), PixelData=None), folder / "scan.dcm")


def _syntax(folder: Path, rng: np.random.Generator) -> Path:
    from pydicom.encaps import encapsulate

    data = dataset(noise(rng, (9, 8)), syntax=JPEG_LOSSLESS)
    data.PixelData = encapsulate([rng.bytes(100)])
    data["PixelData"].is_undefined_length = True
    return save(data, folder / "scan.dcm")


def _missing_slice(folder: Path, rng: np.random.Generator) -> Path:
    return series(folder / "scan", noise(rng, (8, 9, 8)), skip=(int(rng.integers(1, 7)),))


def _uneven(folder: Path, rng: np.random.Generator) -> Path:
    moved, by = int(rng.integers(1, 5)), float(rng.uniform(0.05, 0.4))

    def change(number: int, elements: dict[str, Any]) -> None:
        if number == moved:
            elements["ImagePositionPatient"][2] += by

    return series(folder / "scan", noise(rng), change=change)


def _wrong_length(folder: Path, rng: np.random.Generator) -> Path:
    data = dataset(noise(rng, (9, 8)))
    data.PixelData = data.PixelData[: -2 * int(rng.integers(1, 60))]
    return save(data, folder / "scan.dcm")


def _private(folder: Path, rng: np.random.Generator) -> Path:
    data = dataset(noise(rng, (9, 8)), PixelSpacing=[0.5, 0.5])
    name = str(rng.choice(NAMES))
    data.PatientName, data.PatientID = f"{name}^Private", f"{name}-77"
    block = data.private_block(0x0011, f"{name} Creator", create=True)
    block.add_new(0x01, "LO", f"{name} private text")
    block.add_new(0x02, "UN", f"{name} as bytes".encode())
    return save(data, folder / "scan.dcm")


def _tells_nothing(image: LazyImage) -> None:
    assert not any(name in repr(image) for name in NAMES)


def _burned_in(folder: Path, rng: np.random.Generator) -> Path:
    return save(dataset(noise(rng, (9, 8)), BurnedInAnnotation="YES"), folder / "scan.dcm")


def _mixed(folder: Path, rng: np.random.Generator) -> Path:
    series(folder / "scan", noise(rng))
    count = int(rng.integers(1, 5))
    return series(folder / "scan", noise(rng)[:count], name=lambda n: f"t{n}.dcm", SeriesInstanceUID="1.2.3.5")


def kinds() -> list[Kind]:
    """The DICOM kinds of the corpus."""
    return [
        Kind("no_pixels", _no_pixels, Refuse(DamagedError, "holds no pixels")),
        Kind("unsupported_syntax", _syntax, Refuse(UnsupportedError, ("JPEG Lossless", "pylibjpeg"))),
        Kind("missing_slice", _missing_slice, Refuse(GeometryError, ("a slice is missing", "5 mm between"))),
        Kind("uneven_spacing", _uneven, Refuse(GeometryError, ("distances differ", ".dcm and s"))),
        Kind("uneven_spacing_accepted", _uneven, Accept("uneven_spacing"), options=("dicom.uneven=accept",)),
        Kind("wrong_length", _wrong_length, Refuse(DamagedError, "144 bytes of pixels")),
        Kind("private_tag_text", _private, Accept(None, _tells_nothing)),
        Kind("burned_in", _burned_in, Refuse(UnsafeError, "burned into its pixels")),
        Kind("burned_in_accepted", _burned_in, Accept("burned_in"), options=("dicom.burned_in=accept",)),
        Kind("mixed_series", _mixed, Refuse(UnsupportedError, ("2 mixed series", "6 files such as"))),
        Kind("mixed_series_largest", _mixed, Accept("other_series"), options=("dicom.series=largest",)),
    ]
