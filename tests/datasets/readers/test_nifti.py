"""NIfTI: the reader's exam, orientation, scaling, and every header that must be refused."""

from __future__ import annotations

import gzip
import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.errors import BandError, BudgetError, DamagedError, DataError, GeometryError, UnsupportedError
from core.geometry import Spacing
from datasets.readers import _gzip, open_image
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


def patched(path: Path, offset: int, form: str, *values: object) -> Path:
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


@pytest.mark.parametrize("case", ["plain", "scaled", "big_endian", "flipped", "odd_offset", "window"])
def test_stream_gives_what_the_plain_file_gives(case: str, tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nii", affine=np.diag([-0.5, 0.75, 2.0, 1.0]) if case == "flipped" else None)
    window = None
    if case == "scaled":
        patched(path, 112, "ff", 0.5, 3.0)
    elif case == "big_endian":
        header = nib.Nifti1Header(endianness=">")
        header.set_data_dtype(np.int16)
        nib.save(nib.Nifti1Image(voxels(), np.diag([*SPACING_XYZ, 1.0]), header), path)
    elif case == "odd_offset":
        data = patched(path, 108, "f", 353).read_bytes()
        path.write_bytes(data[:352] + b"\0" + data[352:])
    elif case == "window":
        window = (slice(1, 3), slice(0, 8), slice(0, 9))  # contiguous in the stream: still no view of all of it
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    expected, got = (open_image(tmp_path / name).read(window) for name in ("a.nii", "a.nii.gz"))
    assert got.dtype == expected.dtype == open_image(path).dtype and got.dtype.isnative
    assert got.flags.c_contiguous and got.flags.aligned and got.flags.writeable
    assert np.array_equal(got, expected) and expected.std() > 0
    owner = got
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    assert owner.nbytes <= got.nbytes + 353, "a small window must not keep the whole volume in memory"


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
    with pytest.raises(DataError, match=r"b\.nii\.gz: .*[Cc]hecksum"):
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
    "no_orientation": (_both_unset, r"orientation is unknown .*--options nifti\.affine=spacing"),
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
    "magic": (lambda path: patched(path, 344, "4s", b"n?1\0"), r"one file, but its magic is b'n\?1"),
    "pair": (lambda path: patched(path, 344, "4s", b"ni1\0"), r"got the header of a \.hdr/\.img pair; convert"),
    "analyze": (lambda path: patched(path, 344, "4s", bytes(4)), r"got an ANALYZE header"),
    "colours": (lambda path: patched(path, 70, "hh", 128, 24), r"got RGB colours \(datatype 128\); write red, green"),
    "bits": (lambda path: patched(path, 72, "h", 32), r"contradicts itself: .* has 16 bits, it says 32"),
    "five_d": (lambda path: plain(path, voxels((5, 4, 3, 1, 3))), r"got 5D \(5, 4, 3, 1, 3\); split"),
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
    with pytest.raises(BudgetError, match=r"bomb\.nii\.gz: .* holds more than the 1360 bytes"):
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
    with pytest.raises(DataError, match=r"a\.nii: nifti\.affine=qform was asked for"):
        open_image(path, Nifti(affine="qform"))


def test_voxel_sizes_matter_where_the_affine_comes_from_them(tmp_path: Path) -> None:
    for number, size in enumerate((0.0, -0.5, float("nan"))):
        path = patched(plain(tmp_path / f"{number}.nii"), 80, "f", size)
        _both_unset(path)
        with pytest.raises(GeometryError, match=rf"{number}\.nii: expected positive voxel sizes, its pixdim says"):
            open_image(path, Nifti(affine="spacing"))
        patched(path, 252, "hh", 1, 0)
        with pytest.raises(GeometryError, match=rf"{number}\.nii"):
            open_image(path)
        patched(path, 252, "hh", 0, 1)  # placed by the sform: the sizes are not needed, but somebody should know
        image = open_image(path)
        assert image.spacing.values == pytest.approx(SPACING_XYZ[::-1])
        assert [flag.code for flag in image.flags] == ["voxel_sizes"]


def test_fourth_axis_is_bands_or_its_first_volume_only_when_asked(tmp_path: Path) -> None:
    data = voxels((5, 4, 3, 6))
    data[..., 3] = -data[..., 3]
    for ending in (".nii", ".nii.gz"):
        path = plain(tmp_path / f"a{ending}", data)
        with pytest.raises(UnsupportedError, match=r"got 4D \(5, 4, 3, 6\).*--options nifti\.fourth_axis=bands"):
            open_image(path)
        image = open_image(path, Nifti(fourth_axis="bands"))
        assert (image.shape, image.bands[0], image.bands[5]) == ((6, 3, 4, 5), "band_1", "band_6")
        assert [flag.code for flag in image.flags] == ["unnamed_bands"]
        expected = data.transpose(3, 2, 1, 0)
        assert np.array_equal(image.read(), expected)
        window = (slice(1, 3), slice(0, 2), slice(2, 5))
        assert np.array_equal(image.read(window, ["band_4", "band_1"]), expected[[3, 0], 1:3, :2, 2:5])
        first = open_image(path, Nifti(fourth_axis="first"))
        assert (first.shape, first.bands) == ((1, 3, 4, 5), ("intensity",))
        assert [flag.code for flag in first.flags] == ["first_volume"]
        assert np.array_equal(first.read(), expected[:1])


def test_first_volume_of_a_stream_is_given_only_when_its_whole_is_sound(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (30, 30, 30, 6)).astype(np.int16))
    damaged = bytearray(path.read_bytes())
    damaged[-8] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DamagedError, match=r"a\.nii\.gz: .*checksum"):
        open_image(path, Nifti(fourth_axis="first")).read()


