"""Choices of tokens become choices of voxels, and the other way round."""

from __future__ import annotations

import pytest
import torch

from core.shapes import Grid, patchify
from core.voxel_masks import to_voxels, token_share


@pytest.mark.parametrize("grid", [Grid((2, 3), (2, 4)), Grid((2, 2, 3), (1, 4, 2))])
def test_tokens_become_voxels(grid):
    tokens = torch.rand(3, grid.num_tokens) < 0.5
    voxels = to_voxels(tokens, grid, ("a",))
    assert voxels.shape == (3, 1, *grid.size)
    assert torch.equal(patchify(voxels, grid.patch), tokens[..., None].expand(-1, -1, grid.voxels))
    torch.testing.assert_close(token_share(voxels, grid), tokens.float())


def test_tokens_of_groups_become_voxels_of_their_bands():
    grid = Grid((2, 2), (2, 2), (("red",), ("green", "blue")))
    tokens = torch.tensor([[True, False, False, False, False, True, False, False]])
    voxels = to_voxels(tokens, grid, ("blue", "red", "green"))
    assert voxels.shape == (1, 3, 4, 4)
    assert torch.equal(voxels[0, 0], voxels[0, 2])
    assert patchify(voxels[:, [1]], (2, 2)).all(2).tolist() == [[True, False, False, False]]
    assert patchify(voxels[:, [0]], (2, 2)).all(2).tolist() == [[False, True, False, False]]
