"""Regions of known phantoms: they are the organs, they stay clear of missing data, and they are the same every time."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import ndimage

from core.errors import ConfigError
from core.maskers._jitter import jittered
from core.maskers._superpixels import RegionCut, cut
from tests.core.maskers.phantoms import contour, dice, phantom

SMALL = ((8, 40, 48), (2, 8, 8), (5.0, 1.0, 1.0))
FLAT, SOLID = ((128, 128), (8, 8), (1.0, 1.0)), ((24, 64, 64), (2, 8, 8), (5.0, 1.0, 1.0))


def _cut(image, patch, spacing, wish=None, valid=None):
    valid = np.ones_like(image, bool) if valid is None else valid
    return cut(image, valid, spacing, patch, wish or RegionCut())


@pytest.mark.parametrize(("kind", "seed"), [(FLAT, 0), (FLAT, 1), (FLAT, 2), (SOLID, 0)])
def test_one_mask_is_each_organ(kind, seed):
    size, patch, spacing = kind
    image, organs = phantom(size, seed)
    masks = _cut(image[None], patch, spacing).masks()
    assert min(max(dice(mask, organ) for mask in masks) for organ in organs) >= 0.8


@pytest.mark.parametrize("seed", range(3))
def test_masks_follow_the_contours_of_the_organs(seed):
    """Mean distance between contours at most 2 px, and at most half that of random squares of the same area."""
    image, organs = phantom((128, 128), seed)
    masks = _cut(image[None], (8, 8), (1.0, 1.0)).masks()
    true = contour(organs.any(axis=0))
    shapes = np.stack([max(masks, key=lambda mask, o=organ: dice(mask, o)) for organ in organs])
    rng = np.random.default_rng(seed)
    squares = np.zeros(image.shape, bool)
    while squares.mean() < shapes.any(axis=0).mean():
        y, x = rng.integers(0, 112, 2)
        squares[y : y + 16, x : x + 16] = True

    def distance(mask):
        to_true, to_mask = (ndimage.distance_transform_edt(~c) for c in (true, contour(mask)))
        return (to_true[contour(mask)].mean() + to_mask[true].mean()) / 2

    ours, theirs = distance(shapes.any(axis=0)), distance(squares)
    assert ours <= 2.0
    assert theirs >= 2.0 * ours


@pytest.mark.parametrize("seed", range(3))
def test_organs_are_kept_and_background_is_not(seed):
    image, organs = phantom((128, 128), seed)
    found = _cut(image[None], (8, 8), (1.0, 1.0))
    best = [max(range(len(found.scores)), key=lambda k, o=o: dice(found.labels == k + 1, o)) for o in organs]
    assert found.kept[best].all()
    others = np.delete(found.scores, best)
    assert found.scores[best].min() > np.median(others)


@pytest.mark.parametrize(("size", "patch", "spacing"), [FLAT, SMALL], ids=["flat", "solid"])
def test_content_of_missing_voxels_counts_for_nothing(size, patch, spacing):
    image = np.stack([phantom(size, seed)[0] for seed in (0, 0, 0)])
    valid = np.random.default_rng(0).random(image.shape) > 0.1  # single bands
    hole = (slice(None), *(slice(0, n // 3) for n in size))
    valid[hole] = False  # all bands
    found = _cut(np.where(valid, image, 0.0), patch, spacing, valid=valid)
    other = _cut(np.where(valid, image, 1e9), patch, spacing, valid=valid)
    assert np.array_equal(found.labels, other.labels)
    assert np.array_equal(found.scores, other.scores)
    assert (found.labels[hole[1:]] == 0).all()
    assert found.kept.sum() >= 2


def test_the_border_of_missing_data_makes_no_region_hard_to_predict():
    """A smooth image in columns with nothing between them: what is not at the image's end follows from its neighbours."""
    y, x = np.mgrid[:128, :128]
    smooth = (2.0 + np.cos(np.pi * y / 127)).astype(np.float32)[None]
    found = _cut(smooth, (8, 8), (1.0, 1.0), valid=(x % 32 >= 16)[None])
    ends = set(found.labels[[0, -1]].ravel().tolist())
    inner = [score for number, score in enumerate(found.scores, start=1) if number not in ends]
    assert len(inner) > 8
    assert max(inner) < 0.1


