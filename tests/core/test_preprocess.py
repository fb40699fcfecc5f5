"""From image to encoder input: content, fit, resampling by validity, value space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.bands import RGB
from core.contract import Input, Normalisation
from core.errors import BandError, DataError, ShapeError
from core.preprocess import (
    centred,
    check_magnitude,
    check_range,
    content_box,
    cut,
    fit,
    foreground,
    full_scale,
    measure,
    offset_scale,
    percentiles,
    physical,
    prepare,
    resample,
)

PHOTOGRAPH = Input(
    name="photograph",
    bands=RGB,
    patch=(8, 8),
    size=(32, 32),
    spacing=(1.0, 1.0),
    unit="px",
    normalisation=Normalisation(method="fixed", mean=(0.5, 0.4, 0.3), std=(0.2, 0.1, 0.1)),
    background="dark",
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


def disc(height: int = 300, width: int = 400, radius: float = 120, level: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A dim noisy disc on nearly black, with a dark hole and a bright speck outside; and the disc itself."""
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - height / 2, x - width / 2) < radius
    image = np.where(
        inside, level + rng().integers(-12, 12, (3, height, width)), rng(1).integers(0, 5, (3, height, width))
    )
    image[:, 140:160, 190:210] = 1  # a dark macula is content
    image[:, 5:9, 5:9] = 255  # a reflection in the surround is not
    return image.astype(np.uint8), inside


@pytest.mark.parametrize("scale", [1, 3])
def test_foreground_is_the_disc(scale: int) -> None:
    image, inside = disc(300 * scale, 400 * scale, 120 * scale)
    found = foreground(image)
    wrong = found != inside
    assert wrong.mean() < 0.002
    assert found[150 * scale, 200 * scale]
    assert not found[:20, :20].any()


@pytest.mark.parametrize("level", [20, 60, 200])
def test_foreground_does_not_depend_on_exposure(level: int) -> None:
    image, inside = disc(level=level)
    assert (foreground(image) != inside).mean() < 0.002


def test_foreground_of_an_image_without_surround_is_everything() -> None:
    for image in (
        np.full((3, 50, 60), 7, np.uint8),
        np.zeros((1, 50, 60), np.uint8),
        rng().integers(60, 200, (3, 50, 60)),
    ):
        assert foreground(image).all()


def test_foreground_works_in_sixteen_bit_and_on_real_photographs(shared: Path) -> None:
    from PIL import Image

    folder = shared / "data/retina/idrid_grading"
    paths = [path for number in (1, 60, 200, 400) if (path := folder / f"IDRiD_{number:03d}.jpg").exists()]
    if not paths:
        pytest.skip(f"none of the photographs is in {folder}")
    for path in paths:
        image = np.asarray(Image.open(path)).transpose(2, 0, 1)
        found = foreground(image)
        assert 0.685 < found.mean() < 0.72
        assert np.array_equal(found, foreground(image.astype(np.uint16) * 257))


def test_content_box_is_tight_and_whole_when_empty() -> None:
    valid = np.zeros((10, 12, 9), bool)
    assert content_box(valid) == (slice(0, 10), slice(0, 12), slice(0, 9))
    valid[3:5, 7, 2] = valid[4, 9, 8] = True
    assert content_box(valid) == (slice(3, 5), slice(7, 10), slice(2, 9))


def test_centred_window_has_the_box_in_its_middle() -> None:
    assert centred((slice(10, 20), slice(0, 5)), (4, 9)) == (13, -2)
    assert centred((slice(10, 19), slice(0, 6)), (4, 9)) == (12, -1)  # the odd voxel is behind, in both cases


