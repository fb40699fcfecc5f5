"""Bands by name or not at all; what an open config measures on its scenes; values that are not in a sensor's unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from core.batch import Batch
from core.config import override
from core.contract import Input, Normalisation
from core.encoders.cards.fgmae import MSI_BANDS, fgmae_input
from core.engine.config import Pretrain
from core.errors import BandError, DataError
from datasets import Manifest, TileLoader, split_groups, whole_batches
from domains.satellite import domain
from domains.satellite.collection import SATELLITE, check_values, resolve
from domains.satellite.pretrain import fgmae_s2, tiny
from domains.verbs.collection import collect
from domains.verbs.pretrain import streams
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
        BandError, match=r"a\.tif: expected bands with names.* 0 of its 4.* --options 'geotiff\.bands=\[blue,green"
    ):
        look(path)
    more = geotiff(tmp_path / "more.tif", noise(6, 96, 96).astype(np.uint16))
    with pytest.raises(BandError, match=r"name all 6 .*geotiff\.bands=\[blue,green,red,nir,b5,b6\]'\.$"):
        look(more)
    named = look(path, options=("geotiff.bands=[blue,green,red,nir]",))
    assert named.column("bands") == [list(FOUR)]


def test_scenes_of_different_bands_are_refused_with_both_lists(tmp_path: Path) -> None:
    one = geotiff(tmp_path / "one.tif", noise(4, 96, 96).astype(np.uint16), FOUR)
    other = geotiff(tmp_path / "other.tif", noise(3, 96, 96, seed=1).astype(np.uint16), ("red", "nir", "swir"))
    manifest = look(one, other)
    with pytest.raises(BandError) as refused:
        resolve(tiny(), manifest)
    for words in (
        "one.tif has ('blue', 'green', 'red', 'nir')",
        "other.tif has ('red', 'nir', 'swir')",
        "--bands=red,nir,",
    ):
        assert words in str(refused.value)
    none = geotiff(tmp_path / "none.tif", noise(2, 96, 96, seed=2).astype(np.uint16), ("thermal", "pan"))
    with pytest.raises(BandError, match=r"has \('thermal', 'pan'\): say with --sensor whose names they are"):
        resolve(tiny(), look(one, none))
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


def test_bands_that_a_trained_encoder_misses_are_told_with_those_that_are_there(tmp_path: Path) -> None:
    trained = entry_of(resolve(tiny(), look(geotiff(tmp_path / "a.tif", noise(4, 96, 96).astype(np.uint16), FOUR))))
    three = look(geotiff(tmp_path / "b.tif", noise(3, 96, 96).astype(np.uint16), ("nir", "red", "blue")))
    with pytest.raises(BandError, match=r"b\.tif: .* lacks green; .* pretrain .*: tiny --bands=blue,red,nir\.$"):
        check_values(three, trained)
    others = look(geotiff(tmp_path / "c.tif", noise(2, 96, 96).astype(np.uint16), ("VV", "VH")))
    with pytest.raises(BandError, match=r"c\.tif: .* choose scenes of the encoder's sensor, call the bands"):
        check_values(others, trained)


def test_scenes_that_are_smaller_than_what_the_encoder_sees_are_said_with_a_size_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("red", "nir")
    large = geotiff(tmp_path / "a.tif", noise(2, 96, 96).astype(np.uint16), names)
    small = geotiff(tmp_path / "b.tif", noise(2, 50, 70).astype(np.uint16), names)
    entry = entry_of(resolve(tiny(), look(large)))
    SATELLITE.check_values(look(large), entry)
    assert capsys.readouterr().err == ""
    SATELLITE.check_values(look(large, small), entry)
    said = capsys.readouterr().err
    assert said.startswith(
        "1 of 2 scenes are smaller than the 64 x 64 pixels that the encoder sees, such as b.tif of 50 x 70:"
    )
    assert "--size=48,64 shows no more than they hold" in said
    fitted = replace(entry, whole_size=(48, 64))
    assert all(batch.valid.all() for batch in whole_batches(look(large, small), fitted, 2))
    SATELLITE.check_values(look(large, small), fitted)
    assert capsys.readouterr().err == ""
    SATELLITE.check_values(look(large, small), replace(entry, unit="px", spacing=(1.0, 1.0)))  # resized, not padded
    assert capsys.readouterr().err == ""


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


ALIASES = tuple(name.replace("B0", "B") for name in MSI_BANDS)


def sensed(**changes: object) -> Pretrain:
    """The preset tiny with a sensor named, and small batches."""
    entry = "recipe.encoder.contract.inputs.0"
    return override(tiny(), {"data.streams.0.batch_size": 4} | {f"{entry}.{name}": v for name, v in changes.items()})


def batches(config: Pretrain, manifest: Manifest) -> Iterator[Batch]:
    loader = TileLoader(manifest, streams(config), seed=7)
    return iter([*loader.batches(0, 3), *loader.held_out(entry_of(config).name, 2)])


def scaled(folder: Path, names: tuple[str, ...], number: int = 4) -> Path:
    """Scenes of Sentinel-2's bands whose files call them so."""
    for at in range(number):
        pixels = noise(13, 96, 128, low=300, high=4000, seed=at).astype(np.uint16)
        pixels[at, :9, :5] = 0
        geotiff(folder / f"s{at}.tif", pixels, names, nodata=0, scales=(1e-4,) * 13, step=10.0)
    return folder


