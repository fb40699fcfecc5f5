"""Every predictor of the folder sits the exam, of plain, convolutional, merging and grouped encoders, in 2D and 3D."""

from __future__ import annotations

import pytest

from core import registry
from core.testing.predictor_contract import PredictorContract
from core.testing.samples import INPUTS


@pytest.fixture(params=registry.names("predictors"))
def name(request):
    return request.param


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


class TestPredictors(PredictorContract):
    pass


def test_the_folder_is_visited():
    assert {"transformer", "linear", "u_decoder"} <= set(registry.names("predictors"))