def test_cut_pads_outside_and_equals_the_slice_inside() -> None:
    image, valid = rng().integers(0, 99, (2, 6, 7)), rng(1).random((6, 7)) < 0.7
    inner, inside = cut(image, valid, (1, 2), (3, 4))
    assert np.array_equal(inner, image[:, 1:4, 2:6])
    assert np.array_equal(inside, valid[1:4, 2:6])
    outer, beyond = cut(image, valid, (-2, 5), (9, 4))
    assert np.array_equal(outer[:, 2:8, :2], image[:, :, 5:])
    assert np.array_equal(beyond[2:8, :2], valid[:, 5:])
    outer[:, 2:8, :2] = 0
    beyond[2:8, :2] = False
    assert not outer.any()
    assert not beyond.any()
    nothing, nowhere = cut(image, valid, (20, 20), (2, 2))
    assert not nothing.any()
    assert not nowhere.any()


def test_resample_ignores_what_is_not_valid() -> None:
    image = np.full((1, 40, 40), 100.0, np.float32)
    valid = np.zeros((40, 40), bool)
    valid[:, 13:] = True
    results = []
    for junk in (0.0, 1e6, np.nan):
        image[:, ~valid] = junk
        results.append(resample(image, valid, (10, 10)))
    for values, inside in results:
        assert np.array_equal(inside, results[0][1])
        np.testing.assert_allclose(values[:, inside], 100, rtol=1e-5)
        assert (values[:, ~inside] == 0).all()
    assert results[0][1].mean() == pytest.approx(27 / 40, abs=0.05)


def test_resample_averages_when_it_reduces() -> None:
    image = rng().integers(0, 255, (3, 64, 64)).astype(np.uint8)
    values, inside = resample(image, np.ones((64, 64), bool), (4, 4))
    assert inside.all()
    blocks = image.reshape(3, 4, 16, 4, 16).mean(axis=(2, 4))
    assert np.abs(values - blocks).max() < 12  # a point sample would be off by up to 128
    same, _ = resample(image, np.ones((64, 64), bool), (64, 64))
    assert np.array_equal(same, image)


def test_fit_keeps_aspect_centres_and_pads() -> None:
    image = np.zeros((1, 100, 120), np.uint8)
    valid = np.zeros((100, 120), bool)
    valid[10:50, 20:100] = True  # 40 x 80
    image[:, valid] = 50
    fitted, inside = fit(image, valid, (32, 32))
    assert fitted.dtype == np.float32
    assert inside.shape == (1, 32, 32)
    expected = np.zeros((32, 32), bool)
    expected[8:24] = True
    assert np.array_equal(inside[0], expected)
    np.testing.assert_allclose(fitted[inside], 50, rtol=1e-6)
    assert (fitted[~inside] == 0).all()


def test_fit_of_a_box_keeps_what_is_not_measured_in_it() -> None:
    image, valid = np.full((1, 40, 80), 7, np.uint8), np.ones((40, 80), bool)
    valid[:, 40:] = False
    box = (slice(0, 40), slice(0, 80))
    fitted, inside = fit(image, valid, (20, 20), box)
    assert inside[0].sum() == 100 and inside[0, 5:15, :10].all()
    np.testing.assert_allclose(fitted[inside], 7, rtol=1e-6)
    assert (fitted[~inside] == 0).all()
    assert fit(image, valid, (20, 20))[1].all(), "the content fills it"


def test_fit_of_a_volume_is_its_centre_at_native_spacing() -> None:
    image = rng().integers(0, 999, (1, 9, 20, 7)).astype(np.int16)
    valid = np.ones((9, 20, 7), bool)
    fitted, inside = fit(image, valid, (5, 8, 10))
    assert np.array_equal(fitted[:, :, :, 1:8], image[:, 2:7, 6:14])
    assert inside[0, :, :, 1:8].all()
    assert inside.sum() == 5 * 8 * 7


def test_fit_refuses_another_rank() -> None:
    with pytest.raises(ShapeError, match="of the rank of"):
        fit(np.zeros((1, 4, 4)), np.ones((4, 4), bool), (2, 2, 2))


