"""Tiny valid files, by which the examples of the catalogue imitate published layouts. Content is a function of the path."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def _rng(path: Path) -> np.random.Generator:
    """Different files differ, whatever folder the example lies in."""
    return np.random.Generator(np.random.Philox(key=zlib.crc32("/".join(path.parts[-3:]).encode())))


def _made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def text(path: Path, content: str) -> None:
    """Write text."""
    _made(path).write_text(content, encoding="utf-8")


def table(path: Path, header: Sequence[str], *rows: Sequence[object], delimiter: str = ",") -> None:
    """Write a table."""
    with _made(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def photograph(path: Path, *, size: int = 16, comment: bytes = b"", gray: bool = False) -> None:
    """Write a JPEG, PNG or TIFF picture; a comment goes into the JPEG header."""
    from PIL import Image

    shape = (size, size) if gray else (size, size, 3)
    image = Image.fromarray(_rng(path).integers(0, 256, shape, dtype=np.uint8))
    options: dict[str, Any] = {"comment": comment} if comment else {}
    image.save(_made(path), **options)


def mask(path: Path, *, size: int = 16) -> None:
    """Write a label picture of zeros and ones."""
    from PIL import Image

    Image.fromarray(_rng(path).integers(0, 2, (size, size), dtype=np.uint8)).save(_made(path))


def volume(path: Path, *, channels: int = 0, label: bool = False) -> None:
    """Write a NIfTI volume of 6 x 6 x 4 voxels; with `channels` a fourth axis."""
    import nibabel as nib

    shape = (6, 6, 4, channels) if channels else (6, 6, 4)
    high, kind = (3, np.uint8) if label else (1000, np.int16)
    nib.save(
        nib.Nifti1Image(_rng(path).integers(0, high, shape).astype(kind), np.diag([0.8, 0.8, 2.5, 1.0])), _made(path)
    )


def scene(path: Path, *, bands: int = 1, size: int = 16, dtype: str = "uint16", resolution: float = 10.0) -> None:
    """Write a GeoTIFF in UTM."""
    import rasterio
    from rasterio import Affine

    values = _rng(path).integers(1, 200, (bands, size, size)).astype(dtype)
    place = Affine(resolution, 0.0, 5e5, 0.0, -resolution, 5e6)
    options: dict[str, Any] = {"count": bands, "width": size, "height": size, "dtype": dtype, "crs": "EPSG:32633"}
    with rasterio.open(_made(path), "w", driver="GTiff", transform=place, **options) as file:
        file.write(values)


def slide(path: Path) -> None:
    """Write a plain tiled pyramid of two levels, as many scanners' files are converted to."""
    import tifffile

    pixels = _rng(path).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    with tifffile.TiffWriter(_made(path)) as file:
        for level in (pixels, pixels[::2, ::2]):
            file.write(level, tile=(64, 64), photometric="rgb", subfiletype=int(level is not pixels), metadata=None)


def series(folder: Path, *, slices: int, modality: str = "CT") -> None:
    """Write a DICOM series of 8 x 8 pixels, or with one slice a radiograph."""
    for number in range(slices):
        dicom(folder / f"{slices - number:03d}.dcm", modality=modality, number=number, series=folder.name)


def dicom(path: Path, *, modality: str = "DX", number: int = 0, series: str = "1") -> None:
    """Write one DICOM image."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset

    kinds = {"CT": "1.2.840.10008.5.1.4.1.1.2", "DX": "1.2.840.10008.5.1.4.1.1.1.1", "CR": "1.2.840.10008.5.1.4.1.1.1"}
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(kinds[modality])
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"1.2.3.{zlib.crc32(str(path).encode())}")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.SeriesInstanceUID = f"1.2.4.{zlib.crc32(series.encode())}"
    image.StudyInstanceUID, image.FrameOfReferenceUID, image.Modality = "1.2.5", "1.2.6", modality
    image.Rows = image.Columns = 8
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    if modality == "CT":
        image.PixelSpacing, image.SliceThickness = [0.7, 0.7], 2.5
        image.ImageOrientationPatient, image.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.5 * number]
        image.InstanceNumber, image.RescaleSlope, image.RescaleIntercept = number + 1, 1, -1024
    image.PixelData = _rng(path).integers(0, 4000, (8, 8)).astype("<u2").tobytes()
    image.save_as(_made(path), enforce_file_format=True)
