"""Scenes meet an encoder's input by the names of their bands, whichever of the sensor's names a file uses."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from core.contract import Contract, Input, Normalisation
from core.errors import BandError
from core.inference import Scene
from datasets import open_image
from domains.satellite.scenes import Reading, input_for, look, matched, open_scenes, scene_of
from tests.domains.satellite.writing import geotiff, landsat

HLS = Input(
    name="scene",
    bands=("blue", "green", "nir_narrow"),
    patch=(4, 4),
    size=(8, 8),
    spacing=(30.0, 30.0),
    unit="m",
    sensor="hls",
    normalisation=Normalisation(method="fixed", mean=(0.1, 0.2, 0.3), std=(0.1, 0.2, 0.1), full_scale=False),
)
LEVEL = {"B03": 2000, "B02": 1000, "B05": 60000, "B8A": 3000}  # B05 is no band of the sensor, and far from reflectance
SCALE = {"B03": 1e-4, "B02": 2e-4, "B05": 1e-4, "B8A": 1e-4}


def opened(path: Path, names: tuple[str, ...], entry: Input) -> Scene:
    rise = np.arange(64, dtype=np.uint16).reshape(8, 8)
    geotiff(path, np.stack([rise + LEVEL[name] for name in names]), names, scales=tuple(SCALE[n] for n in names))
    image = open_image(path)
    found = input_for(Contract(inputs=(entry,)), image)
    assert found is entry
    look(image, found)  # the values are those of the bands that are named, or it refuses
    return scene_of(image, found)


def test_any_order_of_other_names_in_a_file_is_the_same_scene(tmp_path: Path) -> None:
    window = (slice(1, 7), slice(2, 8))
    rise = np.arange(64, dtype=np.uint16).reshape(8, 8)[window]
    for normalisation in (HLS.normalisation, Normalisation(method="per_image")):
        entry = replace(HLS, normalisation=normalisation)
        scenes = [opened(tmp_path / "a.tif", names, entry) for names in permutations(LEVEL)]
        first = scenes[0]
        for scene in scenes:
            values, valid = scene.read(window)
            assert np.array_equal(values, [rise + 1000, rise + 2000, rise + 3000])
            assert valid.all()
            assert scene.bands == HLS.bands
            assert np.array_equal(scene.offset, first.offset)
            assert np.array_equal(scene.scale, first.scale)
        if normalisation.method == "fixed":  # raw x 2e-4 less 0.1, by 0.1; raw x 1e-4 less 0.2, by 0.2; ...
            np.testing.assert_allclose(first.offset, (500, 2000, 3000), rtol=1e-6)
            np.testing.assert_allclose(first.scale, (2e-3, 5e-4, 1e-3), rtol=1e-6)


def test_two_names_of_one_band_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    names = ("B02", "BLUE", "B03", "B8A")
    image = open_image(geotiff(tmp_path / "twice.tif", np.ones((4, 8, 8), np.uint16), names))
    with pytest.raises(BandError, match=r"twice\.tif: input 'scene': expected one band for \['blue'\], but several of"):
        input_for(Contract(inputs=(HLS,)), image)
    with pytest.raises(BandError, match=r"twice\.tif: input 'scene': expected one band for \['blue'\], but several of"):
        scene_of(image, HLS)


def test_a_scene_of_other_bands_is_told_to_name_them_only_where_it_does_not(tmp_path: Path) -> None:
    pixels = np.ones((3, 8, 8), np.uint16)
    named = open_image(geotiff(tmp_path / "named.tif", pixels, ("red", "nir", "swir")))
    with pytest.raises(
        BandError, match=r"named\.tif: .*with bands \('red', .*\)\. Choose scenes that have those bands"
    ) as told:
        input_for(Contract(inputs=(HLS,)), named)
    assert "--options" not in str(told.value)
    with pytest.raises(BandError, match=r"plain\.tif: .* Name the file's bands in their order .*geotiff\.bands="):
        input_for(Contract(inputs=(HLS,)), open_image(geotiff(tmp_path / "plain.tif", pixels)))


def test_a_folder_of_surface_reflectance_is_read_by_the_numbers_of_its_bands(tmp_path: Path) -> None:
    values = Normalisation(method="fixed", mean=(0.1, 0.2), std=(0.1, 0.1), full_scale=False)
    entry = replace(HLS, bands=("B4", "B2"), sensor="landsat7", normalisation=values)
    pixels = np.stack([np.full((8, 8), level, np.uint16) for level in (1000, 2000, 3000)])
    folder = landsat(tmp_path / "scene", pixels, ("SR_B1", "SR_B2", "SR_B4"), scales=(1e-4,))
    image = open_image(folder)
    assert image.bands == ("SR_B1", "SR_B2", "SR_B4")
    found = input_for(Contract(inputs=(entry,)), image)
    look(image, found)
    read, _ = scene_of(image, found).read((slice(0, 4), slice(0, 4)))
    assert read[:, 0, 0].tolist() == [3000, 2000]


@pytest.mark.parametrize(
    ("factor", "refused"), [(1.0, None), (1 / 20, None), (20.0, None), (1e-4, "smaller"), (1e4, "larger")]
)
def test_without_a_sensor_values_of_another_order_in_every_band_are_refused(
    tmp_path: Path, factor: float, refused: str | None
) -> None:
    values = Normalisation(method="fixed", mean=(400.0, 600.0), std=(100.0, 100.0), full_scale=False)
    entry = replace(HLS, bands=("red", "nir"), sensor="", normalisation=values)
    pixels = np.stack([np.full((8, 8), level * factor, np.float32) for level in (450, 500)])
    image = open_image(geotiff(tmp_path / "scene.tif", pixels, ("red", "nir")))
    if refused is None:
        look(image, entry)
    else:
        with pytest.raises(
            BandError,
            match=rf"scene\.tif: band red has median .* about 400 \(deviation 100\).*100 times {refused} than",
        ):
            look(image, entry)
    pixels[1] = 600.0  # one band as it was learnt: a scene, not a unit
    look(open_image(geotiff(tmp_path / "other.tif", pixels, ("red", "nir"))), entry)


def test_scenes_are_called_as_the_encoder_does_and_what_names_alone_tell_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.ones((3, 8, 8), np.uint16)
    names = {"a.tif": ("B02", "B03", "B8A"), "b.tif": ("B02", "B03", "B8A"), "c.tif": ("blue", "green", "nir_narrow")}
    files = [geotiff(tmp_path / name, pixels, bands) for name, bands in names.items()]
    reading = Reading(data=tuple(map(str, files)))
    pairs = matched(open_scenes(reading), Contract(inputs=(HLS,)))
    assert [found.image.path.name for found, _ in pairs] == list(names)
    assert {found.image.bands for found, _ in pairs} == {HLS.bands}
    assert all(entry is HLS for _, entry in pairs)
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(
        "bands B02, B03, B8A of a.tif, and of scenes that call them so, are taken for blue, green, nir_narrow of hls"
    )
    product = geotiff(tmp_path / "LC08_L1TP_022049_20200101_stack.tif", pixels, ("B2", "B3", "B5"))
    entry = replace(HLS, bands=("B02", "B03", "B05"), sensor="sentinel2_l2a")
    with pytest.raises(
        BandError, match=r"a product of landsat8, whose band B5 is at 865 nm, but input 'scene' reads B05"
    ):
        matched(open_scenes(Reading(data=(str(product),))), Contract(inputs=(entry,)))


def test_counts_are_no_reflectance_where_each_scene_is_normalised_by_itself_either(tmp_path: Path) -> None:
    counts = np.stack([np.arange(64, dtype=np.uint16).reshape(8, 8) + level for level in (1000, 2000, 3000)])
    image = open_image(geotiff(tmp_path / "counts.tif", counts, HLS.bands))
    with pytest.raises(BandError, match=r"counts\.tif: band blue has median .* it looks like counts"):
        look(image, replace(HLS, normalisation=Normalisation(method="per_image")))
