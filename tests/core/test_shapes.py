"""Invariant 8: cutting and joining patches is exact for every rank, patch and band count."""

from __future__ import annotations

import pytest
import torch

from core.errors import ShapeError
from core.shapes import Grid, patchify, unpatchify

CASES = [
    ((32, 48), (8, 8), 3),
    ((32, 48), (4, 16), 1),
    ((16, 24), (16, 24), 14),
    ((8, 16, 24), (2, 4, 8), 1),
    ((16, 16, 8), (16, 16, 4), 5),
    ((6, 6, 6), (2, 2, 2), 7),
]


@pytest.mark.parametrize(("size", "patch", "bands"), CASES)
def test_unpatchify_inverts_patchify(size, patch, bands):
    image = torch.randn(2, bands, *size)
    assert torch.equal(unpatchify(patchify(image, patch), Grid.of(size, patch)), image)


@pytest.mark.parametrize(("size", "patch", "bands"), CASES)
def test_token_holds_its_own_window_band_major(size, patch, bands):
    image = torch.randn(1, bands, *size)
    patches, grid = patchify(image, patch), Grid.of(size, patch)
    last = grid.num_tokens - 1
    window = tuple(slice(s - p, s) for s, p in zip(size, patch, strict=True))
    assert torch.equal(patches[0, last], image[(0, slice(None), *window)].flatten())


def test_embedding_equals_a_convolution():
    image, weight = torch.randn(2, 3, 4, 16, 16), torch.randn(5, 3, 2, 8, 8)
    ours = torch.nn.functional.linear(patchify(image, (2, 8, 8)), weight.flatten(1))
    theirs = torch.nn.functional.conv3d(image, weight, stride=(2, 8, 8)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "patch"), [((30, 32), (8, 8)), ((4, 8), (8, 8)), ((8, 8), (2, 2, 2)), ((0, 8), (8, 8))]
)
def test_sizes_that_do_not_fit_are_refused(size, patch):
    with pytest.raises(ShapeError, match=r"expected .* got"):
        Grid.of(size, patch)


def test_unpatchify_refuses_another_grid():
    with pytest.raises(ShapeError, match=r"\(B, 4, C \* 16\)"):
        unpatchify(torch.zeros(1, 5, 16), Grid.of((8, 8), (4, 4)))
