"""The gradient target against scipy's Sobel filter, and where it must be zero or silent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from core.shapes import unpatchify
from core.targets.gradient import Gradient, gradient_magnitude
from tests.parity.fixture import make_batch, make_input

FLAT = make_input("flat", 2, (8, 8), (24, 32))
SOLID = make_input("solid", 1, (4, 8, 8), (8, 24, 16))


def _scipy(image: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    unit = 2.0 * 4.0 ** (image.ndim - 1)  # a unit ramp gives 2 (derivative) x 4 (smoothing) per other axis
    parts = [ndimage.sobel(image, axis=i, mode="mirror") / (unit * s) for i, s in enumerate(spacing)]
    return np.sqrt(sum(part**2 for part in parts))


@pytest.mark.parametrize(("entry", "spacing"), [(FLAT, (1.0, 1.0)), (FLAT, (0.5, 2.0)), (SOLID, (5.0, 1.0, 1.0))])
def test_equals_scipy(entry, spacing):
    image = torch.randn(2, len(entry.bands), *entry.size, dtype=torch.float64)
    ours = gradient_magnitude(image, torch.tensor([spacing, spacing], dtype=torch.float64), 3)
    for sample in range(2):
        for band in range(len(entry.bands)):
            theirs = _scipy(image[sample, band].numpy(), spacing)
            np.testing.assert_allclose(ours[sample, band].numpy(), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_ramp_has_its_slope_per_millimetre(kernel):
    ramp = torch.arange(8.0)[:, None, None].expand(8, 16, 16)[None, None] * 3.0
    slope = gradient_magnitude(ramp, torch.tensor([[5.0, 1.0, 1.0]]), kernel)
    torch.testing.assert_close(slope[0, 0, 3:5], torch.full((2, 16, 16), 3.0 / 5.0))


@pytest.mark.parametrize("entry", [FLAT, SOLID])
def test_zero_on_a_constant_image(entry):
    batch = make_batch(torch.full((1, len(entry.bands), *entry.size), 2.0), entry)
    value, weight = Gradient()(batch, batch.grid(entry.patch))
    assert bool((value == 0).all())
    assert bool((weight == 1).all())


@pytest.mark.parametrize("entry", [FLAT, SOLID])
def test_no_weight_beside_missing_data(entry):
    image = torch.randn(1, len(entry.bands), *entry.size)
    batch = make_batch(image, entry)
    hole = tuple(s // 2 for s in entry.size)
    batch.valid[(0, 0, *hole)] = False
    grid = batch.grid(entry.patch)
    value, weight = Gradient(normalise="none")(batch, grid)
    solid = unpatchify(weight, grid)[0, 0]
    near = torch.zeros_like(solid, dtype=torch.bool)
    near[tuple(slice(h - 1, h + 2) for h in hole)] = True
    assert torch.equal(solid == 0, near)
    assert bool((unpatchify(value, grid)[0, 0][near] == 0).all())


@pytest.mark.parametrize("length", [1e-3, 1.0, 1000.0])
def test_the_unit_of_length_changes_nothing_of_a_normalised_map(length):
    image = torch.randn(2, 1, *SOLID.size)
    maps = []
    for unit in (1.0, length):
        batch = make_batch(image, SOLID)
        batch.spacing.copy_(torch.tensor([5.0, 1.0, 2.0]) * unit)
        maps.append(Gradient()(batch, batch.grid(SOLID.patch))[0])
    torch.testing.assert_close(*maps)
    assert abs(float(maps[1].square().mean()) - 1.0) < 1e-4


def test_both_modalities_have_unit_mean_square():
    for entry, contrast in ((FLAT, 0.01), (SOLID, 100.0)):
        batch = make_batch(torch.randn(3, len(entry.bands), *entry.size) * max(contrast, 0.1), entry)
        value, _ = Gradient()(batch, batch.grid(entry.patch))
        mean_square = unpatchify(value, batch.grid(entry.patch)).square().flatten(2).mean(2)
        torch.testing.assert_close(mean_square, torch.ones(3, len(entry.bands)))
