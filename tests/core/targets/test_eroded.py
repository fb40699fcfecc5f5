"""Which voxels have measured neighbours alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from core.targets._eroded import eroded


@pytest.mark.parametrize("size", [(7, 9), (4, 6, 8), (1, 5, 5)])
@pytest.mark.parametrize("reach", [1, 2])
def test_a_voxel_stays_where_its_whole_neighbourhood_is_valid(size, reach):
    valid = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) > 0.03
    before = valid.clone()
    pool = functional.max_pool2d if len(size) == 2 else functional.max_pool3d
    expected = pool((~valid).float(), 2 * reach + 1, stride=1, padding=reach) == 0.0
    found = eroded(valid, reach)
    assert torch.equal(found, expected)
    assert found.any()
    assert not torch.equal(found, valid)
    assert torch.equal(valid, before)


def test_only_the_named_axes_are_looked_along():
    valid = torch.ones(1, 1, 5, 5, 5, dtype=torch.bool)
    valid[0, 0, 2, 2, 2] = False
    lost = {tuple(place) for place in (~eroded(valid, axes=(0, 2)))[0, 0].nonzero().tolist()}
    assert lost == {(z, 2, x) for z in (1, 2, 3) for x in (1, 2, 3)}
