"""Every head of the folder sits the exam on a transformer of one grid and one that merges tokens, in 2D, 3D, with 14 bands."""

from __future__ import annotations

import pytest

from core import registry
from core.errors import ConfigError
from core.testing.head_contract import HeadContract, tiny_model
from core.testing.samples import INPUTS

UNSUITED = {("cloud_mask", "volume")}  # a section lies below an image; refused, see below
ENCODERS = (("vit", "scene"), ("vit", "volume"), ("swinv2", "cube"), ("swinv2", "volume"))
CASES = [
    (name, encoder, kind)
    for name in registry.names("heads")
    for encoder, kind in ENCODERS
    if (name, kind) not in UNSUITED
]


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return request.param


@pytest.fixture
def entry(case):
    return INPUTS[case[2]]


@pytest.fixture
def model(case, entry):
    return tiny_model(case[0], case[1], entry)


class TestHeads(HeadContract):
    pass


def test_the_folder_is_visited():
    assert {"classify", "cloud_mask", "regress", "segment", "upernet"} == set(registry.names("heads"))


def test_a_section_below_volumes_is_refused():
    with pytest.raises(ConfigError, match="a cloud section, got volumes"):
        tiny_model("cloud_mask", "vit", INPUTS["volume"])


def test_an_encoder_without_levels_is_refused_a_pyramid():
    from core.encoders.vit import ViT

    taken = ViT.abilities
    try:
        ViT.abilities = taken - {"levels"}
        with pytest.raises(ConfigError, match="gives its inner levels, got ViT: choose the head 'segment'"):
            tiny_model("upernet", "vit", INPUTS["scene"])
    finally:
        ViT.abilities = taken