def test_measure_equals_numpy_over_valid_voxels() -> None:
    image = rng().normal(1e6, 3.0, (2, 700, 50, 60)).astype(np.float32)  # several slabs, large mean: no cancellation
    valid = rng(1).random((700, 50, 60)) < 0.3
    valid[:400] = False
    mean, std = measure(image, valid)
    inside = image[:, valid].astype(np.float64)
    np.testing.assert_allclose(mean, inside.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(std, inside.std(axis=1), rtol=1e-9)
    assert measure(image, np.zeros_like(valid))[1].tolist() == [0, 0]


def test_fixed_value_space_is_by_share_of_full_scale() -> None:
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535), (np.float32, 1), (np.int16, 1)):
        assert full_scale(np.dtype(dtype)) == top
        offset, scale = offset_scale(PHOTOGRAPH.normalisation, np.dtype(dtype))
        raw = np.array([0.7, 0.5, 0.2]) * top
        np.testing.assert_allclose((raw - offset) * scale, [1.0, 1.0, -1.0], rtol=1e-5)


def test_per_image_value_space_centres_a_constant_image() -> None:
    per_image = Normalisation(method="per_image")
    offset, scale = offset_scale(per_image, np.dtype(np.float32), np.array([5.0]), np.array([0.0]))
    assert (offset.tolist(), scale.tolist()) == ([5.0], [1.0])
    with pytest.raises(DataError, match="finite mean"):
        offset_scale(per_image, np.dtype(np.float32), np.array([np.nan]), np.array([1.0]))
    with pytest.raises(DataError, match="got None"):
        offset_scale(per_image, np.dtype(np.float32))


def test_prepare_picks_bands_by_name() -> None:
    image, _ = disc()
    image[0] //= 2
    order = [2, 0, 1]
    one = prepare(image, RGB, PHOTOGRAPH)
    other = prepare(image[order], tuple(RGB[i] for i in order), PHOTOGRAPH)
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.valid, other.valid)
    with pytest.raises(BandError, match="not among the image's bands"):
        prepare(image[:1], ("gray",), PHOTOGRAPH)
    with pytest.raises(ShapeError, match="2 spatial axes"):
        prepare(image[:, None], RGB, PHOTOGRAPH)


def test_prepare_finds_a_disc_on_black_and_obeys_a_given_mask() -> None:
    image, _ = disc()
    ready = prepare(image, RGB, PHOTOGRAPH)
    assert ready.valid.mean() == pytest.approx(np.pi / 4, abs=0.02)  # the disc fills its box
    everywhere = prepare(image, RGB, PHOTOGRAPH, valid=np.ones((300, 400), bool))
    assert everywhere.valid[0].mean() == 0.75  # 300 x 400 in a square
    plain = prepare(image, RGB, replace(PHOTOGRAPH, background="none"))
    assert np.array_equal(plain.image, everywhere.image)


def test_prepare_of_nan_voxels_does_not_see_them() -> None:
    entry = Input(
        name="volume",
        bands=("intensity",),
        patch=(4, 4, 4),
        size=(8, 8, 8),
        spacing=(1.0, 1.0, 1.0),
        unit="mm",
        normalisation=Normalisation(method="per_image"),
    )
    image = rng().normal(10, 2, (1, 8, 8, 8)).astype(np.float32)
    image[:, :3] = np.nan
    ready = prepare(image, ("intensity",), entry)
    assert not ready.valid[:, :3].any() or ready.valid.sum() == 5 * 64
    assert ready.valid.sum() == 5 * 64
    inside = image[np.isfinite(image)]
    np.testing.assert_allclose(ready.offset, inside.mean(), rtol=1e-5)
    np.testing.assert_allclose(1 / ready.scale, inside.std(), rtol=1e-5)
    assert np.isfinite(ready.image).all()


