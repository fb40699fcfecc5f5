"""Painting holes shut: harmonic images come back, the hole's content is never read, spacing counts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import spsolve

from core.maskers._inpaint import inpaint


def _ball(size, spacing, radius):
    axes = [(torch.arange(n) - n / 2.2) * s for n, s in zip(size, spacing, strict=True)]
    squares = torch.stack([axis**2 for axis in torch.meshgrid(*axes, indexing="ij")])
    return squares.sum(0).sqrt() > radius


def _exact(image, known, spacing):
    """Solve Laplace's equation in the hole directly."""
    number = -np.ones(image.shape, int)
    number[~known] = np.arange((~known).sum())
    rows, columns, values, right = [], [], [], np.zeros((~known).sum())
    for place in zip(*np.nonzero(~known), strict=True):
        row = number[place]
        for axis, step in enumerate(spacing):
            for sign in (-1, 1):
                other = list(place)
                other[axis] += sign
                if 0 <= other[axis] < image.shape[axis]:
                    near = 1.0 / step**2
                    rows.append(row), columns.append(row), values.append(near)
                    if number[tuple(other)] >= 0:
                        rows.append(row), columns.append(number[tuple(other)]), values.append(-near)
                    else:
                        right[row] += near * image[tuple(other)]
    filled = image.copy()
    filled[~known] = spsolve(csr_matrix((values, (rows, columns))), right)
    return filled


@pytest.mark.parametrize(
    ("size", "spacing", "radius"),
    [((60, 71), (1.0, 1.0), 18.0), ((60, 40), (0.5, 1.0), 9.0), ((9, 40, 40), (5.0, 1.0, 1.0), 11.0)],
)
def test_solves_laplace_to_two_percent_of_the_contrast(size, spacing, radius):
    known = _ball(size, spacing, radius)
    image = torch.randn(1, 1, *[math.ceil(n / 8) for n in size])
    mode = "bilinear" if len(size) == 2 else "trilinear"
    image = torch.nn.functional.interpolate(image, size=size, mode=mode)[0, 0]
    found = inpaint(image[None, None], known[None, None], spacing)[0, 0].numpy()
    exact = _exact(image.numpy().astype(float), known.numpy(), spacing)
    assert np.abs(found - exact)[~known.numpy()].max() < 0.02 * float(image.max() - image.min())
    assert (found == image.numpy())[known.numpy()].all()


def test_the_content_of_a_hole_is_never_read():
    image, known = torch.rand(2, 3, 20, 31), _ball((20, 31), (1.0, 1.0), 6.0).expand(2, 1, 20, 31)
    broken = torch.where(known, image, torch.nan)
    assert torch.equal(inpaint(broken, known, (1.0, 1.0)), inpaint(image, known, (1.0, 1.0)))


def test_a_ramp_is_known_from_its_ends():
    ramp = torch.arange(40.0).expand(1, 1, 30, 40)
    known = torch.ones(1, 1, 30, 40, dtype=torch.bool)
    known[..., 10:30] = False
    torch.testing.assert_close(inpaint(ramp, known, (1.0, 1.0)), ramp, rtol=0.0, atol=0.4)


def test_images_of_a_batch_do_not_touch():
    image, known = torch.rand(3, 2, 24, 24), torch.rand(3, 1, 24, 24) > 0.3
    together = inpaint(image, known, (1.0, 1.0))
    for number in range(3):
        one = slice(number, number + 1)
        torch.testing.assert_close(inpaint(image[one], known[one], (1.0, 1.0)), together[one])


def test_nothing_to_fill_changes_nothing():
    image = torch.rand(1, 1, 5, 5)
    assert torch.equal(inpaint(image, torch.ones(1, 1, 5, 5, dtype=torch.bool), (1.0, 1.0)), image)