def test_a_band_without_data_changes_nothing():
    image, _ = phantom((128, 128), 1)
    both, valid = np.stack([image, image]), np.ones((2, 128, 128), bool)
    valid[1] = False
    assert np.array_equal(
        _cut(both, (8, 8), (1.0, 1.0), valid=valid).labels, _cut(image[None], (8, 8), (1.0, 1.0)).labels
    )


@pytest.mark.parametrize("value", [0.0, 1e6])
def test_an_image_without_structure_has_no_regions(value):
    flat = np.full((1, 64, 64), value, np.float32)
    assert _cut(flat, (8, 8), (1.0, 1.0)).masks().shape == (0, 64, 64)
    assert not len(_cut(flat, (8, 8), (1.0, 1.0), valid=np.zeros_like(flat, bool)).scores)


def test_a_lesion_smaller_than_a_hundredth_of_the_image_is_worth_hiding():
    image = np.zeros((1, 128, 128), np.float32)
    image[0, 60:70, 60:70] = 1.0
    hidden = _cut(image, (8, 8), (1.0, 1.0)).masks().any(axis=0)
    assert hidden[60:70, 60:70].all()
    assert hidden.mean() < 0.05


def test_areas_lie_within_the_limits():
    image, _ = phantom((128, 128), 0)
    found = _cut(image[None], (8, 8), (1.0, 1.0), RegionCut(smallest=2.0, largest=0.1))
    areas = np.bincount(found.labels.ravel())[1:]
    assert len(areas) > 5
    assert areas.min() >= 128
    assert areas.max() <= 0.1 * 128**2


def test_only_proportions_of_spacing_and_the_range_of_values_count():
    image, _ = phantom(SMALL[0], 0)
    one = _cut(image[None], (2, 8, 8), (5.0, 1.0, 1.0))
    assert np.array_equal(one.labels, _cut(image[None], (2, 8, 8), (2.5, 0.5, 0.5)).labels)
    assert np.array_equal(one.labels, _cut(image[None] * 1024.0, (2, 8, 8), (5.0, 1.0, 1.0)).labels)
    assert not np.array_equal(one.labels, _cut(image[None], (2, 8, 8), (1.0, 1.0, 1.0)).labels)


def test_felzenszwalb_finds_the_organs_too():
    image, organs = phantom((128, 128), 2)
    masks = _cut(image[None], (8, 8), (1.0, 1.0), RegionCut(algorithm="felzenszwalb")).masks()
    assert min(max(dice(mask, organ) for mask in masks) for organ in organs) >= 0.8


def test_a_hundred_scores_of_a_224_image_take_less_than_a_second():
    image = np.random.default_rng(0).standard_normal((3, 224, 224)).astype(np.float32)
    wish = RegionCut(merge=0.0, smallest=0.0)
    _cut(image[:, :64, :64], (20, 20), (1.0, 1.0), wish)  # imports
    began = time.process_time()
    found = _cut(image, (20, 20), (1.0, 1.0), wish)
    assert time.process_time() - began < 1.0
    assert len(found.scores) >= 100


def test_jitter_moves_and_grows_within_its_reach_and_loses_no_mask():
    masks = np.zeros((60, 64, 64), bool)
    masks[:, 20:40, 24:44] = True
    masks[-1] = False
    masks[-1, 5, 5] = True  # would vanish when it shrinks
    moved = jittered(masks, np.random.default_rng(0), (16, 16), RegionCut())
    rows = [np.flatnonzero(mask.any(axis=1)) for mask in moved[:-1]]
    areas = {int(mask.sum()) for mask in moved[:-1]}
    assert {r[0] for r in rows} <= set(range(14, 27)) and len({r[0] for r in rows}) > 6
    assert areas == {16 * 16, 20 * 20, 24 * 24}
    assert moved[-1].any()
    still = jittered(masks, np.random.default_rng(0), (16, 16), RegionCut(shift=0.0, grow=0.0))
    assert np.array_equal(still, masks)


def test_jitter_of_thin_patches_stays_within_the_slice():
    masks = np.zeros((20, 6, 32, 32), bool)
    masks[:, 2:4, 8:16, 8:16] = True
    moved = jittered(masks, np.random.default_rng(0), (1, 8, 8), RegionCut())
    assert not moved[:, [0, 1, 4, 5]].any()
    assert len({mask.tobytes() for mask in moved}) > 10


@pytest.mark.parametrize("wrong", [{"superpixel": 0.0}, {"keep": 1.5}, {"largest": 0.0}, {"merge": -1.0}])
def test_impossible_wishes_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        RegionCut(**wrong)