REFLECTANCE = Input(
    name="scene",
    bands=("B04", "B08"),
    patch=(2, 2),
    size=(8, 8),
    spacing=(10.0, 10.0),
    unit="m",
    sensor="sentinel2_l2a",
    normalisation=Normalisation(
        method="fixed", mean=(0.1, 0.2), std=(0.1, 0.05), clip=((0.0, 0.3), (0.05, 0.25)), full_scale=False
    ),
)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_physical_values_have_no_full_scale(dtype: type) -> None:
    offset, scale = offset_scale(REFLECTANCE.normalisation, np.dtype(dtype))
    np.testing.assert_allclose((np.array([0.3, 0.3]) - offset) * scale, [2.0, 2.0], rtol=1e-5)
    offset, scale = offset_scale(REFLECTANCE.normalisation, np.dtype(dtype), scaling=[(1e-4, -0.1)] * 2)
    np.testing.assert_allclose((np.array([4000.0, 4000.0]) - offset) * scale, [2.0, 2.0], rtol=1e-4)


@pytest.mark.parametrize("factor", [1e-4, -1e-4])
def test_values_beyond_the_bounds_are_cut_off_in_physical_values(factor: float) -> None:
    raw = np.array([[-500, 0, 1000, 3000, 9000, 2500, 500, 2500]] * 8, np.int16) * int(np.sign(factor))
    ready = prepare(np.stack([raw, raw]), ("B08", "B04"), REFLECTANCE, scaling=[(factor, 0.0)] * 2)
    values = (ready.image - ready.offset[:, None, None]) * ready.scale[:, None, None]
    red, infrared = values[0, 0] * 0.1 + 0.1, values[1, 0] * 0.05 + 0.2
    np.testing.assert_allclose(red, [0.0, 0.0, 0.1, 0.3, 0.3, 0.25, 0.05, 0.25], atol=1e-6)
    np.testing.assert_allclose(infrared, [0.05, 0.05, 0.1, 0.25, 0.25, 0.25, 0.05, 0.25], atol=1e-6)


def test_scalings_go_with_their_bands_and_bands_by_their_other_names() -> None:
    image = np.stack([np.full((8, 8), 50), np.full((8, 8), 100), np.full((8, 8), 7)]).astype(np.int16)
    ready = prepare(image, ("B8", "B4", "qa"), REFLECTANCE, scaling=[(4e-3, 0.0), (1e-3, 0.1), (1.0, 0.0)])
    values = (ready.image - ready.offset[:, None, None]) * ready.scale[:, None, None]
    np.testing.assert_allclose(values[:, 0, 0], [(0.2 - 0.1) / 0.1, 0.0], atol=1e-5)


def test_bounds_leave_what_is_not_valid_at_zero() -> None:
    image = np.full((2, 8, 8), 0.2, np.float32)
    image[1, :4] = np.nan
    ready = prepare(image, ("B04", "B08"), REFLECTANCE)
    assert ready.valid[0].all()
    assert not ready.valid[1, :4].any()
    assert (ready.image[1, :4] == 0.0).all()  # 0 lies below the bounds of this band


def test_encoders_cut_off_crops_as_prepare_cuts_off_whole_images() -> None:
    import torch

    from core.batch import Batch
    from core.contract import Contract
    from core.encoders._prepare import prepared

    space = replace(REFLECTANCE.normalisation, clip=((0.15, 0.3), (0.05, 0.25)))  # without the mean of B04, value 0
    entry = replace(REFLECTANCE, normalisation=space)
    image = rng().uniform(-0.2, 0.6, (2, 8, 8)).astype(np.float32)
    image[0, 0] = np.nan
    ready = prepare(image, ("B04", "B08"), entry)
    zero = torch.zeros(1, dtype=torch.int64)
    batch = Batch(
        image=torch.from_numpy(image)[None],
        valid=torch.ones(1, 2, 8, 8, dtype=torch.bool),
        bands=("B04", "B08"),
        spacing=torch.tensor([[10.0, 10.0]]),
        unit="m",
        offset=torch.from_numpy(ready.offset)[None],
        scale=torch.from_numpy(ready.scale)[None],
        key=zero,
        index=zero,
        row=zero,
    )
    crop = prepared(Contract(inputs=(entry,)), batch)[0]
    expected = (ready.image - ready.offset[:, None, None]) * ready.scale[:, None, None]
    assert torch.equal(crop.valid[0], torch.from_numpy(ready.valid))
    np.testing.assert_allclose(crop.image[0].numpy(), np.where(ready.valid, expected, 0.0), atol=1e-6)
    assert crop.image[0, 0].max() == pytest.approx(2.0)
    assert crop.image[0, 0, 1:].min() == pytest.approx(0.5)
    assert (crop.image[0, 0, 0] == 0.0).all()
    assert crop.image[0, 1].min() == pytest.approx(-3.0)