def test_own_names_and_other_names_of_bands_are_the_same_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [scaled(tmp_path / str(number), names) for number, names in enumerate((MSI_BANDS, ALIASES))]
    scaled(tmp_path / "2", ALIASES)
    scaled(tmp_path / "2", MSI_BANDS, number=2)
    folders.append(tmp_path / "2")
    manifests = [look(folder) for folder in folders]
    splits = ["train", "train", "held_out", "train"]
    manifests = [manifest.with_column("split", splits) for manifest in manifests]
    for config in (
        sensed(sensor="sentinel2_l1c"),
        sensed(sensor="sentinel2_l1c", bands=["B8A", "B02", "B11"]),
        override(fgmae_s2(), {"data.streams.0.batch_size": 4}),
    ):
        capsys.readouterr()
        own, other, mixed = (resolve(config, manifest) for manifest in manifests)
        assert own == other == mixed
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 2  # of the two collections with other names
        assert said[0].startswith("bands B") and "taken for B0" in said[0]
        if config.recipe != fgmae_s2().recipe:
            pixels = np.stack([noise(13, 96, 128, low=300, high=4000, seed=at).astype(np.uint16) for at in (0, 1, 3)])
            known = np.ones(pixels.shape, bool)
            for row, at in enumerate((0, 1, 3)):
                known[row, at, :9, :5] = False
            order = [MSI_BANDS.index(band) for band in entry_of(own).bands]
            expected = [pixels[:, band][known[:, band]].mean() * 1e-4 for band in order]
            np.testing.assert_allclose(entry_of(own).normalisation.mean, expected, rtol=1e-5)
        for a, b, c in zip(*(batches(own, manifest) for manifest in manifests), strict=True):
            assert a.bands == b.bands == c.bands == entry_of(own).bands
            for name in ("image", "valid", "spacing", "offset", "scale", "key", "index", "row", "origin"):
                assert torch.equal(getattr(a, name), getattr(b, name)), name
                assert torch.equal(getattr(a, name), getattr(c, name)), name


def test_per_image_statistics_are_those_of_the_band_that_is_meant(tmp_path: Path) -> None:
    manifests = [look(scaled(tmp_path / str(n), names)) for n, names in enumerate((MSI_BANDS, ALIASES))]
    space = Normalisation(method="per_image")
    entry = replace(fgmae_input("s2", 16), bands=("B8A", "B02"), normalisation=space, size=(32, 32))
    for manifest in manifests:
        check_values(manifest, entry)
    for a, b in zip(*(whole_batches(manifest, entry, 2) for manifest in manifests), strict=True):
        assert torch.equal(a.offset, b.offset)
        assert torch.equal(a.image, b.image)
        for row, offset in zip(a.row.tolist(), a.offset.tolist(), strict=True):
            pixels = np.floor(noise(13, 96, 128, low=300, high=4000, seed=row))
            pixels[row, :9, :5] = np.nan
            assert offset == pytest.approx(np.nanmean(pixels[[8, 1]], axis=(1, 2)), rel=1e-6)


def test_bands_that_are_none_of_a_sensor_or_one_twice_are_refused_with_the_file(tmp_path: Path) -> None:
    pixels = noise(4, 96, 96, low=0.0, high=0.5).astype(np.float32)
    flagged = look(geotiff(tmp_path / "flagged.tif", pixels, ("B2", "B03", "B04", "quality")))
    with pytest.raises(
        BandError, match=r"flagged\.tif: expected bands of the sensor 'sentinel2_l2a'.*--bands=B02,B03,B04,"
    ):
        resolve(sensed(sensor="sentinel2_l2a"), flagged)
    twice = look(geotiff(tmp_path / "twice.tif", pixels, ("B02", "BLUE", "B03", "B04")))
    for config in (sensed(sensor="hls"), sensed(sensor="hls", bands=["blue", "green"])):
        with pytest.raises(
            BandError, match=r"twice\.tif: input 'scene': expected one band for \['blue'\], but several of"
        ):
            resolve(config, twice)
    own = look(geotiff(tmp_path / "own.tif", pixels, ("blue", "BLUE", "B03", "B04")))
    with pytest.raises(BandError, match=r"own\.tif: expected bands of the sensor 'hls', each once"):
        resolve(sensed(sensor="hls"), own)


def test_values_of_another_magnitude_are_refused_where_no_sensor_tells_the_unit(tmp_path: Path) -> None:
    names, scales = ("red", "nir"), {"counts": 1.0, "shares": 1e-4, "dark": 0.03, "bright": 6.0}
    for name, factor in scales.items():
        for number in range(2):
            pixels = noise(2, 96, 96, low=300, high=3000, seed=number) * factor
            geotiff(tmp_path / name / f"{number}.tif", pixels.astype(np.float32), names)
    counts, shares, dark, bright = (look(tmp_path / name) for name in scales)
    of_counts, of_shares = (entry_of(resolve(tiny(), manifest)) for manifest in (counts, shares))
    for manifest in (counts, dark, bright):
        check_values(manifest, of_counts)
    check_values(shares, of_shares)
    with pytest.raises(
        BandError, match=r"0\.tif.*: band red has median 0\.1\d+, .* about 1199\.59 .*100 times smaller"
    ):
        check_values(shares, of_counts)
    with pytest.raises(
        BandError, match=r"0\.tif.*: band red has median 1\d{3}\.\d+, .* about 0\.119959 .*100 times larger"
    ):
        check_values(counts, of_shares)
    for first, second in (("counts", "shares"), ("shares", "counts")):  # some fit: not one unit, but not another
        check_values(look(tmp_path / first, tmp_path / second), of_counts)
    scaled_counts = geotiff(
        tmp_path / "own.tif", (noise(2, 96, 96, low=300, high=3000)).astype(np.uint16), names, scales=(1e-4, 1e-4)
    )
    check_values(look(scaled_counts), of_shares)


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
