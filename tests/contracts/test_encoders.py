"""Every encoder of the folder sits the exam, in 2D with 6 and 14 bands and in 3D with 5 x 1 x 1 mm voxels."""

from __future__ import annotations

import pytest
import torch

from core import registry
from core.contract import Contract
from core.testing.encoder_contract import EncoderContract, tiny_spec
from core.testing.samples import INPUTS

ALL = Contract(inputs=tuple(INPUTS.values()))


@pytest.fixture(params=registry.names("encoders"))
def fresh(request):
    torch.manual_seed(0)
    return lambda contract: tiny_spec(request.param, contract).build()


@pytest.fixture
def encoder(fresh):
    return fresh(ALL)


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


class TestEncoders(EncoderContract):
    pass


def test_the_folder_is_visited():
    assert {"vit", "swin", "swinv2", "relative_vit", "convnet"} <= set(registry.names("encoders"))
