from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from core.contract import Contract, Input, Normalisation
from core.errors import BandError, ConfigError
from datasets import build_manifest
from domains.verbs.features import copies_in_other_groups, input_of
from tests.domains.satellite.writing import geotiff

OPTICAL, RADAR = (
    Input(
        name=name,
        bands=bands,
        patch=(8, 8),
        size=(32, 32),
        spacing=(10.0, 10.0),
        unit="m",
        normalisation=Normalisation(method="per_image"),
    )
    for name, bands in (("optical", ("red", "nir")), ("radar", ("VV", "VH")))
)
BOTH = SimpleNamespace(contract=Contract(inputs=(OPTICAL, RADAR)))


def scene(path: Path, bands: tuple[str, ...]) -> str:
    values = np.random.default_rng(len(bands)).integers(1, 200, (len(bands), 32, 32)).astype(np.uint16)
    return str(geotiff(path, values, bands))


def test_images_are_read_by_the_input_that_has_their_bands_not_by_the_first_of_their_rank(tmp_path: Path) -> None:
    radar = build_manifest([scene(tmp_path / "radar.tif", ("VH", "VV"))])
    assert input_of(BOTH, radar, None) is RADAR
    assert input_of(BOTH, radar, (64,)).whole == (64, 64)
    assert input_of(BOTH, build_manifest([scene(tmp_path / "optical.tif", ("red", "nir"))]), None) is OPTICAL


def test_images_of_two_inputs_or_of_none_are_refused_before_any_is_read(tmp_path: Path) -> None:
    optical, radar = scene(tmp_path / "a.tif", ("red", "nir")), scene(tmp_path / "b.tif", ("VV", "VH"))
    with pytest.raises(
        ConfigError, match=r"of one input of the encoder, got those of 'optical' \(.*a.tif\) and 'radar'"
    ):
        input_of(BOTH, build_manifest([optical, radar]), None)
    with pytest.raises(BandError, match=r"c.tif: expected bands \('red', 'nir'\) or \('VV', 'VH'\), the image has"):
        input_of(BOTH, build_manifest([scene(tmp_path / "c.tif", ("red", "green"))]), None)


def test_copies_in_other_groups_are_counted_and_those_within_one_are_not() -> None:
    assert copies_in_other_groups(["a", "b", "a", "b", "c"], ["p1", "p2", "p1", "p2", "p3"]) == []
    (note,) = copies_in_other_groups(["a", "b", "a", "b", "c"], ["p1", "p2", "p3", "p2", "p3"])
    assert note.startswith("2 of these 5 images are in several groups, byte for byte")
