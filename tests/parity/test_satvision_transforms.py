"""SatVision's value spaces, the authors' ABI calibration and their masks against nasa-nccs-hpda/pytorch-caney."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from core.encoders.cards.satvision import satvision_input
from core.maskers._cells import cell_of
from core.maskers.cells import whole_cell_plan
from core.preprocess import resample
from core.shapes import Grid
from domains.satellite.toa import ABI_BANDS, CALIBRATIONS, abi_input, normalise
from tests.parity.fixture import Fixture

pytestmark = pytest.mark.parity

MODIS = satvision_input()
MASK = re.compile(r"out\.mask_(\d+)_(\d+)_(\d+)_06_seed(\d+)")


@pytest.fixture(scope="module")
def fixture(parity):
    return Fixture(parity / "satvision_transforms")


def _bands_first(fixture: Fixture, name: str) -> np.ndarray:
    return np.moveaxis(fixture.io[name].numpy(), -1, 0)


def _close(fixture: Fixture, ours: np.ndarray, name: str) -> None:
    fixture.close(torch.from_numpy(np.ascontiguousarray(np.moveaxis(ours, 0, -1))), name)


def test_modis_values_are_scaled_as_by_the_authors(fixture):
    _close(fixture, normalise(_bands_first(fixture, "in.modis_hwc"), MODIS.bands, MODIS), "out.modis_scaled_hwc")


def test_the_constants_are_theirs_and_so_is_the_order_of_warm_bands(fixture):
    space, warm = MODIS.normalisation, fixture.io["out.emissive_indices"].tolist()
    assert [at for at, band in enumerate(MODIS.described) if band.unit == "K"] == warm
    for entry, name in ((MODIS, "modis"), (abi_input("satvision_legacy"), "abi")):
        space = entry.normalisation
        low, high = torch.tensor(space.mean)[warm], (torch.tensor(space.mean) + torch.tensor(space.std))[warm]
        torch.testing.assert_close(low, fixture.io[f"out.{name}_emissive_min"])
        torch.testing.assert_close(high, fixture.io[f"out.{name}_emissive_max"])


def test_the_legacy_calibration_of_abi_is_theirs(fixture):
    calibrated = CALIBRATIONS["satvision_legacy"](_bands_first(fixture, "in.abi_radiance_hwc"), ABI_BANDS)
    _close(fixture, calibrated, "out.abi_calibrated_hwc")


def test_the_legacy_value_space_of_abi_is_theirs(fixture):
    scaled = normalise(_bands_first(fixture, "in.abi_physical_hwc"), ABI_BANDS, abi_input("satvision_legacy"))
    _close(fixture, scaled, "out.abi_scaled_hwc")


def test_the_whole_transform_scales_and_then_resizes(fixture):
    scaled = normalise(_bands_first(fixture, "in.modis_hwc"), MODIS.bands, MODIS)
    resized, inside = resample(scaled, np.ones(scaled.shape[1:], bool), (32, 32))
    assert inside.all()
    fixture.close(torch.from_numpy(resized), "out.modis_toa_transform_chw_32")


def test_masks_are_those_of_their_generator(fixture):
    found = [match for name in fixture.io if (match := MASK.fullmatch(name))]
    assert len(found) == 6
    for match in found:
        image, cell_voxels, patch, seed = map(int, match.groups())
        grid, cells = Grid.of((image, image), (patch, patch)), image // cell_voxels
        order = np.random.RandomState(seed).permutation(cells**2)
        noise = torch.zeros(grid.tokens)
        noise[:cells, :cells] = 1.0 - torch.from_numpy(order.argsort()).reshape(cells, cells) / cells**2
        cell = cell_of(grid, torch.tensor([[float(cell_voxels // patch)] * 2]))
        valid = torch.ones(1, grid.num_tokens, dtype=torch.bool)
        plan = whole_cell_plan(noise.reshape(1, -1), cell, valid, 0.6)
        assert torch.equal(plan.hide.reshape(grid.tokens).long(), fixture.io[match.group(0)]), match.group(0)
    assert int(fixture.io["out.mask_128_8_4_06_seed0"].sum()) == 154 * 4
