"""The folder is the registry."""

from __future__ import annotations

import pytest

from core import registry
from core.errors import ConfigError, nearest
from core.maskers.random import Random


def test_names_are_file_stems_without_interfaces_and_loaders() -> None:
    assert "random" in registry.names("maskers")
    assert not {"base", "load", "__init__"} & {
        name for kind in ("maskers", "encoders") for name in registry.names(kind)
    }


@pytest.mark.parametrize("kind", ["maskers", "targets", "predictors", "encoders", "fills", "teachers", "recipes"])
def test_every_file_is_one_part_that_knows_its_kind_and_name(kind: str) -> None:
    for name in registry.names(kind):
        part = registry.get(kind, name)
        assert part.part_kind == kind
        assert registry.name_of_class(part) == name


def test_part_and_plain_object_are_told_apart() -> None:
    assert registry.kind_of(Random()) == "maskers"
    assert registry.name_of(Random()) == "random"
    assert registry.kind_of(3) is None


def test_unknown_part_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no masker is called 'randm': did you mean 'random'\?"):
        registry.get("maskers", "randm")


def test_unknown_kind_is_an_error() -> None:
    with pytest.raises(ConfigError, match="expected a folder of parts, got 'nothing'"):
        registry.names("nothing")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sentinel2", "did you mean 'sentinel2_l1c' or 'sentinel2_l2a'?"),
        ("sentinle1", "did you mean 'sentinel1'?"),
        ("spot", "known: sentinel1, sentinel2_l1c, sentinel2_l2a."),
        ("", "known: sentinel1, sentinel2_l1c, sentinel2_l2a."),
    ],
)
def test_the_nearest_name_is_one_that_begins_so_before_one_that_looks_so(name: str, said: str) -> None:
    assert nearest(name, ["sentinel2_l2a", "sentinel1", "sentinel2_l1c"]) == said
