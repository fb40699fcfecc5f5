"""Bands by name or not at all; what an open config measures on its scenes; values that are not in a sensor's unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.config import override
from core.contract import Input
from core.encoders.cards.fgmae import MSI_BANDS, fgmae_input
from core.engine.config import Pretrain
from core.errors import BandError, DataError
from datasets import Manifest, split_groups
from domains.satellite import domain
from domains.satellite.collection import SATELLITE, check_values, resolve
from domains.satellite.pretrain import fgmae_s2, tiny
from domains.verbs.collection import collect
from tests.domains.satellite.writing import geotiff, landsat, noise

FOUR = ("blue", "green", "red", "nir")


def look(*paths: Path, options: tuple[str, ...] = ()) -> Manifest:
    return collect(SATELLITE, [str(path) for path in paths], options=options, quiet=True)[0]


def entry_of(config: Pretrain) -> Input:
    (entry,) = config.recipe.encoder.contract.inputs
    return entry


def test_unnamed_bands_are_refused_with_the_option_that_names_them(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", noise(4, 96, 96).astype(np.uint16))
    with pytest.raises(
        BandError, match=r"a\.tif: expected bands with names.* 0 of its 4.* --options geotiff\.bands=\[blue,green"
    ):
        look(path)
    more = geotiff(tmp_path / "more.tif", noise(6, 96, 96).astype(np.uint16))
    with pytest.raises(BandError, match=r"name all 6 .*geotiff\.bands=\[blue,green,red,nir,b5,b6\]\.$"):
        look(more)
    named = look(path, options=("geotiff.bands=[blue,green,red,nir]",))
    assert named.column("bands") == [list(FOUR)]


def test_scenes_of_different_bands_are_refused_with_both_lists(tmp_path: Path) -> None:
    one = geotiff(tmp_path / "one.tif", noise(4, 96, 96).astype(np.uint16), FOUR)
    other = geotiff(tmp_path / "other.tif", noise(3, 96, 96, seed=1).astype(np.uint16), ("red", "nir", "swir"))
    manifest = look(one, other)
    with pytest.raises(BandError) as refused:
        resolve(tiny(), manifest)
    for words in ("one.tif has ('blue', 'green', 'red', 'nir')", "other.tif has ('red', 'nir', 'swir')", "--bands"):
        assert words in str(refused.value)
    shared = override(tiny(), {"recipe.encoder.contract.inputs.0.bands": ["nir", "red"]})
    assert entry_of(resolve(shared, manifest)).bands == ("nir", "red")


def test_the_order_of_bands_in_a_file_is_no_difference(tmp_path: Path) -> None:
    pixels = noise(4, 96, 96).astype(np.uint16)
    one = geotiff(tmp_path / "one.tif", pixels, FOUR)
    turned = geotiff(tmp_path / "turned.tif", pixels[::-1] + 1, FOUR[::-1])
    entry = entry_of(resolve(tiny(), look(one, turned)))
    assert entry.bands == FOUR
    expected = np.concatenate([pixels, pixels + 1], axis=2).astype(np.float64)
    np.testing.assert_allclose(entry.normalisation.mean, expected.mean((1, 2)), rtol=1e-5)


def test_a_band_that_no_scene_has_is_named(tmp_path: Path) -> None:
    manifest = look(geotiff(tmp_path / "a.tif", noise(4, 96, 96).astype(np.uint16), FOUR))
    config = override(tiny(), {"recipe.encoder.contract.inputs.0.bands": ["red", "swir"]})
    with pytest.raises(BandError, match=r"a\.tif: expected bands \('red', 'swir'\).* lacks swir;"):
        resolve(config, manifest)


def test_value_space_is_measured_on_measured_training_pixels_in_physical_values(tmp_path: Path) -> None:
    scale, parts = 1e-4, []
    for number, side in enumerate((96, 160)):
        pixels = noise(2, side, side, low=500, high=6000, seed=number).astype(np.uint16)
        pixels[:, : side // 3] = 0
        geotiff(tmp_path / f"s{number}.tif", pixels, ("red", "nir"), nodata=0, scales=(scale, scale))
        parts.append(pixels[:, side // 3 :].reshape(2, -1) * scale)
    held_out = noise(2, 96, 96, low=20_000, high=30_000).astype(np.uint16)
    geotiff(tmp_path / "held.tif", held_out, ("red", "nir"), nodata=0, scales=(scale, scale))
    manifest = look(tmp_path)
    splits = ["held_out" if path.name == "held.tif" else "train" for path in manifest.paths]
    fitted = resolve(tiny(), manifest.with_column("split", splits))
    entry, pixels = entry_of(fitted), np.concatenate(parts, axis=1)
    assert entry.bands == ("red", "nir")
    assert (entry.unit, entry.spacing) == ("m", (30.0, 30.0))
    assert not entry.normalisation.full_scale
    np.testing.assert_allclose(entry.normalisation.mean, pixels.mean(1), rtol=1e-5)
    np.testing.assert_allclose(entry.normalisation.std, pixels.std(1), rtol=1e-4)
    assert resolve(fitted, manifest) == fitted
    assert not domain.is_open(entry)


def test_colour_photographs_are_shares_of_full_scale(tmp_path: Path) -> None:
    pixels = noise(3, 64, 64).astype(np.uint8)
    Image.fromarray(np.moveaxis(pixels, 0, 2)).save(tmp_path / "a.png")
    entry = entry_of(resolve(tiny(), look(tmp_path / "a.png")))
    assert (entry.sensor, entry.unit, entry.normalisation.full_scale) == ("rgb", "px", True)
    np.testing.assert_allclose(entry.normalisation.mean, pixels.mean((1, 2)) / 255, rtol=1e-5)


def test_scenes_with_and_without_a_scale_do_not_go_together(tmp_path: Path) -> None:
    geotiff(tmp_path / "counts.tif", noise(1, 96, 96).astype(np.uint16), ("red",))
    geotiff(tmp_path / "scaled.tif", noise(1, 96, 96, seed=1).astype(np.uint16), ("red",), scales=(1e-4,))
    with pytest.raises(DataError, match=r"scaled\.tif says how .*counts\.tif does not"):
        resolve(tiny(), look(tmp_path))


def test_a_constant_band_is_left_out_by_name(tmp_path: Path) -> None:
    pixels = noise(3, 96, 96).astype(np.uint16)
    pixels[1] = 7
    manifest = look(geotiff(tmp_path / "a.tif", pixels, ("red", "flag", "nir")))
    with pytest.raises(DataError, match=r"flag is the same .*--bands=red,nir$"):
        resolve(tiny(), manifest)


def test_pixels_with_and_without_a_size_do_not_go_together(tmp_path: Path) -> None:
    pixels = noise(3, 96, 96).astype(np.uint8)
    geotiff(tmp_path / "placed.tif", pixels, ("red", "green", "blue"))
    Image.fromarray(np.moveaxis(pixels, 0, 2)).save(tmp_path / "photograph.png")
    with pytest.raises(DataError, match="units m and px"):
        resolve(tiny(), look(tmp_path))


def test_counts_are_refused_where_a_preset_expects_reflectance(tmp_path: Path) -> None:
    counts = noise(13, 256, 256, low=800, high=4000).astype(np.uint16)
    path = geotiff(tmp_path / "counts.tif", counts, MSI_BANDS, step=10.0)
    with pytest.raises(BandError, match=r"counts\.tif: band B01 has median .*reflectance in 0\.\.1.*10000"):
        resolve(fgmae_s2(), look(path))
    scaled = geotiff(tmp_path / "scaled.tif", counts, MSI_BANDS, step=10.0, scales=(1e-4,) * 13)
    assert resolve(fgmae_s2(), look(scaled)) == fgmae_s2()


def test_other_names_of_the_same_bands_are_told(tmp_path: Path) -> None:
    names = tuple(name.replace("B0", "B") for name in MSI_BANDS)
    path = geotiff(tmp_path / "a.tif", noise(13, 96, 96).astype(np.uint16), names)
    with pytest.raises(BandError, match=r"under other names.*geotiff\.bands=\[B01,B02,.*,B12\]"):
        check_values(look(path), fgmae_input("s2", 16))


def test_band_files_are_one_scene(tmp_path: Path) -> None:
    landsat(tmp_path / "scene", noise(3, 96, 96).astype(np.int16), ("B1", "B2", "B3"), nodata=-9999)
    manifest = look(tmp_path)
    assert len(manifest) == 1
    assert entry_of(resolve(tiny(), manifest)).bands == ("B1", "B2", "B3")


def test_a_collection_that_was_split_keeps_what_was_measured(scenes: Path) -> None:
    manifest = split_groups(look(scenes / "labels.csv"), 0.3, seed=0)
    entry = entry_of(resolve(tiny(), manifest))
    assert len(entry.bands) == 13
    other = manifest.with_column("split", ["train"] * len(manifest))
    assert entry_of(resolve(tiny(), other)).normalisation != entry.normalisation
