"""NIfTI: the reader's exam, orientation, scaling, and every header that must be refused."""

from __future__ import annotations

import gzip
import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.errors import DataError
from core.geometry import Spacing
from datasets.readers import open_image
from datasets.readers.nifti import Nifti
from datasets.testing.reader_contract import Case, ReaderContract

SPACING_XYZ = (0.5, 0.75, 2.0)


def voxels(shape: tuple[int, ...] = (9, 8, 7), dtype: type = np.int16) -> np.ndarray:
    """Distinct values on the stored axes (i, j, k)."""
    return (np.arange(np.prod(shape)).reshape(shape) * 3 % 251).astype(dtype)


def plain(path: Path, data: np.ndarray | None = None, affine: np.ndarray | None = None) -> Path:
    """Write a well-formed volume."""
    affine = np.diag([*SPACING_XYZ, 1.0]) if affine is None else affine
    image = nib.Nifti1Image(voxels() if data is None else data, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def patched(path: Path, offset: int, form: str, *values: float) -> Path:
    """Overwrite header fields of a written, uncompressed volume."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + form, data, offset, *values)
    path.write_bytes(data)
    return path


class TestNifti(ReaderContract):
    def reader(self) -> Nifti:
        return Nifti()

    def cases(self, folder: Path) -> list[Case]:
        spacing = Spacing(SPACING_XYZ[::-1], "mm")
        cases = []
        for number, (ending, dtype) in enumerate(
            [(".nii", np.int16), (".nii.gz", np.uint8), (".nii", np.float32), (".nii.gz", np.float64)]
        ):
            data = voxels(dtype=dtype)
            affine = np.diag([*SPACING_XYZ, 1.0])
            affine[:3, 3] = (3, -4, 5)
            path = plain(folder / f"v{number}{ending}", data, affine)
            expected = np.eye(4)
            expected[:3] = affine[:3][:, [2, 1, 0, 3]]
            cases.append(
                Case(
                    path=path,
                    image=np.ascontiguousarray(data.transpose(2, 1, 0))[None],
                    bands=("intensity",),
                    spacing=spacing,
                    affine=expected,
                    checked=ending == ".nii.gz",
                )
            )
        return cases

    def large(self, folder: Path) -> Path:
        return plain(folder / "large.nii", np.zeros((200, 200, 110), np.int16))


def test_all_48_orientations_give_identical_tensors(tmp_path: Path) -> None:
    data, affine = voxels(), np.diag([*SPACING_XYZ, 1.0])
    affine[:3, 3] = (10, 20, -5)
    whole = plain(tmp_path / "ras.nii", data, affine)
    reference = open_image(whole)
    window = (slice(1, 4), slice(2, 8), slice(3, 5))
    for axes, flips in itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)):
        turned = nib.orientations.apply_orientation(data, [[a, f] for a, f in zip(axes, flips, strict=True)])
        back = nib.orientations.inv_ornt_aff([[a, f] for a, f in zip(axes, flips, strict=True)], data.shape)
        ending = ".nii" if flips[0] == 1 else ".nii.gz"
        image = open_image(plain(tmp_path / f"turned{ending}", turned, affine @ back))
        assert image.shape == reference.shape
        assert image.spacing == reference.spacing
        assert image.affine is not None and reference.affine is not None
        np.testing.assert_allclose(image.affine.matrix, reference.affine.matrix, atol=1e-4)
        assert np.array_equal(image.read(), reference.read()), (axes, flips)
        assert np.array_equal(image.read(window), reference.read(window)), (axes, flips)


def test_oblique_affine_goes_to_the_nearest_axes(tmp_path: Path) -> None:
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(SPACING_XYZ) @ np.diag([-1, 1, 1])
    image = open_image(plain(tmp_path / "oblique.nii", voxels(), affine))
    assert image.spacing.values == pytest.approx(SPACING_XYZ[::-1], abs=1e-5)
    assert np.array_equal(image.read()[0], voxels()[::-1].transpose(2, 1, 0))


def test_whole_numbers_stay_unless_the_header_scales(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nii")
    assert open_image(path).dtype == np.int16
    for slope, intercept, dtype in ((0.0, 7.0, np.int16), (1.0, 0.0, np.int16), (2.0, -1000.0, np.float32)):
        patched(path, 112, "ff", slope, intercept)
        image = open_image(path)
        stored = voxels().transpose(2, 1, 0)
        expected = stored * slope + intercept if dtype == np.float32 else stored
        assert image.dtype == dtype
        assert np.array_equal(image.read()[0], expected)


def test_big_endian_and_nifti2_read(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    big = nib.Nifti1Image(voxels(), np.diag([*SPACING_XYZ, 1.0]), header)
    nib.save(big, tmp_path / "big.nii")
    nib.save(nib.Nifti2Image(voxels(), np.diag([*SPACING_XYZ, 1.0])), tmp_path / "two.nii.gz")
    for name in ("big.nii", "two.nii.gz"):
        image = open_image(tmp_path / name)
        assert image.dtype == np.dtype("=i2")
        assert np.array_equal(image.read()[0], voxels().transpose(2, 1, 0)), name


@pytest.mark.parametrize(("unit", "factor"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)])
def test_units_become_millimetres(unit: int, factor: float, tmp_path: Path) -> None:
    image = open_image(patched(plain(tmp_path / "a.nii"), 123, "b", unit))
    assert image.spacing.unit == "mm"
    assert image.spacing.values == pytest.approx([s * factor for s in SPACING_XYZ[::-1]])


def test_trailing_axes_of_one_are_no_fourth_dimension(tmp_path: Path) -> None:
    assert open_image(plain(tmp_path / "a.nii", voxels((5, 6, 7, 1)))).shape == (1, 7, 6, 5)


def test_window_of_a_plain_file_reads_only_its_planes(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nii", voxels((64, 64, 40)))
    image = open_image(path)
    assert image.windowed
    assert image.chunks == (1, 64, 64)
    whole = image.read()
    length = path.stat().st_size
    data = bytearray(path.read_bytes())
    data[352 + 20 * 64 * 64 * 2 :] = bytes(length - 352 - 20 * 64 * 64 * 2)
    path.write_bytes(data)  # what lies behind plane 20 is gone
    assert np.array_equal(image.read((slice(0, 20), slice(0, 64), slice(0, 64))), whole[:, :20])


def test_several_gzip_members_and_padding_are_one_stream(tmp_path: Path) -> None:
    data = plain(tmp_path / "a.nii").read_bytes()
    joined = b"".join(gzip.compress(data[i : i + 600]) for i in range(0, len(data), 600))
    (tmp_path / "b.nii.gz").write_bytes(joined + bytes(512))
    assert np.array_equal(open_image(tmp_path / "b.nii.gz").read(), open_image(tmp_path / "a.nii").read())
    (tmp_path / "c.nii.gz").write_bytes(joined[:-8])
    with pytest.raises(DataError, match=r"c\.nii\.gz: expected a whole"):
        open_image(tmp_path / "c.nii.gz").read()


def test_damaged_checksum_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(plain(tmp_path / "a.nii").read_bytes()))
    data[-8] ^= 1
    (tmp_path / "b.nii.gz").write_bytes(data)
    with pytest.raises(DataError, match=r"b\.nii\.gz: .*incorrect data check"):
        open_image(tmp_path / "b.nii.gz").read()


def _nan_sform(path: Path) -> None:
    patched(path, 280, "f", float("nan"))


def _singular(path: Path) -> None:
    patched(path, 252, "h", 0)
    patched(path, 280, "12f", 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1, 0)


def _disagree(path: Path) -> None:
    patched(path, 252, "hh", 1, 1)
    patched(path, 280, "f", -SPACING_XYZ[0])


def _both_unset(path: Path) -> None:
    patched(path, 252, "hh", 0, 0)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "nan_affine": (_nan_sform, r"expected a finite affine"),
    "singular_affine": (_singular, r"expected an invertible affine"),
    "forms_disagree": (_disagree, r"sform and qform disagree by up to .* mm"),
    "no_orientation": (_both_unset, r"orientation is unknown .*Nifti\(affine='spacing'\)"),
    "negative_dim": (lambda path: patched(path, 42, "h", -9), r"expected 1 to 7 positive dimensions"),
    "zero_dim": (lambda path: patched(path, 44, "h", 0), r"expected 1 to 7 positive dimensions"),
    "rank_9": (lambda path: patched(path, 40, "h", 9), r"positive dimensions|NIfTI header"),
    "four_d": (lambda path: plain(path, voxels((5, 4, 3, 2))), r"expected a 3D volume, got 4D \(5, 4, 3, 2\)"),
    "slope_nan": (lambda path: patched(path, 112, "f", float("nan")), r"expected finite scl_slope"),
    "slope_inf": (lambda path: patched(path, 112, "f", float("inf")), r"expected finite scl_slope"),
    "offset": (lambda path: patched(path, 108, "f", 12.0), r"expected voxels to begin at byte 352"),
    "complex": (lambda path: plain(path, voxels(dtype=np.complex64)), r"expected whole or real numbers"),
    "unknown_type": (lambda path: patched(path, 70, "h", 77), r"NIfTI header, but it is damaged"),
    "huge": (lambda path: patched(path, 42, "3h", 30000, 30000, 30000), r"the budget is 4\.0 GiB"),
    "larger_than_file": (lambda path: patched(path, 42, "h", 300), r"truncated or its header is damaged"),
    "unit": (lambda path: patched(path, 123, "b", 6), r"expected units of m, mm or micron"),
    "magic": (lambda path: patched(path, 344, "4s", b"ni1\0"), r"none of these|one file"),
}


@pytest.mark.parametrize("fault", sorted(REFUSED))
@pytest.mark.parametrize("zipped", [False, True])
def test_untrustworthy_header_is_refused_when_opened(fault: str, zipped: bool, tmp_path: Path) -> None:
    path = plain(tmp_path / f"{fault}.nii")
    patched(path, 252, "h", 0)  # sform only, unless the fault says otherwise
    damage, message = REFUSED[fault]
    damage(path)
    if zipped:
        if fault == "larger_than_file":
            patched(path, 42, "3h", 3000, 3000, 200)
        (tmp_path / f"{fault}.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / f"{fault}.nii.gz"
    with pytest.raises(DataError, match=message) as caught:
        open_image(path)
    assert path.name in str(caught.value)


def test_header_that_promises_more_than_the_stream_holds(tmp_path: Path) -> None:
    path = patched(plain(tmp_path / "a.nii"), 42, "h", 40)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"b\.nii\.gz: .* truncated after 1360 of 4832 bytes"):
        open_image(tmp_path / "b.nii.gz").read()


def test_gzip_bomb_is_stopped_at_the_declared_size(tmp_path: Path) -> None:
    data = plain(tmp_path / "a.nii").read_bytes() + bytes(64 << 20)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(data, 1))
    with pytest.raises(DataError, match=r"bomb\.nii\.gz: .* holds more than the 1360 bytes"):
        open_image(tmp_path / "bomb.nii.gz").read()


def test_policies_choose_where_the_default_refuses(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nii")
    _disagree(path)
    left = open_image(path, Nifti(affine="sform")).read()
    right = open_image(path, Nifti(affine="qform")).read()
    assert np.array_equal(left, right[..., ::-1])
    _both_unset(path)
    image = open_image(path, Nifti(affine="spacing"))
    assert image.spacing.values == pytest.approx(SPACING_XYZ[::-1])
    assert np.array_equal(image.read(), right)
    with pytest.raises(DataError, match=r"a\.nii: Nifti\(affine='qform'\) was asked for"):
        open_image(path, Nifti(affine="qform"))


def test_rounding_between_the_forms_is_no_disagreement(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nii")
    patched(path, 252, "hh", 1, 1)
    patched(path, 280, "f", SPACING_XYZ[0] + 1e-6)
    assert open_image(path).shape == (1, 7, 8, 9)


def test_real_volumes_equal_what_nibabel_reads(shared: Path) -> None:
    for name in ("msd_hippocampus/images/hippocampus_001.nii.gz", "totalseg_examples/example_mr_sm.nii.gz"):
        path = shared / "data/volume3d" / name
        expected = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj).transpose(2, 1, 0)
        assert np.array_equal(open_image(path).read()[0], expected)
