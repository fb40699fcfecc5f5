"""Histograms of gradients: gratings fall into the bin that geometry says, in 2D and in each plane of 3D, and against a loop."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch.nn import functional

from core.errors import ConfigError
from core.targets import _orientations
from core.targets._orientations import bin_by_bin, binned, bordered, by_cell, places_of, plane_gradient
from core.targets.hog import Hog, glyphs
from tests.parity.fixture import make_batch, make_input

FLAT = make_input("flat", 2, (8, 8), (24, 32))
SOLID = make_input("solid", 1, (4, 8, 8), (8, 16, 16))


def _image(entry, seed=0):
    return torch.randn(2, len(entry.bands), *entry.size, generator=torch.Generator().manual_seed(seed))


def _looped(plane, pool, bins, spacing):
    """The definition, voxel by voxel: (bins, rows, columns) sums of one (Y, X) image."""
    rows, columns = plane.shape
    sums = torch.zeros(bins, rows // pool, columns // pool, dtype=torch.float64)
    pick = lambda i, n: -i if i < 0 else 2 * (n - 1) - i if i >= n else i  # noqa: E731
    at = lambda y, x: float(plane[pick(y, rows), pick(x, columns)])  # noqa: E731
    for y in range(rows):
        for x in range(columns):
            weights = ((-1, 1.0), (0, 2.0), (1, 1.0))
            down = sum(w * (at(y - 1, x + d) - at(y + 1, x + d)) for d, w in weights) * min(spacing) / spacing[0]
            right = sum(w * (at(y + d, x - 1) - at(y + d, x + 1)) for d, w in weights) * min(spacing) / spacing[1]
            angle = math.atan2(right, down) / math.pi * bins
            sums[math.floor(angle) % bins, y // pool, x // pool] += math.hypot(down, right)
    return sums


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (2.0, 0.5)])
def test_equals_a_loop_over_voxels(spacing):
    entry = make_input("tiny", 2, (8, 8), (16, 8))
    batch = replace(make_batch(_image(entry)[:1], entry), spacing=torch.tensor([spacing]))
    value, _ = Hog(pool=4, normalise="none")(batch, entry.grid())
    for band in range(2):
        sums = _looped(batch.image[0, band], 4, 9, spacing)
        for token in range(2):
            ours = value[0, token].reshape(2, 9, 2, 2)[band]
            torch.testing.assert_close(ours.double(), sums[:, 2 * token : 2 * token + 2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ends", [(1, 1), (0, 1), (1, 0), (0, 0)])
@pytest.mark.parametrize("size", [(5, 4), (2, 2), (1, 3), (3, 1), (4, 3, 2), (1, 3, 1)])
def test_borders_are_torchs_own(size, ends):
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = image
    for axis, (length, side) in enumerate(zip(size, [ends, (1, 1), (1, 1)][: len(size)], strict=True), start=2):
        mode = "reflect" if length > 1 else "replicate"
        turned = functional.pad(expected.movedim(axis, -1).flatten(1, -2), side, mode=mode)
        expected = turned.unflatten(1, expected.movedim(axis, -1).shape[1:-1]).movedim(-1, axis)
    assert torch.equal(bordered(image, ends), expected)


@pytest.mark.parametrize("bins", [2, 4, 8, 9, 12])
def test_gradients_along_the_axes_and_the_diagonals_equal_the_loop_too(bins):
    """Whole numbers: many gradients have no first part, no second, none at all, or both of one size."""
    entry = make_input("steps", 1, (8, 8), (16, 8))
    image = torch.randint(0, 2, (1, 1, 16, 8), generator=torch.Generator().manual_seed(0)).float()
    image[..., :3, :], image[..., 3:6, :] = 0.0, 1.0
    down, right = plane_gradient(image, torch.ones(1, 2), (0, 1))
    kinds = (
        (down == 0) & (right != 0),
        (down != 0) & (right == 0),
        (down == 0) & (right == 0),
        down.abs() == right.abs(),
    )
    assert all(int(kind.sum()) > 2 for kind in kinds)
    value, _ = Hog(pool=8, bins=bins, normalise="none")(make_batch(image, entry), entry.grid())
    expected = _looped(image[0, 0], 8, bins, (1.0, 1.0))[:, :, 0].T
    torch.testing.assert_close(value[0].double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bins", [8, 9])
@pytest.mark.parametrize(("size", "edges"), [((24, 20), (8, 4)), ((8, 6, 12), (4, 3, 6))])
def test_the_sums_of_a_gpu_and_of_many_threads_are_those_of_one(size, edges, bins, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    magnitude = torch.rand(2, 3, *size, generator=draw)
    number = torch.randint(-((bins + 1) // 2), bins // 2 + 1, magnitude.shape, generator=draw).to(torch.float32)
    places = places_of(edges, size, bins, magnitude.device)
    sums = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        sums.append(binned(magnitude, number, edges, bins, places))
    assert torch.equal(sums[0], sums[1])
    torch.testing.assert_close(sums[0], bin_by_bin(magnitude, number, edges, bins))
    torch.testing.assert_close(sums[0].sum(3), by_cell(magnitude, edges).sum(-1))
    last = (2, 2) if len(size) == 2 else (1, 1, 1)
    voxels = by_cell(magnitude, edges)[(1, 2, *last)], by_cell(number, edges)[(1, 2, *last)] % bins
    assert float(sums[0][(1, 2, last[0], 7, *last[1:])]) == pytest.approx(float(voxels[0][voxels[1] == 7].sum()))


@pytest.mark.parametrize("size", [(48, 32), (24, 16, 8)])
@pytest.mark.parametrize("at_once", [1, 700, 3000])
def test_how_an_image_is_cut_changes_nothing(size, at_once, monkeypatch):
    entry = make_input("cut", 3, (8,) * len(size), size)
    image = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(1))
    batch = make_batch(image, entry)
    batch.valid[:, 1, 5:9] = False
    batch = replace(batch, spacing=torch.tensor([2.0, 1.0, 0.5][: len(size)]).expand(4, -1))
    target = Hog(pool=4, gaussian=6)
    whole, parts = [], []
    for found in (whole, parts):
        found += [target(given, entry.grid()) for given in (batch, make_batch(image, entry))]
        monkeypatch.setattr(_orientations, "_AT_ONCE", at_once)
    assert sum(1 for _ in _orientations.pieces(image, 8)) > 1
    for (value, weight), (again, same) in zip(whole, parts, strict=True):
        assert torch.equal(weight, same)
        torch.testing.assert_close(value, again, rtol=1e-5, atol=1e-6)
    assert not bool(whole[0][1].all())


@pytest.mark.parametrize("number", range(8))
def test_a_grating_falls_into_its_bin(number):
    angle = (number + 0.5) * math.pi / 8  # from the first axis: 11.25, 33.75, ... 168.75 degrees
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    wave = torch.sin(0.25 * (y * math.cos(angle) + x * math.sin(angle)))
    entry = make_input("grating", 1, (16, 16), (64, 64))
    value, _ = Hog()(make_batch(wave[None, None], entry), entry.grid())
    per_cell = value.reshape(16, 9, 4)
    assert bool((per_cell.argmax(1) == int(math.degrees(angle) // 20)).all())


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("plane", range(3))
def test_a_grating_in_a_volume_falls_into_its_bin_in_millimetres(plane, number):
    """Voxels of 5 x 1 x 1 mm: the angle in mm, not in voxels, decides."""
    angle = (number + 0.5) * math.pi / 8
    spacing = torch.tensor([5.0, 1.0, 1.0])
    size = (8, 32, 32)
    places = [c * s for c, s in zip(torch.meshgrid(*map(torch.arange, size), indexing="ij"), spacing, strict=True)]
    first, second = tuple(combinations(range(3), 2))[plane]
    wave = places[first] * math.cos(angle) + places[second] * math.sin(angle)  # a ramp: no aliasing at 5 mm
    entry = make_input("ramp", 1, (4, 16, 16), size)
    batch = replace(make_batch(wave[None, None].float(), entry), spacing=spacing[None])
    value, _ = Hog()(batch, entry.grid())
    per_cell = value.reshape(2, 2, 2, 3, 9, 2, 2)[:, :, :, plane]  # tokens, bins, cells; z is one cell
    inner = per_cell.sum((0, 1, 2, 4, 5))  # reflected borders point elsewhere: the sum is the ramp's
    assert int(inner.argmax()) == int(math.degrees(angle) // 20)
    assert float(inner.max() / inner.sum()) > 0.6


@pytest.mark.parametrize("entry", [FLAT, SOLID])
@pytest.mark.parametrize("normalise", ["bins", "token"])
def test_brightness_and_contrast_do_not_matter(entry, normalise):
    image = (_image(entry) * 256).round() / 256  # exact sums: no gradient moves over a border by rounding
    target = Hog(normalise=normalise)
    values = [target(make_batch(i, entry), entry.grid())[0] for i in (image, image + 2.0, image * 4.0)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(values[0], values[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_unit_of_length_does_not_matter(factor):
    batch = make_batch(_image(SOLID), SOLID)
    value, _ = Hog()(batch, SOLID.grid())
    again, _ = Hog()(replace(batch, spacing=batch.spacing * factor), SOLID.grid())
    torch.testing.assert_close(value, again)


@pytest.mark.parametrize("bands", [1, 2, 3, 13, 14])
@pytest.mark.parametrize(
    ("patch", "pool", "size"),
    [(16, 8, 96), (16, 8, 224), (16, 16, 256), (14, 7, 112), (14, 7, 224), (8, 8, 96), (8, 4, 112)],
)
def test_tokens_and_numbers_follow_the_law(patch, pool, size, bands):
    entry = make_input("law", bands, (patch, patch), (size, size))
    target = Hog(pool=pool)
    value, weight = target(make_batch(torch.zeros(1, bands, size, size), entry), entry.grid())
    expected = (1, (size // patch) ** 2, 9 * bands * (patch // pool) ** 2)
    assert value.shape == weight.shape == expected
    assert target.num_values(entry) == expected[2]


def test_a_volume_has_three_planes_and_cells_no_larger_than_its_token():
    target = Hog(pool=8)
    entry = make_input("volume", 2, (2, 16, 8), (8, 32, 32))
    assert target.cells(entry.patch) == (1, 2, 1)
    assert target.num_values(entry) == 2 * 3 * 9 * 2
    assert Hog(pool=(1, 4, 4)).num_values(entry) == 2 * 3 * 9 * 2 * 4 * 2
    assert Hog(pool=None).num_values(entry) == 2 * 3 * 9


@pytest.mark.parametrize("entry", [FLAT, SOLID])
def test_histograms_have_unit_length(entry):
    value, _ = Hog()(make_batch(_image(entry), entry), entry.grid())
    planes = 1 if entry.ndim == 2 else 3
    lengths = value.reshape(-1, len(entry.bands) * planes, 9, 1).norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_noise_below_the_floor_is_no_histogram_of_unit_length():
    image = _image(FLAT) * 1e-5
    value, _ = Hog()(make_batch(image, FLAT), FLAT.grid())
    assert float(value.norm(dim=2).max()) < 0.1
    exact, _ = Hog(floor=1e-12)(make_batch(image, FLAT), FLAT.grid())
    torch.testing.assert_close(exact.reshape(-1, 9).norm(dim=1), torch.ones(2 * 12 * 2))


def test_a_missing_voxel_takes_its_neighbourhood_out_and_the_cell_is_scaled_up():
    entry = make_input("one", 1, (8, 8), (8, 8))
    batch = make_batch(_image(entry)[:1, :1], entry)
    batch.valid[0, 0, 4, 3] = False
    batch.image[0, 0, 4, 3] = 1e6
    value, weight = Hog(normalise="none")(batch, entry.grid())
    zero = batch.image.clone()
    zero[0, 0, 4, 3] = 0.0
    keep = torch.ones(8, 8, dtype=torch.bool)
    keep[3:6, 2:5] = False
    per_voxel, _ = Hog(pool=1, normalise="none")(make_batch(zero, entry), entry.grid())  # (bins, y, x)
    expected = (per_voxel.reshape(9, 8, 8) * keep).sum((1, 2)) * 64 / 55
    torch.testing.assert_close(value[0, 0], expected)
    assert bool(weight.all())


def test_a_cell_of_which_most_gradients_rest_on_missing_data_has_no_weight():
    batch = make_batch(_image(FLAT)[:1], FLAT)
    batch.valid[0, 0, :4] = False  # rows 0 to 3 are missing: row 4 has a missing neighbour, 3 of 8 rows are left
    batch.valid[0, 1, :3] = False  # 4 of 8 rows are left
    value, weight = Hog()(batch, FLAT.grid())
    first, second = weight.reshape(3, 4, 2, 9).unbind(2)
    assert not bool(first[0].any())
    assert bool(first[1:].all())
    assert bool(second.all())
    assert bool((value.reshape(3, 4, 2, 9)[0, :, 0] == 0).all())


def test_the_edge_of_missing_data_is_no_gradient():
    batch = make_batch(torch.full((1, 2, *FLAT.size), 3.0), FLAT)
    batch.valid[0, :, 10:14, 9:20] = False
    batch.image[~batch.valid] = 0.0
    value, _ = Hog(floor=1e-12)(batch, FLAT.grid())
    assert bool((value == 0).all())


def test_standardised_tokens_have_mean_zero_and_variance_one():
    batch = make_batch(_image(FLAT), FLAT)
    batch.valid[0, 0, :8, :8] = False
    value, weight = Hog(standardise=True)(batch, FLAT.grid())
    for token in (0, 5):
        known = value[0, token][weight[0, token]]
        assert float(known.mean()) == pytest.approx(0.0, abs=1e-6)
        assert float(known.var()) == pytest.approx(1.0, rel=1e-3)
    assert int(weight[0, 0].sum()) == 9


def test_one_slice_is_enough():
    entry = make_input("slice", 1, (1, 8, 8), (1, 16, 16))
    value, weight = Hog()(make_batch(torch.randn(1, 1, 1, 16, 16), entry), entry.grid())
    assert bool(value.isfinite().all())
    assert bool(weight.all())


@pytest.mark.parametrize(
    ("pool", "patch"), [(7, (16, 16)), (3, (8, 8)), ((4, 4), (2, 8, 8)), ((2, 8, 8), (8, 8)), ((3, 8, 8), (4, 8, 8))]
)
def test_cells_that_do_not_fit_are_refused(pool, patch):
    entry = make_input("input", 1, patch, tuple(2 * p for p in patch))
    with pytest.raises(ConfigError, match="expected cells"):
        Hog(pool=pool).num_values(entry)


@pytest.mark.parametrize("options", [{"pool": 0}, {"bins": 1}, {"floor": 0.0}, {"gaussian": -1}])
def test_senseless_options_are_refused(options):
    with pytest.raises(ConfigError, match="expected cells of one voxel or more"):
        Hog(**options)


def test_strokes_run_along_the_edge():
    strokes = glyphs((9, 9), 2)[0]  # gradients at 45 and 135 degrees from the first axis
    assert float(strokes[0, 4, 4]) == pytest.approx(1.0)
    assert float(strokes[0, 0, 8]) == pytest.approx(1.0)  # y falls while x rises: at right angles to (1, 1)
    assert float(strokes[0, 0, 0]) < 1e-3
    torch.testing.assert_close(strokes[1], strokes[0].flip(1))


def test_a_picture_shows_each_cell_at_its_place():
    target = Hog(pool=4)
    prediction = torch.zeros(1, 12, target.num_values(FLAT))
    prediction[0, 5].view(2, 9, 2, 2)[1, 4, 0, 1] = (
        2.0  # band 1, gradients along x, the upper right cell of token (1, 1)
    )
    image = target.picture(prediction, make_batch(torch.zeros(1, 2, 24, 32), FLAT), FLAT.grid())
    cell = image[0, 1, 8:12, 12:16]
    torch.testing.assert_close(cell, 2.0 * glyphs((4, 4), 9)[0, 4])
    assert float(image.sum()) == pytest.approx(float(cell.sum()))
    assert float(cell[:, 1:3].sum() / cell.sum()) > 0.8  # the stroke stands upright