def by_median(*medians: float, entry: Input = REFLECTANCE, spread: float = 0.5, source: str = "scene.tif") -> None:
    median = np.array(medians)
    check_range(entry, median - spread * np.abs(median), median, median + spread * np.abs(median), source=source)


def sensed(sensor: str, *bands: str) -> Input:
    return replace(REFLECTANCE, bands=bands, sensor=sensor, normalisation=Normalisation(method="per_image"))


def test_plausible_values_and_bands_without_data_pass() -> None:
    by_median(0.05, 0.3)
    by_median(-0.02, 1.4)  # a shadow after correction; a bright cloud
    by_median(np.nan, 0.3)
    by_median(12.0, 288.0, entry=sensed("modis_toa14", "B01", "B31"))
    by_median(0.001, 288.0, entry=sensed("modis_toa14", "B01", "B31"))  # night
    by_median(-11.0, -18.0, entry=sensed("sentinel1", "VV", "VH"))
    by_median(5000.0, 5000.0, entry=replace(REFLECTANCE, sensor=""))  # nothing is known, nothing is said


@pytest.mark.parametrize(
    ("sensor", "bands", "medians", "words"),
    [
        ("sentinel2_l2a", ("B04", "B08"), (1200.0, 2500.0), "band B04 has median 1200 (and 1 more), the encoder expects "
         "reflectance in 0..1: it looks like counts, divide by 10000"),
        ("sentinel2_l2a", ("B04", "B08"), (0.1, 25.0), "band B08 has median 25, the encoder expects reflectance in 0..1: it "
         "looks like percent"),
        ("modis_toa14", ("B01", "B31"), (12.0, 15.0), "band B31 has median 15, the encoder expects brightness temperature in K: "
         "it looks like degrees Celsius or radiance"),
        ("modis_toa14", ("B01", "B31"), (9000.0, 280.0), "B01 has median 9000, the encoder expects reflectance in percent"),
        ("modis_toa14", ("B01", "B03", "B31"), (0.1, 0.2, 280.0), "the bands B01, B03 lie between 0.05 and 0.3, which is "
         "reflectance in 0..1; the encoder expects reflectance in percent, 0..100: multiply by 100"),
        ("sentinel1", ("VV", "VH"), (0.08, 0.02), "the bands VV, VH lie between 0.01 and 0.12, which is linear power or "
         "amplitude; the encoder expects backscatter in dB"),
        ("sentinel1", ("VV", "VH"), (220.0, 90.0), "it looks like amplitude counts"),
        ("rgb", ("red", "green"), (90.0, 80.0), "divide by the full scale of the file's type"),
        ("landsat8", ("B10",), (29000.0,), "band B10 has median 29000, the encoder expects brightness temperature in K: it "
         "looks like counts"),
        ("sentinel2_l2a", ("B04",), (-9999.0,), "plausible is -0.2 to 2, convert the values"),
    ],
)  # fmt: skip
def test_values_in_another_unit_are_refused_in_a_sentence(sensor, bands, medians, words) -> None:
    with pytest.raises(BandError) as caught:
        by_median(*medians, entry=sensed(sensor, *bands))
    assert str(caught.value).startswith("scene.tif: ")
    assert words in str(caught.value)


