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
    content_box,
    cut,
    fit,
    foreground,
    full_scale,
    measure,
    offset_scale,
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

    for number in (1, 60, 200, 400):
        path = shared / f"data/retina/idrid_grading/IDRiD_{number:03d}.jpg"
        if not path.exists():
            continue
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
