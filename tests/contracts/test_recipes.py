"""Every recipe of the folder sits the exam, in 2D with six bands and in 3D with 5 x 1 x 1 mm voxels."""

from __future__ import annotations

import pytest
import torch

from core import registry
from core.testing.recipe_contract import RecipeContract, check_ranks
from core.testing.samples import INPUTS, recipe_spec


@pytest.fixture(params=registry.names("recipes"))
def name(request):
    return request.param


@pytest.fixture
def recipe(name):
    torch.manual_seed(0)
    return recipe_spec(name).build()


@pytest.fixture
def fresh(name, entry):
    def build():
        torch.manual_seed(0)
        return recipe_spec(name, entry).build()

    return build


@pytest.fixture(params=INPUTS)
def entry(request):
    return INPUTS[request.param]


class TestRecipes(RecipeContract):
    pass


@pytest.mark.parametrize("names", [("mae",), registry.names("recipes")], ids=["mae", "all"])
def test_two_ranks_equal_one_process(names):
    check_ranks(names)


def test_the_folder_is_visited():
    assert {"mae", "uni4eye"} <= set(registry.names("recipes"))
