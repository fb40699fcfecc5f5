"""NIfTI volumes: damaged, contradictory, hostile, unusual."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from core.errors import BudgetError, DamagedError, GeometryError, UnsupportedError
from datasets.image import LazyImage
from tests.corpus.kind import Accept, Kind, Refuse

Rng = np.random.Generator
Make = Callable[[Path, Rng], Path]

SIZES = (0.5, 0.75, 2.0)


def kinds() -> list[Kind]:
    """36 of them: the 30 of the programme, those with two or three faces (dim[0] 0 and 8) counted apart."""
    return [
        Kind("gz_ends_in_header", _cut(lambda rng, n: int(rng.integers(30, 200))), Refuse(DamagedError, "within the")),
        Kind("gz_ends_in_middle", _cut(lambda rng, n: int(n * rng.uniform(0.3, 0.9))), Refuse(DamagedError, "truncat")),
        Kind(
            "gz_lacks_last_bytes", _cut(lambda rng, n: n - int(rng.integers(1, 9))), Refuse(DamagedError, "truncated")
        ),
        Kind("gz_bit_flipped", _gz_flip, Refuse(DamagedError, "is damaged")),
        Kind("gz_checksum_wrong", _gz_checksum, Refuse(DamagedError, "checksum")),
        Kind("gz_bomb", _bomb, Refuse(BudgetError, "holds more than")),
        Kind("plain_truncated", _plain_cut, Refuse(DamagedError, "truncated")),
        Kind("magic_wrong", _patch(344, "4s", b"n+9\0"), Refuse(DamagedError, "magic")),
        Kind("header_of_a_pair", _patch(344, "4s", b"ni1\0"), Refuse(UnsupportedError, (".hdr/.img", "convert"))),
        Kind("rank_0", _patch(40, "h", 0), Refuse(DamagedError, "1 to 7 positive dimensions")),
        Kind("rank_8", _patch(40, "h", 8), Refuse(DamagedError, "1 to 7 positive dimensions")),
        Kind("dim_huge", _patch(42, "3h", 30000, 30000, 30000), Refuse(BudgetError, "the budget is 4.0 GiB")),
        Kind("dim_negative", _patch(44, "h", -8), Refuse(DamagedError, "positive dimensions")),
        Kind("dim_zero", _patch(46, "h", 0), Refuse(DamagedError, "positive dimensions")),
        Kind("type_unknown", _patch(70, "h", 77), Refuse(DamagedError, "NIfTI header, but it is damaged")),
        Kind("type_complex", _written(_complex), Refuse(UnsupportedError, ("complex", "magnitude"))),
        Kind("type_rgb", _written(_rgb), Refuse(UnsupportedError, ("RGB", "three volumes"))),
        Kind("affine_nan", _patch(280, "f", float("nan"), sform=True), Refuse(GeometryError, "finite affine")),
        Kind(
            "affine_singular",
            _patch(280, "12f", 1, 0, 0, 0, 2, *[0] * 7, sform=True),
            Refuse(GeometryError, "invertible"),
        ),
        Kind(
            "sform_is_not_qform", _forms_disagree, Refuse(GeometryError, ("disagree", "--options nifti.affine=sform"))
        ),
        Kind("no_form_set", _patch(252, "hh", 0, 0), Refuse(GeometryError, "orientation is unknown")),
        Kind("slope_nan", _patch(112, "f", float("nan")), Refuse(DamagedError, "finite scl_slope")),
        Kind("slope_infinite", _patch(112, "f", float("inf")), Refuse(DamagedError, "finite scl_slope")),
        Kind("slope_0_is_unscaled", _patch(112, "2f", 0, 7), Accept(check=_is_unscaled)),
        Kind("offset_in_header", _patch(108, "f", 12), Refuse(DamagedError, "voxels to begin at byte 352")),
        Kind("big_endian", _big_endian, Accept(check=_is_unscaled)),
        Kind("four_axes", _written(_four_axes), Refuse(UnsupportedError, ("got 4D", "fourth_axis"))),
        Kind("voxel_size_0", _patch(80, "f", 0, qform=True), Refuse(GeometryError, "invertible")),
        Kind("voxel_size_negative", _patch(84, "f", -0.75, qform=True), Refuse(GeometryError, "qform is damaged")),
        Kind("voxel_size_is_not_the_affines", _patch(80, "f", 0, sform=True), Accept("voxel_sizes", _is_unscaled)),
        Kind("nan_voxels", _written(_with(float("nan"))), Accept(check=_is_partly_valid)),
        Kind("infinite_voxels", _written(_with(float("inf"))), Accept(check=_is_partly_valid)),
        Kind("constant", _written(lambda rng: np.full(_shape(rng), 7, np.int16)), Accept(check=_holds_only(7))),
        Kind("all_zero", _written(lambda rng: np.zeros(_shape(rng), np.uint8)), Accept(check=_holds_only(0))),
        Kind("patient_in_header", _patch(148, "12s", b"Doe^Jane 47 "), Accept("header_text", _is_silent)),
        Kind("patient_in_extension", _extension, Accept("header_text", _is_silent)),
        Kind("flat_voxels", _flat, Accept("anisotropic")),
        Kind("huge_values", _written(_huge), Accept(check=_is_huge)),
    ]


def _shape(rng: Rng) -> tuple[int, ...]:
    return tuple(int(n) for n in rng.integers(6, 14, 3))


def _numbers(rng: Rng) -> np.ndarray:
    return rng.integers(-1000, 1000, _shape(rng)).astype(np.int16)


def _save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    affine = np.diag([*SIZES, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def _written(data: Callable[[Rng], np.ndarray]) -> Make:
    """Write these voxels, plain or in gzip as the generator throws."""

    def make(folder: Path, rng: Rng) -> Path:
        return _save(folder / ("volume.nii.gz" if rng.random() < 0.5 else "volume.nii"), data(rng))

    return make


def _patch(place: int, form: str, *values: object, sform: bool = False, qform: bool = False) -> Make:
    """Write a volume whose header is overwritten there; only that form is set where one is named."""

    def make(folder: Path, rng: Rng) -> Path:
        path = _save(folder / "volume.nii", _numbers(rng))
        data = bytearray(path.read_bytes())
        if sform or qform:
            struct.pack_into("<hh", data, 252, int(qform), int(sform))
        struct.pack_into("<" + form, data, place, *values)
        if rng.random() < 0.5 and form != "3h":  # a stream of that size is refused as a lie before it is over budget
            path = folder / "volume.nii.gz"
            path.write_bytes(gzip.compress(bytes(data), mtime=0))
        else:
            path.write_bytes(data)
        return path

    return make


def _cut(length: Callable[[Rng, int], int]) -> Make:
    def make(folder: Path, rng: Rng) -> Path:
        path = _save(folder / "volume.nii.gz", _numbers(rng))
        data = path.read_bytes()
        path.write_bytes(data[: length(rng, len(data))])
        return path

    return make


def _plain_cut(folder: Path, rng: Rng) -> Path:
    path = _save(folder / "volume.nii", _numbers(rng))
    data = path.read_bytes()
    path.write_bytes(data[: int(rng.integers(360, len(data)))])
    return path


def _gz_flip(folder: Path, rng: Rng) -> Path:
    path = _save(folder / "volume.nii.gz", rng.integers(-1000, 1000, (30, 30, 30)).astype(np.int16))
    data = bytearray(path.read_bytes())
    data[int(rng.integers(400, len(data) - 16))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


def _gz_checksum(folder: Path, rng: Rng) -> Path:
    path = _save(folder / "volume.nii.gz", _numbers(rng))
    data = bytearray(path.read_bytes())
    data[-8 + int(rng.integers(4))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


def _bomb(folder: Path, rng: Rng) -> Path:
    """A volume of a megabyte that inflates to 1 GiB: reading must stop long before (the memory guard watches)."""
    pack = zlib.compressobj(9, wbits=31)
    head = pack.compress(_save(folder / "volume.nii", _numbers(rng)).read_bytes()) + pack.flush(zlib.Z_FULL_FLUSH)
    zeros = pack.compress(bytes(1 << 24)) + pack.flush(zlib.Z_FULL_FLUSH)  # complete in itself: it may stand 64 times
    path = folder / "volume.nii.gz"
    path.write_bytes(head + zeros * 64)
    return path


def _complex(rng: Rng) -> np.ndarray:
    return (_numbers(rng) + 1j).astype(np.complex64)


def _rgb(rng: Rng) -> np.ndarray:
    return np.zeros(_shape(rng), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])


def _four_axes(rng: Rng) -> np.ndarray:
    return rng.integers(0, 99, (*_shape(rng), int(rng.integers(2, 5)))).astype(np.int16)


def _with(value: float) -> Callable[[Rng], np.ndarray]:
    def data(rng: Rng) -> np.ndarray:
        voxels = rng.normal(size=_shape(rng)).astype(np.float32)
        voxels[:2] = value
        return voxels

    return data


def _huge(rng: Rng) -> np.ndarray:
    return rng.normal(size=_shape(rng)) * 1e300


def _forms_disagree(folder: Path, rng: Rng) -> Path:
    """The same volume, said to be RAS by one form and mirrored by the other."""
    image = nib.Nifti1Image(_numbers(rng), np.diag([*SIZES, 1.0]))
    mirrored = np.diag([-SIZES[0], *SIZES[1:], 1.0])
    image.set_sform(mirrored, 1)
    image.set_qform(np.diag([*SIZES, 1.0]), 1)
    nib.save(image, folder / "volume.nii.gz")
    return folder / "volume.nii.gz"


def _big_endian(folder: Path, rng: Rng) -> Path:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(_numbers(rng), np.diag([*SIZES, 1.0]), header), folder / "volume.nii")
    return folder / "volume.nii"


def _extension(folder: Path, rng: Rng) -> Path:
    image = nib.Nifti1Image(_numbers(rng), np.diag([*SIZES, 1.0]))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Doe^Jane 47"))
    path = folder / ("volume.nii.gz" if rng.random() < 0.5 else "volume.nii")
    nib.save(image, path)
    return path


def _flat(folder: Path, rng: Rng) -> Path:
    sizes = [0.5, 0.5, 0.5]
    sizes[int(rng.integers(3))] *= float(rng.uniform(20.5, 40))
    return _save(folder / "volume.nii", _numbers(rng), np.diag([*sizes, 1.0]))


def _is_unscaled(image: LazyImage) -> None:
    stored = np.asarray(nib.load(image.path).dataobj.get_unscaled())
    assert image.dtype == np.int16
    assert np.array_equal(image.read()[0], stored.transpose(2, 1, 0))
    assert np.allclose(image.spacing.values, SIZES[::-1])


def _is_partly_valid(image: LazyImage) -> None:
    _, valid = image.read_valid()
    assert not valid[0, :, :, :2].any() and valid[0, :, :, 2:].all()


def _holds_only(value: int) -> Callable[[LazyImage], None]:
    def check(image: LazyImage) -> None:
        voxels, valid = image.read_valid()
        assert (voxels == value).all() and valid.all()

    return check


def _is_silent(image: LazyImage) -> None:
    assert "Jane" not in repr(image)


def _is_huge(image: LazyImage) -> None:
    voxels, valid = image.read_valid()
    assert voxels.dtype == np.float64 and valid.all() and abs(voxels).max() > 1e300
