"""Every fill of the folder sits the exam, in 2D with six and with 14 bands and in 3D, over tokens and over voxels."""

from __future__ import annotations

import pytest

from core import registry
from core.testing.fill_contract import FillContract
from core.testing.samples import INPUTS


@pytest.fixture(params=registry.names("fills"))
def name(request):
    return request.param


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


class TestFills(FillContract):
    pass


def test_the_folder_is_visited():
    ours = {"drop", "mask_token", "mean", "noise", "other_sample", "codeword", "projection"}
    assert ours <= set(registry.names("fills"))
