"""The masker `cells` against microsoft/SimMIM's MaskGenerator, drawn from numpy's global generator."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from core.maskers._cells import cell_of
from core.maskers.cells import whole_cell_plan
from core.shapes import Grid
from tests.parity.fixture import Fixture

pytestmark = pytest.mark.parity

NAME = re.compile(r"out\.mask_in(\d+)_mp(\d+)_pp(\d+)_r(\d+)_seed(\d+)")


def test_whole_cells_are_those_of_the_reference(parity):
    fixture = Fixture(parity / "simmim_mask_generator")
    found = [match for name in fixture.io if (match := NAME.fullmatch(name))]
    assert len(found) == 9
    for match in found:
        image, cell_voxels, patch, percent, seed = map(int, match.groups())
        grid, edge = Grid.of((image, image), (patch, patch)), cell_voxels // patch
        cells = image // cell_voxels
        order = np.random.RandomState(seed).permutation(cells**2)
        noise = torch.zeros(grid.tokens)
        noise[:cells, :cells] = 1.0 - torch.from_numpy(order.argsort()).reshape(cells, cells) / cells**2
        cell = cell_of(grid, torch.tensor([[float(edge)] * 2]))
        valid = torch.ones(1, grid.num_tokens, dtype=torch.bool)
        plan = whole_cell_plan(noise.reshape(1, -1), cell, valid, percent / 100)
        assert torch.equal(plan.hide.reshape(grid.tokens).long(), fixture.io[match.group(0)]), match.group(0)
