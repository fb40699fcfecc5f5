"""A domain's facts, and what the verbs make of them before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import ConfigError, DataError
from datasets import Manifest
from domains.verbs.collection import collect, one_kind
from domains.verbs.domain import Domain, Kind, Samples
from domains.verbs.features import Images, label_name


def no_set(folder: Path) -> Path:
    raise AssertionError("the sample set was drawn although there is data")


DOMAIN = Domain(
    name="kitchen",
    title="Kitchen",
    kinds=(Kind(name="plate", ndim=2, flips=(True, True)), Kind(name="pot", ndim=3, flips=(True,) * 3)),
    samples=Samples(
        folder="kitchen", draw=no_set, label="taste", group="cook", announcement="Drawn.", warning="Not food."
    ),
)


def plates(folder: Path, count: int) -> Manifest:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(1, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return collect(DOMAIN, [str(folder)], quiet=True)[0]


def test_kinds_are_found_by_rank_and_by_name() -> None:
    assert DOMAIN.kind_of(3).name == "pot"
    assert DOMAIN.kind_called("plate").flips == (True, True)
    with pytest.raises(ConfigError, match=r"no kind of image is called 'plat': did you mean 'plate'"):
        DOMAIN.kind_called("plat")
    with pytest.raises(ConfigError, match=r"plates \(2D\) and pots \(3D\).*domains\.kitchen.*4 axes"):
        DOMAIN.kind_of(4)


def test_one_and_several_images_are_counted_in_words(tmp_path: Path) -> None:
    for count, words in ((1, "1 plate in 1 group"), (3, "3 plates in 3 groups")):
        plates(tmp_path / str(count), count)
        assert collect(DOMAIN, [str(tmp_path / str(count))], quiet=True)[1] == words


def test_a_kind_that_is_not_there_is_refused(tmp_path: Path) -> None:
    manifest = plates(tmp_path / "set", 2)
    assert len(one_kind(DOMAIN, manifest, None)) == len(one_kind(DOMAIN, manifest, "plate")) == 2
    with pytest.raises(DataError, match="expected pots, the data has only plates"):
        one_kind(DOMAIN, manifest, "pot")


def test_the_domain_refuses_a_collection_before_it_is_used(tmp_path: Path) -> None:
    def vegetarian(manifest: Manifest) -> None:
        raise DataError(f"{manifest.path(0)}: there is meat on it.")

    plates(tmp_path / "set", 1)
    strict = Domain(name="k", title="K", kinds=DOMAIN.kinds, samples=DOMAIN.samples, check=vegetarian)
    with pytest.raises(DataError, match=r"0\.png: there is meat"):
        collect(strict, [str(tmp_path / "set")], quiet=True)


def test_the_label_of_the_sample_set_is_its_own() -> None:
    assert label_name(DOMAIN, Images(encoder="run")) == "taste"
    assert label_name(DOMAIN, Images(encoder="run", data=("here",), label="smell")) == "smell"
    with pytest.raises(ConfigError, match="the label 'taste' only, got 'smell'"):
        label_name(DOMAIN, Images(encoder="run", label="smell"))
    with pytest.raises(ConfigError, match="--label"):
        label_name(DOMAIN, Images(encoder="run", data=("here",)))
