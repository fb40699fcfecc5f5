"""DICOM: the reader's exam, slices in their places, values, refusals, and nothing of the patient anywhere."""

from __future__ import annotations

import itertools
import logging
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import (
    BandError,
    BudgetError,
    DamagedError,
    DataError,
    GeometryError,
    MissingDataError,
    UnsafeError,
    UnsupportedError,
)
from core.geometry import Spacing
from datasets.readers import configured, find_reader, is_image_folder, name_of, open_image
from datasets.readers.dicom import Dicom
from datasets.testing.reader_contract import Case, ReaderContract
from tests.corpus import dicom as make

pydicom = pytest.importorskip("pydicom", reason="DICOM is an extra: pip install 'halfseen[dicom]'")

AXES = [*np.eye(3, dtype=int).tolist(), *(-np.eye(3, dtype=int)).tolist()]
SEED = np.random.Philox(key=11)


def noise(*shape: int) -> np.ndarray:
    return make.noise(np.random.Generator(SEED), shape)


def enhanced(path: Path, voxels: np.ndarray, order: list[int], **elements: Any) -> Path:
    """Write one file with a frame per plane, in the given order of frames, 2 mm apart."""
    from pydicom.dataset import Dataset

    data = make.dataset(voxels[order], SOPClassUID=make.ENHANCED_CT, **elements)
    measures, turn, values, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.75, 0.5], 2.0
    turn.ImageOrientationPatient = list(map(float, make.AXIAL))
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1.0, -1000.0, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turn]
    shared.PixelValueTransformationSequence = [values]
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], []
    for number in order:
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = [5.0, 6.0, 2.0 * number]
        frame.PlanePositionSequence = [place]
        data.PerFrameFunctionalGroupsSequence.append(frame)
    return make.save(data, path)


class TestDicom(ReaderContract):
    def reader(self) -> Dicom:
        return Dicom()

    def cases(self, folder: Path) -> list[Case]:
        spacing, gray = Spacing((0.75, 0.5), "mm"), ("intensity",)
        cases = []
        for name, syntax, dtype in (
            ("explicit", make.EXPLICIT, "u2"),
            ("implicit", make.IMPLICIT, "i2"),
            ("big", make.BIG, "u2"),
            ("rle", make.RLE, "u2"),
            ("bytes", make.EXPLICIT, "u1"),
        ):
            voxels = noise(9, 7).astype(dtype)
            data = make.dataset(voxels, syntax=syntax, PixelSpacing=[0.75, 0.5])
            cases.append(Case(path=make.save(data, folder / name), image=voxels[None], bands=gray, spacing=spacing))
        colour = noise(9, 8, 3).astype(np.uint8)
        path = make.save(make.dataset(colour, Modality="XC", SOPClassUID=make.US), folder / "colour.dcm")
        expected = np.ascontiguousarray(colour.transpose(2, 0, 1))
        cases.append(Case(path=path, image=expected, bands=("red", "green", "blue"), spacing=Spacing.pixels(2)))
        volume = noise(5, 9, 8)
        path = enhanced(folder / "enhanced.dcm", volume, [3, 0, 4, 1, 2], BitsStored=12, HighBit=11)
        affine = np.array([[0, 0, -0.5, -5], [0, -0.75, 0, -6], [2, 0, 0, 0], [0, 0, 0, 1]])
        affine = affine @ np.array([[1, 0, 0, 0], [0, -1, 0, 8], [0, 0, -1, 7], [0, 0, 0, 1]])
        image = (volume[:, ::-1, ::-1].astype(np.int16) - 1000)[None]
        cases.append(Case(path=path, image=image, bands=gray, spacing=Spacing((2, 0.75, 0.5), "mm"), affine=affine))
        stack = noise(4, 9, 8).astype(np.int16)
        stack[:, :, :2] = -1
        path = make.series(folder / "series", stack, PixelPaddingValue=-1, RescaleSlope=1, RescaleIntercept=-1000)
        affine = np.array([[0, 0, 0.5, 10 - 3.5], [0, 0.75, 0, 20 - 6], [2.5, 0, 0, 30], [0, 0, 0, 1]])
        cases.append(
            Case(
                path=path,
                image=(stack[:, ::-1, ::-1] - 1000).astype(np.int32)[None],
                bands=gray,
                spacing=Spacing((2.5, 0.75, 0.5), "mm"),
                affine=affine,
                nodata=(-1001.0,),
                valid=(stack[:, ::-1, ::-1] != -1)[None],
            )
        )
        return cases

    def large(self, folder: Path) -> Path:
        return make.save(make.dataset(np.zeros((2100, 2100), np.uint16)), folder / "large.dcm")