def test_fill_values_that_nobody_declared_are_found_by_the_outer_percentiles() -> None:
    low, median, high = np.array([-9999.0, 0.1]), np.array([0.1, 0.1]), np.array([0.2, 0.3])
    with pytest.raises(BandError, match="values reach -9999, declare it as nodata"):
        check_range(REFLECTANCE, low, median, high, source="x")
    with pytest.raises(BandError, match="looks like counts"):  # mostly 0, nodata of a scene at the edge of its swath
        check_range(REFLECTANCE, median * 0, median * 0, np.array([3000.0, 0.0]), source="x")
    with pytest.raises(ShapeError, match="three numbers for each of"):
        check_range(REFLECTANCE, low[:1], median[:1], high[:1], source="x")


SPECTRA = {  # reflectance in blue, green, red, near infrared and two short-wave infrared bands
    "sea": (0.03, 0.02, 0.006, 0.003, 0.002, 0.001),
    "land": (0.06, 0.09, 0.10, 0.30, 0.25, 0.15),
    "cloud": (0.90, 0.90, 0.90, 0.85, 0.50, 0.40),
}
UNKNOWN = replace(
    REFLECTANCE,
    bands=("blue", "green", "red", "nir", "swir1", "swir2"),
    sensor="",
    normalisation=Normalisation(method="fixed", mean=(1.0,) * 6, std=(1.0,) * 6, full_scale=False),
)


def of_magnitude(entry: Input, *images: np.ndarray, spread: float = 0.3) -> None:
    median = np.array(images)
    check_magnitude(entry, median * (1 - spread), median, median * (1 + spread), source="scene.tif and others")


def learnt_from(kind: str, factor: float = 1.0) -> Input:
    mean = factor * np.array(SPECTRA[kind])
    space = replace(UNKNOWN.normalisation, mean=tuple(mean), std=tuple(0.5 * mean))
    return replace(UNKNOWN, normalisation=space)


@pytest.mark.parametrize("learnt", SPECTRA)
@pytest.mark.parametrize("seen", SPECTRA)
def test_without_a_sensor_another_unit_is_told_from_another_place(learnt: str, seen: str) -> None:
    image = np.array(SPECTRA[seen])
    of_magnitude(learnt_from(learnt), image)  # a cloud is 300 times as bright as the sea, but 30 times in blue
    missed = learnt != seen and "sea" in (learnt, seen)  # 10,000 times, but 1/100 of land in near infrared: not sure
    for entry, values, word, sure in (
        (learnt_from(learnt, 1e4), image, "smaller", not missed or seen == "sea"),
        (learnt_from(learnt), 1e4 * image, "larger", not missed or learnt == "sea"),
    ):
        if sure:
            with pytest.raises(BandError, match=f"every band is more than 100 times {word} than it should be"):
                of_magnitude(entry, values)
        else:
            of_magnitude(entry, values)


def test_a_magnitude_is_refused_with_the_median_what_was_learnt_and_the_cure() -> None:
    counts, land = learnt_from("land", 1e4), np.array(SPECTRA["land"])
    with pytest.raises(BandError) as caught:
        of_magnitude(counts, land)
    assert str(caught.value) == (
        "scene.tif and others: band blue has median 0.06, the encoder is trained on values about 600 (deviation 300) there, and "
        "every band is more than 100 times smaller than it should be: bring the images to the unit of those that it is trained "
        "on, by the file's own scale and offset or before."
    )
    of_magnitude(counts, land, 1e4 * land)  # one image that fits: these are places
    of_magnitude(counts, np.where(np.arange(6) == 2, 1e4 * land, land))  # and so is one band
    with pytest.raises(BandError, match="100 times smaller"):
        of_magnitude(counts, land, np.zeros(6), np.full(6, np.nan))  # nothing at all, and no data, tell nothing
    of_magnitude(counts, np.zeros(6), np.full(6, np.nan))
    of_magnitude(replace(counts, normalisation=Normalisation(method="per_image")), land)
    of_magnitude(replace(counts, bands=("B02", "B03", "B04", "B08", "B11", "B12"), sensor="sentinel2_l2a"), land)
    with pytest.raises(ShapeError, match=r"expected numbers \(R, C\) of"):
        check_magnitude(counts, land, land, land, source="x")


