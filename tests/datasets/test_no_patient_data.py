"""200 made-up patients are written into every place of a file that holds text: none of them may come out again.

Looked at: what is shown and pickled of an image, flags, labelled arrays, error texts, manifests, and written files.
"""

from __future__ import annotations

import gzip
import pickle
import re
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from core.errors import HalfseenError
from datasets.index import build_manifest
from datasets.readers import open_image
from datasets.writers import write_image

PATIENTS = 200

Plant = Callable[[Path, str, np.random.Generator], Path]


def volume(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 999, (6, 7, 8)).astype(np.int16)


def in_field(offset: int) -> Plant:
    """In a text field of a NIfTI header; in gzip or not as the generator throws."""

    def plant(path: Path, patient: str, rng: np.random.Generator) -> Path:
        path = path.with_suffix(".nii")
        nib.save(nib.Nifti1Image(volume(rng), np.eye(4)), path)
        data = bytearray(path.read_bytes())
        struct.pack_into("9s", data, offset, patient.encode())
        path.write_bytes(data)
        return zipped(path, data) if rng.random() < 0.5 else path

    return plant


def zipped(path: Path, data: bytes, name: str = "", comment: str = "") -> Path:
    """Replace a volume by its gzip, whose header holds a name and a comment."""
    path.unlink(missing_ok=True)
    packed = gzip.compress(data, mtime=0)
    flags = 8 * bool(name) | 16 * bool(comment)
    texts = b"".join(text.encode() + b"\0" for text in (name, comment) if text)
    path = path.with_suffix(".nii.gz")
    path.write_bytes(packed[:3] + bytes([flags]) + packed[4:10] + texts + packed[10:])
    return path


def in_extension(path: Path, patient: str, rng: np.random.Generator) -> Path:
    image = nib.Nifti1Image(volume(rng), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", f"<patient>{patient}</patient>".encode()))
    path = path.with_suffix(".nii.gz" if rng.random() < 0.5 else ".nii")
    nib.save(image, path)
    return path


def in_gzip(path: Path, patient: str, rng: np.random.Generator) -> Path:
    data = nib.Nifti1Image(volume(rng), np.eye(4)).to_bytes()
    named = {"name": f"{patient}.nii"} if rng.random() < 0.5 else {"comment": patient}
    return zipped(path, data, **named)


def in_tags(*tags: str) -> Plant:
    """In tags of a GeoTIFF that GDAL gives out as metadata."""

    def plant(path: Path, patient: str, rng: np.random.Generator) -> Path:
        import rasterio
        from rasterio.transform import Affine

        path = path.with_suffix(".tif")
        facts = {"driver": "GTiff", "count": 2, "height": 9, "width": 8, "dtype": "uint16", "crs": "EPSG:32615"}
        with rasterio.open(path, "w", **facts, transform=Affine(10, 0, 5e5, 0, -10, 4e6)) as file:
            file.write(rng.integers(0, 999, (2, 9, 8)).astype(np.uint16))
            file.descriptions = ("red", "nir")
            file.update_tags(**dict.fromkeys(tags, patient))
            file.update_tags(1, **{key: f"band of {patient}" for key in tags if not key.startswith("TIFFTAG")})
        return path

    return plant


def in_picture(path: Path, patient: str, rng: np.random.Generator) -> Path:
    """In a PNG's text, a JPEG's comment or either's EXIF."""
    pixels, exif = Image.fromarray(rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)), Image.Exif()
    exif[0x010E] = exif[0x013B] = patient  # description, artist
    if rng.random() < 0.5:
        info = PngInfo()
        info.add_text("Patient", patient)
        pixels.save(path.with_suffix(".png"), pnginfo=info, exif=exif)
        return path.with_suffix(".png")
    pixels.save(path.with_suffix(".jpg"), comment=patient.encode(), exif=exif)
    return path.with_suffix(".jpg")


