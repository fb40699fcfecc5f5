"""Every masker of the folder sits the exam, in 2D with six and with 14 bands and in 3D, with and without band groups."""

from __future__ import annotations

import pytest

from core import registry
from core.testing.masker_contract import MaskerContract
from core.testing.samples import INPUTS

SLOW = {"shape_aware"}  # cuts every image into superpixels
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in registry.names("maskers")]


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


class TestMaskers(MaskerContract):
    pass


def test_the_folder_is_visited():
    ours = {
        "random",
        "cells",
        "boxes",
        "tube",
        "color_noise",
        "entropy",
        "regions",
        "bands",
        "scribble",
        "voxel_blocks",
    }
    assert ours <= set(registry.names("maskers"))