def test_every_orientation_puts_each_voxel_where_its_header_says(tmp_path: Path) -> None:
    count = 0
    for along, down in itertools.product(AXES, AXES):
        if np.dot(along, down):
            continue
        count += 1
        voxels = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.uint16)
        folder = make.series(tmp_path / str(count), voxels, orientation=(*along, *down))
        image = open_image(folder)
        assert image.affine is not None
        matrix = image.affine.matrix
        assert (np.diag(matrix[:3, [2, 1, 0]]) > 0).all(), "x to right, y to anterior, z to superior"
        read, normal = image.read()[0], np.cross(along, down)
        z, y, x = np.indices(read.shape)
        world = np.stack([z, y, x, np.ones_like(z)], axis=-1) @ matrix.T
        k, j, i = np.unravel_index(read.astype(int), voxels.shape)
        steps = (0.5 * np.array(along), 0.75 * np.array(down), 2.5 * normal)
        patient = sum(n[..., None] * step for n, step in zip((i, j, k), steps, strict=True)) + np.array([-10, -20, 30])
        np.testing.assert_allclose(world[..., :3], patient * [-1, -1, 1], atol=1e-9)
        assert np.array_equal(np.sort(read, axis=None), voxels.ravel())
        window = (slice(1, 3), slice(1, 4), slice(2, 4))
        assert np.array_equal(image.read(window)[0], read[window])
        assert image.chunks[int(np.argmax(np.abs(normal)[::-1]))] == 1
    assert count == 24


def test_an_oblique_series_keeps_its_affine(tmp_path: Path) -> None:
    a, b = np.radians(12), np.radians(-7)
    along = np.array([np.cos(a), np.sin(a), 0])
    down = np.array([-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b)])
    image = open_image(make.series(tmp_path / "s", noise(5, 6, 7), orientation=(*along, *down)))
    assert image.affine is not None
    assert image.spacing.values == pytest.approx((2.5, 0.75, 0.5), abs=1e-6)
    normal = np.cross(along, down)
    np.testing.assert_allclose(image.affine.matrix[:3, 0] / 2.5, normal * [-1, -1, 1], atol=1e-9)


def test_neither_names_nor_numbers_order_the_slices(tmp_path: Path) -> None:
    voxels = noise(6, 5, 4)
    change = lambda n, elements: elements.update(InstanceNumber=[4, 1, 6, 2, 5, 3][n])  # noqa: E731
    for number, name in enumerate((lambda n: f"{9 - n}.dcm", lambda n: f"IM{n * 5 % 7}", lambda n: f"1.2.840.{n}")):
        image = open_image(make.series(tmp_path / str(number), voxels, name=name, change=change))
        assert np.array_equal(image.read()[0], voxels[:, ::-1, ::-1])


def test_a_series_is_read_lazily_and_travels(tmp_path: Path) -> None:
    voxels = noise(6, 5, 4)
    folder = make.series(tmp_path / "s", voxels)
    image = pickle.loads(pickle.dumps(open_image(folder)))
    gone = next(plane.file for plane in image.source.planes[4:5])
    (folder / gone).unlink()
    assert np.array_equal(image.read((slice(0, 4), slice(0, 5), slice(0, 4)))[0], voxels[:4, ::-1, ::-1])
    with pytest.raises(DamagedError, match=gone):
        image.read()


def test_a_folder_of_radiographs_is_no_volume(tmp_path: Path) -> None:
    for number in range(3):
        make.save(make.dataset(noise(5, 4), Modality="CR", SOPClassUID=make.CR), tmp_path / f"{number}.dcm")
    assert not is_image_folder(tmp_path)
    make.series(tmp_path / "s", noise(3, 5, 4))
    assert is_image_folder(tmp_path / "s")
    assert name_of(find_reader(tmp_path / "s")) == "dicom"
    (tmp_path / "empty").mkdir()
    assert not is_image_folder(tmp_path / "empty")


def rescaled(folder: Path, values: dict[str, Any], dtype: str = "u2", **elements: Any) -> Any:
    return open_image(make.series(folder, noise(3, 5, 4).astype(dtype), **values, **elements))