@pytest.mark.parametrize(("ratio", "refused"), [(99.0, False), (101.0, True)])
def test_the_hundredfold_is_where_a_magnitude_is_another(ratio: float, refused: bool) -> None:
    one = replace(UNKNOWN, bands=("red",), normalisation=replace(UNKNOWN.normalisation, mean=(50.0,), std=(10.0,)))
    for image in (np.array([50.0 / ratio]), np.array([60.0 * ratio])):
        if refused:
            with pytest.raises(BandError, match="band red has median"):
                of_magnitude(one, image, spread=0.0)
        else:
            of_magnitude(one, image, spread=0.0)


def test_raw_values_are_shares_of_full_scale_only_where_value_space_and_sensor_say_so() -> None:
    photograph = Normalisation(method="fixed", mean=(0.5,) * 2, std=(0.2,) * 2)
    colours = replace(REFLECTANCE, bands=("red", "green"), sensor="rgb", normalisation=photograph)
    per_image = Normalisation(method="per_image")
    eight, sixteen = np.dtype(np.uint8), np.dtype(np.uint16)
    assert physical(colours, eight, None).tolist() == [[1 / 255, 0.0]] * 2
    assert physical(replace(colours, sensor=""), sixteen, None).tolist() == [[1 / 65535, 0.0]] * 2
    assert physical(replace(colours, normalisation=replace(photograph, full_scale=False)), eight, None)[0, 0] == 1.0
    assert physical(replace(REFLECTANCE, normalisation=per_image), sixteen, None).tolist() == [[1.0, 0.0]] * 2
    assert physical(colours, eight, [(2.0, 1.0), (-1.0, 3.0)]).tolist() == [[2.0, 1.0], [-1.0, 3.0]]
    raw = np.arange(202, dtype=np.uint16).reshape(2, 101)
    found = percentiles(raw, np.ones((1, 101), bool), sixteen, REFLECTANCE, [(1.0, 0.0), (-1.0, 301.0)])
    assert found.tolist() == [[1.0, 101.0], [50.0, 150.0], [99.0, 199.0]]


def test_prepare_refuses_counts_and_takes_them_with_their_scaling() -> None:
    counts = rng().integers(500, 4000, (2, 8, 8)).astype(np.uint16)
    with pytest.raises(
        BandError, match=r"image: band B04 has median [0-9.]+ \(and 1 more\), the encoder expects reflectance"
    ):
        prepare(counts, ("B04", "B08"), REFLECTANCE)
    ready = prepare(counts, ("B04", "B08"), REFLECTANCE, scaling=[(1e-4, 0.0)] * 2)
    same = prepare((counts * 1e-4).astype(np.float32), ("B04", "B08"), REFLECTANCE)
    np.testing.assert_allclose(
        (ready.image - ready.offset[:, None, None]) * ready.scale[:, None, None],
        (same.image - same.offset[:, None, None]) * same.scale[:, None, None],
        atol=1e-4,
    )
    assert prepare(counts, ("B04", "B08"), REFLECTANCE, check=False).image.max() <= 0.3  # cut off, as it is told
    picture = replace(
        PHOTOGRAPH, sensor="rgb", background="none", normalisation=replace(PHOTOGRAPH.normalisation, mean=(0.5,) * 3)
    )
    prepare(rng().integers(0, 255, (3, 40, 40)).astype(np.uint8), RGB, picture)  # 8 bit is full scale


def test_an_image_without_any_measured_pixel_is_prepared_and_not_judged() -> None:
    ready = prepare(np.full((2, 8, 8), np.nan, np.float32), ("B04", "B08"), REFLECTANCE)
    assert not ready.valid.any()
