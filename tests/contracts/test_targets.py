"""Every target of the folder sits the exam in 2D, in 3D and with 14 bands; and once more with each of its named options."""

from __future__ import annotations

import pytest

from core import registry
from core.errors import ConfigError
from core.testing.samples import INPUTS
from core.testing.target_contract import TargetContract, made, options_of

# an input that has no such bands; the target refuses it, see below
UNSUITED = {("indices", "volume"), ("indices", "cube")}


def _options(name):
    try:
        return options_of(registry.get("targets", name))
    except Exception:  # a file that cannot be imported fails in the tests of its defaults, not in collection
        return []


KINDS = [(name, kind, {}) for name in registry.names("targets") for kind in INPUTS]
KINDS += [
    (name, kind, {option: choice})
    for name in registry.names("targets")
    for option, choice in _options(name)
    for kind in ("scene" if name == "indices" else "volume",)
    if option != "radiometric"
]


def _id(case):
    return "-".join([*case[:2], *(f"{option}={choice}" for option, choice in case[2].items())])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("codebooks")


@pytest.fixture(params=[case for case in KINDS if case[:2] not in UNSUITED], ids=_id)
def case(request):
    return request.param


@pytest.fixture
def entry(case):
    return INPUTS[case[1]]


@pytest.fixture
def target(case, entry, folder):
    return made(case[0], entry, folder, **case[2])


class TestTargets(TargetContract):
    pass


@pytest.mark.parametrize(("name", "kind"), sorted(UNSUITED))
def test_an_input_that_does_not_suit_is_refused(name, kind, folder):
    with pytest.raises(ConfigError, match="expected the bands"):
        made(name, INPUTS[kind], folder).num_values(INPUTS[kind])


def test_the_folder_and_its_options_are_visited():
    names = {case[0] for case in KINDS}
    assert {"band_mean", "codebook", "gradient", "hog", "indices", "pixels"} <= names
    assert ("hog", "volume", {"normalise": "token"}) in KINDS