PLACES: dict[str, Plant] = {
    "data_type": in_field(4),
    "db_name": in_field(14),
    "descrip": in_field(148),
    "aux_file": in_field(228),
    "intent_name": in_field(328),
    "extension": in_extension,
    "gzip": in_gzip,
    "tiff": in_tags("TIFFTAG_IMAGEDESCRIPTION", "TIFFTAG_ARTIST", "TIFFTAG_DOCUMENTNAME"),
    "gdal": in_tags("PatientName", "STATION", "TIFFTAG_SOFTWARE"),
    "picture": in_picture,
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the file of each patient."""
    rng = np.random.Generator(np.random.Philox(key=200))
    folder = tmp_path_factory.mktemp("planted")
    letters = rng.choice(list("BCDFGHJKLMNPQRSTVWXZ"), (PATIENTS, 5))
    files = {}
    for number, row in enumerate(letters):
        place = list(PLACES)[number % len(PLACES)]
        patient = f"{''.join(row)}^{number:03d}"
        files[patient] = PLACES[place](folder / f"{place}_{number}", patient, rng)
    assert len(files) == PATIENTS
    return files


def found(patients: Iterable[str], *texts: str | bytes) -> list[str]:
    """Patients who stand in one of the texts, also as wide characters."""
    blob = b"\n".join(text.encode() if isinstance(text, str) else text for text in texts)
    return [one for one in patients if one.encode() in blob or one.encode("utf-16-le") in blob]


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return data + gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def test_every_patient_stands_in_the_file_that_was_planted(planted: dict[str, Path]) -> None:
    assert [one for one, path in planted.items() if not found([one], content(path))] == []


def test_what_is_known_of_an_image_names_nobody(planted: dict[str, Path]) -> None:
    texts: list[str | bytes] = []
    flagged = 0
    for path in planted.values():
        image = open_image(path)
        image.read_valid()
        labelled = image.xarray()
        texts += [
            repr(image),
            str(image),
            pickle.dumps(image),
            repr(labelled),
            repr(labelled.attrs),
            repr(image.dask()),
        ]
        flagged += "header_text" in [flag.code for flag in image.flags]
    assert found(planted, *texts) == []
    assert flagged >= PATIENTS * 7 // 10, "whoever owns a volume must hear that text stands in it"


def test_no_error_names_anybody(planted: dict[str, Path], tmp_path: Path) -> None:
    messages = []
    for path in planted.values():
        data = path.read_bytes()
        for share in (0.1, 0.5, 0.9):
            messages.append(said_of(tmp_path / path.name, data[: int(share * len(data))]))
        for place in (40, 70, 108, 120, 344):
            messages.append(said_of(tmp_path / path.name, damaged(data, place)))
    said = [message for message in messages if message]
    assert len(said) > 5 * PATIENTS
    assert found(planted, *said) == []


def damaged(data: bytes, place: int) -> bytes:
    """Overwrite four bytes, of the content where it is in gzip."""
    packed = data.startswith(b"\x1f\x8b")
    whole = bytearray(gzip.decompress(data) if packed else data)
    whole[place : place + 4] = b"\xfe\xff\xfe\x7f"
    return gzip.compress(bytes(whole)) if packed else bytes(whole)


def said_of(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    try:
        open_image(path).read()
    except HalfseenError as error:
        return f"{type(error).__name__}: {error} {error.__cause__} {error.__notes__ if hasattr(error, '__notes__') else ''}"
    return ""


def test_manifest_names_nobody(planted: dict[str, Path], tmp_path: Path) -> None:
    folder = next(iter(planted.values())).parent
    manifest = build_manifest([folder])
    assert len(manifest) == PATIENTS
    manifest.write(tmp_path / "manifest.parquet")
    table = manifest.table
    text = repr(table.schema) + repr(table.schema.metadata) + repr(table.to_pylist())
    assert found(planted, text, (tmp_path / "manifest.parquet").read_bytes()) == []


@pytest.mark.slow
def test_written_files_name_nobody(planted: dict[str, Path], tmp_path: Path) -> None:
    written = []
    for number, path in enumerate(planted.values()):
        image = open_image(path)
        for ending in (".nii", ".nii.gz", ".zarr") if image.ndim == 3 else (".tif", ".zarr"):
            if ending == ".zarr" and number % 7:
                continue  # a store costs 30 times as much as a file
            whole = tuple(slice(0, n) for n in image.size)
            written.append(write_image(tmp_path / f"{number}{ending}", image, [(whole, image.read())]))
    files = [
        file for path in written for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()
    ]
    assert len(files) > 2 * PATIENTS
    assert found(planted, *(content(file) for file in files)) == []
    assert is_same_picture(written, planted)


def is_same_picture(written: list[Path], planted: dict[str, Path]) -> bool:
    """What was written is what was planted, text apart: the search above looked at real outputs."""
    sources = list(planted.values())
    return all(
        np.array_equal(open_image(path).read(), open_image(sources[int(re.match(r"\d+", path.name)[0])]).read())  # type: ignore[index]
        for path in written
    )
