"""The contract: sensors, units of the value space, and bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.config import from_dict, to_dict
from core.contract import EVERY, Contract, Input, Normalisation
from core.errors import BandError, ConfigError

SPACE = Normalisation(method="fixed", mean=(0.1, 0.2), std=(0.1, 0.1), clip=((0.0, 1.0), (0.0, 0.8)), full_scale=False)
SCENE = Input(
    name="scene",
    bands=("B04", "B08"),
    patch=(4, 4),
    size=(16, 16),
    spacing=(10.0, 10.0),
    unit="m",
    sensor="sentinel2_l2a",
    normalisation=SPACE,
)


def test_a_sensor_describes_the_bands_in_the_order_of_the_input() -> None:
    assert [band.centre_nm for band in SCENE.described] == [664.6, 832.8]
    swapped = replace(SCENE, bands=("B08", "B04"))
    assert [band.centre_nm for band in swapped.described] == [832.8, 664.6]
    assert replace(SCENE, sensor="").described == ()


def test_bands_that_the_sensor_lacks_are_refused() -> None:
    with pytest.raises(ConfigError, match="input 'scene': sensor 'sentinel2_l2a' has no band 'B10'"):
        replace(SCENE, bands=("B04", "B10"))
    with pytest.raises(ConfigError, match="no sensor is called 'sentinel2': did you mean 'sentinel"):
        replace(SCENE, sensor="sentinel2")


def test_bands_are_named_once_each_and_steps_are_positive() -> None:
    for bands in ((), ("B04", "B04")):
        with pytest.raises(ConfigError, match="input 'scene': expected at least one band and each once, got"):
            replace(SCENE, bands=bands, sensor="", normalisation=Normalisation(method="per_image"))
    with pytest.raises(
        ConfigError, match="each band of sensor 'sentinel2_l2a' once, but B04 and B4 are names of one band"
    ):
        replace(SCENE, bands=("B04", "B4"))
    for spacing in ((0.0, 10.0), (10.0, -10.0), (float("nan"), 10.0)):
        with pytest.raises(ConfigError, match="input 'scene': expected positive finite spacing"):
            replace(SCENE, spacing=spacing)


def test_an_input_that_names_no_band_yet_calls_them_as_its_sensor_does() -> None:
    unfinished = replace(SCENE, bands=EVERY, normalisation=Normalisation(method="per_image"))
    assert unfinished.described == ()
    assert unfinished.named(("B8", "B8A", "B04", "qa")) == ("B08", "B8A", "B04", "qa")
    with pytest.raises(BandError, match=r"expected one band for \['blue'\]"):
        replace(unfinished, sensor="hls").named(("B02", "BLUE"))
    with pytest.raises(ConfigError, match="no sensor is called 'sentinel2'"):
        replace(unfinished, sensor="sentinel2")


def test_physical_bands_are_no_shares_of_full_scale() -> None:
    with pytest.raises(ConfigError, match=r"'sentinel2_l2a' are in reflectance, .* with full_scale=False"):
        replace(SCENE, normalisation=replace(SPACE, full_scale=True))
    assert replace(SCENE, normalisation=Normalisation(method="per_image")).normalisation.full_scale
    photograph = Normalisation(method="fixed", mean=(0.5,) * 2, std=(0.2,) * 2)
    assert (
        replace(SCENE, bands=("red", "blue"), sensor="rgb", normalisation=photograph).described[0].unit == "full scale"
    )


def test_bands_are_known_by_their_other_names_too() -> None:
    assert SCENE.named(("B8", "B4", "B2", "qa")) == ("B08", "B04", "B2", "qa")
    assert SCENE.named(("B04", "B8", "B4")) == ("B04", "B08", "B4")  # its own name goes before another
    assert replace(SCENE, sensor="").named(("B8",)) == ("B8",)
    called = replace(SCENE, bands=("B4", "B8"))  # a contract may itself use the other names
    assert called.named(("B08", "B04")) == ("B8", "B4")
    hls = replace(SCENE, sensor="hls", bands=("blue", "nir_narrow"))
    assert hls.named(("B8A", "B02")) == ("nir_narrow", "blue")
    with pytest.raises(BandError, match=r"one band for \['blue'\], but several of"):
        hls.named(("B02", "BLUE", "B8A"))


def test_an_image_finds_its_input_by_its_own_names_before_others() -> None:
    other = replace(SCENE, name="plain", bands=("B4", "B8"), sensor="")
    contract = Contract(inputs=(SCENE, other))
    assert contract.input_for(2, ("B4", "B8")) is other
    assert contract.input_for(2, ("B04", "B8")) is SCENE
    with pytest.raises(BandError, match="expected an image that this encoder reads"):
        contract.input_for(2, ("B4", "B7"))


def test_an_input_whose_bands_are_ambiguous_does_not_hide_another_that_fits() -> None:
    hls = replace(SCENE, name="hls", sensor="hls", bands=("blue", "red"))
    radar = replace(SCENE, name="radar", sensor="", bands=("VV", "VH"))
    image = ("B02", "BLUE", "B4", "B8")
    assert Contract(inputs=(hls, SCENE)).input_for(2, image) is SCENE
    with pytest.raises(BandError, match=r"input 'hls': expected one band for \['blue'\]"):
        Contract(inputs=(radar, hls)).input_for(2, image)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip": ((0.0, 1.0),)}, "as many bounds"),
        ({"clip": ((0.0, 1.0), (1.0, 1.0))}, "low < high"),
        ({"clip": ((0.0, 1.0), (0.0, float("inf")))}, "finite bounds"),
        ({"mean": (0.1, float("nan"))}, "finite mean and std"),
        ({"std": (0.1, 0.0)}, "positive std"),
        ({"method": "per_image"}, "none for 'per_image'"),
    ],
)
def test_a_value_space_that_means_nothing_is_refused(options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(SPACE, **options)
    with pytest.raises(ConfigError, match="none for 'per_image'"):
        Normalisation(method="per_image", clip=((0.0, 1.0),))


def test_a_contract_survives_its_configuration_file() -> None:
    contract = Contract(inputs=(SCENE,))
    assert from_dict(Contract, to_dict(contract)) == contract
    old = to_dict(contract)
    for key in ("sensor",):
        del old["inputs"][0][key]
    for key in ("clip", "full_scale"):
        del old["inputs"][0]["normalisation"][key]
    known = from_dict(Contract, old).inputs[0]  # written before there were sensors
    assert (known.sensor, known.normalisation.clip, known.normalisation.full_scale) == ("", (), True)