def test_whole_numbers_stay_whole_and_in_the_smallest_type(tmp_path: Path) -> None:
    twelve = {"BitsStored": 12, "HighBit": 11}
    for number, (elements, stored, dtype) in enumerate(
        [
            ({}, "u2", np.uint16),
            ({"RescaleSlope": 1, "RescaleIntercept": -1024, **twelve}, "u2", np.int16),
            ({"RescaleSlope": 1, "RescaleIntercept": -1024}, "u2", np.int32),
            ({"RescaleSlope": 1, "RescaleIntercept": 0}, "i2", np.int16),
            ({"RescaleSlope": 0.5, "RescaleIntercept": -3}, "u2", np.float32),
            ({"RescaleSlope": 1, "RescaleIntercept": -0.5}, "u2", np.float32),
        ]
    ):
        voxels = noise(3, 5, 4).astype(stored)
        image = open_image(make.series(tmp_path / str(number), voxels, **elements))
        expected = voxels[:, ::-1, ::-1] * elements.get("RescaleSlope", 1) + float(elements.get("RescaleIntercept", 0))
        assert image.dtype == dtype
        assert np.array_equal(image.read()[0], expected)
        assert image.units == ("HU",)


def test_slopes_that_differ_per_slice_are_applied_and_flagged(tmp_path: Path) -> None:
    voxels = noise(4, 5, 4)
    change = lambda n, elements: elements.update(RescaleSlope=0.25 * (n + 1), RescaleIntercept=0)  # noqa: E731
    folder = make.series(tmp_path / "s", voxels, change=change, Modality="PT", Units="BQML", PixelPaddingValue=0)
    image = open_image(folder)
    expected = voxels[:, ::-1, ::-1] * (0.25 * np.arange(1, 5))[:, None, None]
    assert image.dtype == np.float32
    assert np.array_equal(image.read()[0], expected)
    assert [flag.code for flag in image.flags] == ["slope_per_slice"]
    assert image.units == ("Bq/mL",)


def test_bits_beyond_those_that_count_are_dropped_and_the_sign_is_kept(tmp_path: Path) -> None:
    values = np.array([[-5, 7, -2048, 2047]], dtype=np.int16)
    stored = (values.astype(np.uint16) & 0x0FFF) | 0xA000  # four bits of something else on top
    data = make.dataset(stored, BitsStored=12, HighBit=11, PixelRepresentation=1)
    assert np.array_equal(open_image(make.save(data, tmp_path / "top")).read()[0], values)
    stored = ((values.astype(np.uint16) << 4) & 0xFFF0) | 0x0009  # value in the high bits
    data = make.dataset(stored, BitsStored=12, HighBit=15, PixelRepresentation=1)
    assert np.array_equal(open_image(make.save(data, tmp_path / "high")).read()[0], values)


def test_padding_is_no_data(tmp_path: Path) -> None:
    voxels = noise(9, 7).astype(np.int16)
    voxels[:2] = -2000
    path = make.save(make.dataset(voxels, PixelPaddingValue=-2000, RescaleSlope=2, RescaleIntercept=5), tmp_path / "a")
    image = open_image(path)
    assert image.nodata == (-3995.0,)
    assert np.array_equal(image.read_valid()[1][0], voxels != -2000)
    voxels[:2] = np.arange(14).reshape(2, 7) - 2000
    data = make.dataset(voxels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1987)
    image = open_image(make.save(data, tmp_path / "b"))
    assert image.nodata is None
    assert np.array_equal(image.read_valid()[1][0], voxels > -1987)
    assert np.array_equal(image.read_valid((slice(1, 4), slice(2, 5)))[1][0], (voxels > -1987)[1:4, 2:5])


def test_padding_of_a_volume_follows_its_orientation(tmp_path: Path) -> None:
    voxels = noise(4, 5, 6) + 1
    voxels[1, 2, 3] = 0
    change = lambda n, elements: elements.update(RescaleSlope=0.25 * (n + 1), RescaleIntercept=7)  # noqa: E731
    folder = make.series(tmp_path / "s", voxels, orientation=(0, 1, 0, 0, 0, -1), change=change, PixelPaddingValue=0)
    image = open_image(folder)
    read, valid = image.read_valid()
    assert int((~valid).sum()) == 1
    assert read[~valid].tolist() == [7.0]