def test_first_volume_is_not_given_where_the_others_are_missing(tmp_path: Path) -> None:
    path = patched(plain(tmp_path / "a.nii", voxels((5, 4, 3, 2))), 48, "h", 6)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DamagedError, match=r"a\.nii: its header declares 1072 bytes, but the file holds 592"):
        open_image(path, Nifti(fourth_axis="first"))
    with pytest.raises(DamagedError, match=r"b\.nii\.gz: .* truncated after 592 of 1072 bytes"):
        open_image(tmp_path / "b.nii.gz", Nifti(fourth_axis="first")).read()


def test_bands_are_named_by_option(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.nii", voxels((5, 4, 3, 2)))
    image = open_image(path, Nifti(fourth_axis="bands", bands=("t1", "t2")))
    assert (image.bands, image.flags) == (("t1", "t2"), ())
    assert np.array_equal(image.read(bands=["t2"]), image.read()[1:])
    assert open_image(plain(tmp_path / "b.nii"), Nifti(bands=("ct",))).bands == ("ct",)
    for wrong in (("t1",), ("t1", "t1"), ("a", "b", "c")):
        with pytest.raises(BandError, match=r"a\.nii: expected 2 different band names, got"):
            open_image(path, Nifti(fourth_axis="bands", bands=wrong))


def test_flat_voxels_are_flagged(tmp_path: Path) -> None:
    for thickness, codes in ((9.9, []), (10.1, ["anisotropic"])):
        path = plain(tmp_path / "a.nii", affine=np.diag([0.5, 0.75, thickness, 1.0]))
        assert [flag.code for flag in open_image(path).flags] == codes


def test_text_in_the_header_is_flagged_and_never_quoted(tmp_path: Path) -> None:
    places = {148: "descrip", 228: "aux_file", 328: "intent_name", 14: "db_name"}
    for offset, name in places.items():
        path = patched(plain(tmp_path / "a.nii"), offset, "9s", b"Jane Doe")
        (flag,) = open_image(path).flags
        assert flag.code == "header_text" and name in flag.text and "Jane" not in flag.text
    header = nib.Nifti1Header()
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe"))
    nib.save(nib.Nifti1Image(voxels(), np.eye(4), header), tmp_path / "b.nii.gz")
    assert "extensions" in open_image(tmp_path / "b.nii.gz").flags[0].text
    for gap, expected in ((b"\1\0\0\0", 1), (bytes(4) + b"Jane Doe".ljust(16), 1), (bytes(20), 0)):
        data = patched(plain(tmp_path / "d.nii"), 108, "f", 348 + len(gap)).read_bytes()
        (tmp_path / "d.nii").write_bytes(data[:348] + gap + data[352:])
        assert ["extensions" in flag.text for flag in open_image(tmp_path / "d.nii").flags] == [True] * expected
    for stored, flagged in (("doe_jane.nii", True), ("c.nii", False), ("", False)):
        with (tmp_path / "c.nii.gz").open("wb") as raw, gzip.GzipFile(stored, "wb", fileobj=raw) as file:
            file.write(plain(tmp_path / "c.nii").read_bytes())
        assert ["gzip file name" in flag.text for flag in open_image(tmp_path / "c.nii.gz").flags] == [True] * flagged


def test_scaled_values_beyond_their_type_are_infinite_not_wrong(tmp_path: Path) -> None:
    path = patched(plain(tmp_path / "a.nii"), 112, "f", 1e37)
    assert open_image(path).dtype == np.float64
    assert open_image(path).read().max() == pytest.approx(250 * 1e37, rel=1e-6)
    path = patched(plain(tmp_path / "b.nii", voxels(dtype=np.float32)), 112, "f", 3e37)
    values, valid = open_image(path).read_valid()
    assert values.dtype == np.float32
    assert np.array_equal(valid[0], voxels().transpose(2, 1, 0) * 3e37 < np.finfo(np.float32).max)


@pytest.mark.parametrize("seed", range(4))
def test_streams_of_any_members_and_buffer_sizes_inflate_exactly(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.Generator(np.random.Philox(key=seed))
    for _ in range(100):
        monkeypatch.setattr(_gzip, "_INPUT", int(rng.choice([1, 2, 7, 9, 64, 1000, 1 << 20])))
        monkeypatch.setattr(_gzip, "_PIECE", int(rng.choice([1, 7, 8, 258, 1000, 1 << 24])))
        parts = [rng.integers(0, rng.choice([1, 9, 256]), rng.choice([0, 1, 300, 2000])) for _ in range(3)]
        whole = [part.astype(np.uint8).tobytes() for part in parts]
        packed = b"".join(gzip.compress(part, int(rng.choice([0, 1, 9]))) for part in whole)
        (tmp_path / "a.gz").write_bytes(packed + bytes(int(rng.choice([0, 1, 600]))))
        content = b"".join(whole)
        assert _gzip.inflate(tmp_path / "a.gz", len(content), len(content), 0).tobytes() == content


def test_streams_that_zlib_refuses_are_refused(tmp_path: Path) -> None:
    good = gzip.compress(bytes(range(256)) * 20)
    faults = {"junk": good + b"junk", "reserved": good[:3] + b"\x20" + good[4:], "second": good + good[:-9]}
    faults |= {f"cut_{n}": good[:-n] for n in range(1, 10)}
    for name, data in faults.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DamagedError, match=rf"{name}: expected a whole gzip file, but it is (damaged|truncated)"):
            _gzip.inflate(tmp_path / name, 5120, 5120, 1 << 20)
        with pytest.raises((zlib.error, EOFError, gzip.BadGzipFile)):
            _strictly_by_zlib(data)


def _strictly_by_zlib(data: bytes) -> bytes:
    out = b""
    while data:
        member = zlib.decompressobj(wbits=31)
        out += member.decompress(data)
        if not member.eof:
            raise EOFError
        data = member.unused_data
    return out


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