def test_inverted_radiographs_keep_their_values(tmp_path: Path) -> None:
    voxels = noise(9, 7)
    data = make.dataset(voxels, PhotometricInterpretation="MONOCHROME1", Modality="DX", ImagerPixelSpacing=[0.2, 0.1])
    image = open_image(make.save(data, tmp_path / "a"))
    assert np.array_equal(image.read()[0], voxels)
    assert image.spacing == Spacing((0.2, 0.1), "mm")
    assert {flag.code for flag in image.flags} == {"monochrome1", "detector_spacing"}


@pytest.mark.parametrize("modality", ["US", "SC", "XA", "CR", "MG"])
def test_modalities_with_burned_in_text_are_flagged(tmp_path: Path, modality: str) -> None:
    image = open_image(make.save(make.dataset(noise(5, 4), Modality=modality, PixelSpacing=[1, 1]), tmp_path / "a"))
    assert [flag.code for flag in image.flags] == ["burned_in_unknown"]
    assert modality in image.flags[0].text


def test_jpeg_colours_decode(tmp_path: Path) -> None:
    import io

    from PIL import Image
    from pydicom.encaps import encapsulate

    plain = np.full((16, 24, 3), (200, 90, 30), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(plain).save(buffer, "JPEG", quality=95)
    data = make.dataset(plain, syntax="1.2.840.10008.1.2.4.50", PhotometricInterpretation="YBR_FULL_422", Modality="XC")
    data.PixelData = encapsulate([buffer.getvalue()])
    data["PixelData"].is_undefined_length = True
    image = open_image(make.save(data, tmp_path / "a.dcm"))
    assert np.abs(image.read().astype(int) - np.array([200, 90, 30])[:, None, None]).max() <= 3
    assert image.read(bands=["blue", "red"]).shape == (2, 16, 24)


def test_a_dose_grid_is_placed_by_its_offsets(tmp_path: Path) -> None:
    voxels = noise(3, 5, 4)
    data = make.dataset(
        voxels,
        Modality="RTDOSE",
        ImagePositionPatient=[1.0, 2.0, 3.0],
        ImageOrientationPatient=list(map(float, make.AXIAL)),
        PixelSpacing=[2, 2],
        GridFrameOffsetVector=[0.0, 3.0, 6.0],
        DoseGridScaling="0.5",
    )
    image = open_image(make.save(data, tmp_path / "dose.dcm"))
    assert image.spacing.values == (3, 2, 2)
    assert np.array_equal(image.read()[0], voxels[:, ::-1, ::-1] * 0.5)


def broken_series(folder: Path, **options: Any) -> Path:
    return make.series(folder / "s", noise(6, 5, 4), **options)


def turned(number: int, elements: dict[str, Any]) -> None:
    if number == 2:
        elements["ImageOrientationPatient"] = [0.0, 1.0, 0.0, 0.0, 0.0, -1.0]


def same_place(number: int, elements: dict[str, Any]) -> None:
    elements["ImagePositionPatient"] = [0.0, 0.0, float(number // 2)]


def sideways(number: int, elements: dict[str, Any]) -> None:
    elements["ImagePositionPatient"][0] += 3.0 * (number == 3)


def no_place(number: int, elements: dict[str, Any]) -> None:
    if number == 3:
        del elements["ImagePositionPatient"]


def other_size(number: int, elements: dict[str, Any]) -> None:
    if number == 3:
        elements.update(Rows=4, Columns=5)


REFUSALS: list[tuple[Callable[[int, dict[str, Any]], None], type[DataError], str]] = [
    (turned, GeometryError, "1 of 6 are turned"),
    (same_place, UnsupportedError, "3 share theirs"),
    (sideways, GeometryError, "shift sideways"),
    (no_place, UnsupportedError, r"s021\.dcm: expected slices at known positions"),
    (other_size, UnsupportedError, "one size and type"),
]


@pytest.mark.parametrize(("change", "error", "words"), REFUSALS)
def test_slices_that_make_no_volume_are_refused(
    tmp_path: Path, change: Any, error: type[DataError], words: str
) -> None:
    with pytest.raises(error, match=words):
        open_image(broken_series(tmp_path, change=change))


def test_gantry_tilt_is_kept_in_the_affine_and_flagged(tmp_path: Path) -> None:
    tilt = lambda n, elements: elements["ImagePositionPatient"].__setitem__(1, n * 0.5)  # noqa: E731
    image = open_image(broken_series(tmp_path, change=tilt))
    assert [flag.code for flag in image.flags] == ["sheared"]
    assert image.affine is not None
    assert image.affine.matrix[:3, 0].tolist() == [0.0, -0.5, 2.5]


def test_tolerance_of_spacing_is_one_percent(tmp_path: Path) -> None:
    def moved(by: float) -> Callable[[int, dict[str, Any]], None]:
        return lambda n, elements: elements["ImagePositionPatient"].__setitem__(2, 2.5 * n + by * (n == 2))

    assert open_image(broken_series(tmp_path / "a", change=moved(0.02))).flags == ()
    with pytest.raises(GeometryError, match=r"2 of 5 distances differ: 2\.4\d+ mm between|2 of 5 .* 2\.53 mm between"):
        open_image(broken_series(tmp_path / "b", change=moved(0.03)))


def test_options_are_set_as_text_and_named_in_the_errors(tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s", noise(6, 5, 4), SeriesInstanceUID="1.2.3.4")
    other = noise(2, 5, 4)
    make.series(folder, other, name=lambda n: f"other{n}", SeriesInstanceUID="1.2.3.5")
    (folder / "notes.txt").write_text("left out")
    with pytest.raises(UnsupportedError, match="2 mixed series"):
        open_image(folder)
    image = open_image(folder, *configured(["dicom.series=other1", "dicom.bands=[ct]"]))
    assert np.array_equal(image.read()[0], other[:, ::-1, ::-1])
    assert image.bands == ("ct",)
    assert {flag.code for flag in image.flags} == {"other_series", "other_files"}
    with pytest.raises(UnsupportedError, match="called 'absent'"):
        open_image(folder, Dicom(series="absent"))
    with pytest.raises(BandError, match="expected 1 band names"):
        open_image(folder, Dicom(series="largest", bands=("a", "b")))
    with pytest.raises(BudgetError, match=r"s: its headers declare"):
        open_image(folder, Dicom(series="largest", max_bytes=100))


def test_a_lost_or_foreign_file_of_a_series_is_not_passed_over(tmp_path: Path) -> None:
    folder = make.series(tmp_path / "s", noise(6, 5, 4))
    (folder / "s035.dcm").write_bytes(b"\0" * 400)
    with pytest.raises(DamagedError, match=r"s035\.dcm: its name says DICOM"):
        open_image(folder)
    (folder / "s035.dcm").unlink()
    outside = make.save(make.dataset(noise(5, 4)), tmp_path / "elsewhere.dcm")
    (folder / "s035.dcm").symlink_to(outside)
    with pytest.raises(UnsafeError, match=r"s035\.dcm"):
        open_image(folder)


@pytest.mark.parametrize(
    ("elements", "error", "words"),
    [
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, UnsupportedError, "1 bit per pixel"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, UnsupportedError, "PALETTE COLOR"),
        ({"Modality": "SM"}, UnsupportedError, "whole slide"),
        ({"Rows": None}, UnsupportedError, "object without pixels"),
        ({"BitsStored": 20}, DamagedError, "describes pixels"),
        ({"BitsStored": None}, DamagedError, "lacks BitsStored"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, DamagedError, "RescaleSlope is 0"),
        ({"PixelSpacing": [0, 1]}, DamagedError, "positive numbers as PixelSpacing"),
        ({"NumberOfFrames": 3}, DamagedError, "105 bytes of pixels, but 36"),
        ({"syntax": "1.2.840.10008.1.2.1.99"}, UnsupportedError, "coded as Deflated"),
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, UnsupportedError, "directory of a DICOM medium"),
    ],
)
def test_other_objects_and_contradictions_are_refused(
    tmp_path: Path, elements: dict[str, Any], error: type[DataError], words: str
) -> None:
    data = make.dataset(noise(7, 5).astype(np.uint8)[:, :5], **elements)
    path = make.save(data, tmp_path / "a.dcm")
    with pytest.raises(error, match=words):
        open_image(path)


def test_a_cine_is_no_volume(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="split it into single images"):
        open_image(make.save(make.dataset(noise(4, 7, 5), Modality="XA"), tmp_path / "a.dcm"))


def test_compressed_pixels_that_end_early_are_noticed_at_open(tmp_path: Path) -> None:
    path = make.save(make.dataset(noise(40, 50), syntax=make.RLE), tmp_path / "a.dcm")
    data = path.read_bytes()
    for cut in (8, 30, 700):
        path.write_bytes(data[:-cut])
        with pytest.raises(DamagedError, match=r"a\.dcm: its compressed pixels are truncated"):
            open_image(path)


def secrets() -> list[str]:
    rng = np.random.Generator(np.random.Philox(key=200))
    letters = "bcdfghjklmnpqrstvwxz"
    return ["".join(rng.choice(list(letters), 11)) for _ in range(200)]


def sprinkle(data: Any, words: list[str]) -> None:
    """Write each word into an element of its own: public text elements, private ones, and one in a sequence."""
    from pydicom.datadict import DicomDictionary
    from pydicom.dataset import Dataset

    texts = ("LO", "SH", "PN", "LT", "ST", "UT", "AE", "CS", "UC", "AS", "DA", "TM", "DT")
    known = sorted((tag, entry) for tag, entry in DicomDictionary.items() if 0x0008_0000 <= tag < 0x6000_0000)
    keywords = [entry[4] for _, entry in known if entry[0] in texts and entry[1] == "1"]
    taken = {
        "Modality",
        "PhotometricInterpretation",
        "BurnedInAnnotation",
        "SpecificCharacterSet",
        "AcquisitionTimeSynchronized",
    }
    # Words that the reader does compare are in: whatever they say must not come out.
    first = ["PatientName", "PatientID", "RescaleType", "Units", "SeriesDescription", "InstitutionName"]
    rest = [name for name in keywords if name not in taken | set(first)]
    public = [*first, *rest[:: len(rest) // 150]][:150]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, word in zip(public, words, strict=False):
            setattr(data, keyword, word)
        block = data.private_block(0x0029, words[150], create=True)
        for number, word in enumerate(words[151:190]):
            block.add_new(number, "LO" if number % 2 else "UN", word if number % 2 else word.encode())
        item = Dataset()
        for keyword, word in zip(keywords[40:], words[190:], strict=False):
            setattr(item, keyword, word)
        data.RequestAttributesSequence = [item]


def test_nothing_of_the_patient_is_in_facts_flags_errors_or_logs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    words, said, opened, failed = secrets(), [], 0, 0
    raw = {"RescaleSlope": 0x00281053, "PixelSpacing": 0x00280030, "ImagePositionPatient": 0x00200032}
    syntaxes = {1: make.IMPLICIT, 2: make.RLE}
    for number, damage in enumerate(("", "", "", *raw, "length", "burned", "modality", "colours", "missing", "syntax")):
        folder = tmp_path / str(number)
        skip = (2,) if damage == "missing" else ()
        make.series(folder, noise(5, 6, 4), skip=skip, syntax=syntaxes.get(number, make.EXPLICIT))
        for file in sorted(folder.iterdir()):
            data = pydicom.dcmread(file)
            sprinkle(data, words)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if damage in raw:
                    data.add_new(raw[damage], "LO", words[7])  # a name where numbers belong
                if damage == "length":
                    data.PixelData = data.PixelData[:-6]
                if damage == "burned":
                    data.BurnedInAnnotation = "YES"
                if damage == "modality":
                    data.Modality = words[8]
                if damage == "colours":
                    data.PhotometricInterpretation = words[9]
                make.save(data, file)
            if damage == "syntax":
                file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", words[10].encode() + b"\0" * 9))
        caplog.clear()  # writing them made pydicom speak
        capfd.readouterr()
        try:
            image = open_image(folder)
            image.read()
            said.append(repr(image) + repr(image.flags) + repr(image.xarray()))
            opened += 1
        except DataError as error:
            said.append(repr(error) + repr(error.__cause__))
            failed += 1
        said += [caplog.text, *capfd.readouterr()]
    text = "\n".join(said).lower()
    assert (opened, failed) == (4, 8), said
    assert sum(word in text for word in words) == 0, [word for word in words if word in text]
    stored = b"".join(file.read_bytes() for file in (tmp_path / "0").iterdir())
    assert sum(word.encode() in stored for word in words) == 200, "the exam must have written all of them"


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make.save(make.dataset(noise(5, 4)), tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingDataError, match=r"Reading DICOM needs pydicom: pip install 'halfseen\[dicom\]'"):
        open_image(path)
