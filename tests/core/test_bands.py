"""Bands by name and by wavelength: order, the nearest, and which to show."""

from __future__ import annotations

import pytest

from core.bands import RGB, Band, Sensor, align, display_bands, display_choice, nearest_bands
from core.errors import BandError, ConfigError
from core.sensors import get_sensor


def band(name: str, centre: float | None = None, width: float = 20.0, **options) -> Band:
    facts = dict(unit="reflectance", resolution_m=10.0, low=-0.2, high=2.0)
    return Band(name=name, centre_nm=centre, width_nm=None if centre is None else width, **(facts | options))


def test_align_gives_positions_or_none_where_the_order_agrees() -> None:
    assert align(("a", "b", "c"), ("c", "a")) == [2, 0]
    assert align(("a", "b"), ("a", "b")) is None
    with pytest.raises(BandError, match=r"\['d'\] are not among the image's bands"):
        align(("a", "b"), ("a", "d"))
    with pytest.raises(BandError, match="each band once"):
        align(("a", "a"), ("a",))


def test_the_nearest_is_found_for_each_wanted_band_and_may_serve_twice() -> None:
    have = (band("x", 500), band("y", 660), band("z", 850))
    found = nearest_bands(have, (band("red", 650), band("edge", 700), band("blue", 490)), 45)
    assert [one.name for one in found] == ["y", "y", "x"]


def test_of_two_as_near_the_narrower_is_taken() -> None:
    have = (band("pan", 600, 400), band("green", 600, 30), band("other", 640, 10))
    assert nearest_bands(have, (band("a", 600),), 5)[0].name == "green"
    assert nearest_bands(have, (band("a", 620),), 20)[0].name == "other"


def test_what_is_too_far_or_has_no_wavelength_is_listed_at_once() -> None:
    have = (band("x", 500), band("VV"))
    with pytest.raises(BandError, match=r"'red' at 650 nm is 150 nm from the nearest, 'x'; 'VH' cannot be compared"):
        nearest_bands(have, (band("red", 650), band("VH"), band("blue", 490)), 149.9)
    assert nearest_bands(have, (band("red", 650),), 150)[0].name == "x"
    with pytest.raises(BandError, match="cannot be compared"):
        nearest_bands((), (band("red", 650),), 10)
    with pytest.raises(ConfigError, match="finite tolerance"):
        nearest_bands(have, (band("red", 650),), float("nan"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"low": 1.0, "high": 1.0}, "low < high"),
        ({"high": float("inf")}, "low < high"),
        ({"width": -1.0}, "positive finite width"),
        ({"resolution_m": 0.0}, "positive finite resolution"),
    ],
)
def test_a_band_that_means_nothing_is_refused(options, words) -> None:
    with pytest.raises(ConfigError, match=words):
        band("x", 500.0, **options)
    with pytest.raises(ConfigError, match="or neither"):
        Band(name="x", centre_nm=5.0, width_nm=None, unit="K", resolution_m=None, low=0.0, high=1.0)


def test_a_sensor_finds_names_and_aliases_and_none_twice() -> None:
    sensor = Sensor(name="s", title="", bands=(band("B01", 443, aliases=("B1",)), band("B02", 490)), source="")
    assert sensor.names == ("B01", "B02")
    assert sensor.find("B1") is sensor.bands[0]
    assert "B1" in sensor
    assert "B3" not in sensor
    with pytest.raises(BandError, match="sensor 's' has no band 'B03': did you mean 'B0"):
        sensor.find("B03")
    with pytest.raises(ConfigError, match="names and aliases differ"):
        Sensor(name="s", title="", bands=(band("B01", aliases=("B02",)), band("B02")), source="")


@pytest.mark.parametrize(
    ("sensor", "have", "shown", "kind"),
    [
        ("sentinel2_l2a", None, ("B04", "B03", "B02"), "true colour"),
        ("landsat8", ("B8", "B2", "B3", "B4", "B5"), ("B4", "B3", "B2"), "true colour"),  # pan is no colour
        ("landsat7", None, ("B3", "B2", "B1"), "true colour"),
        ("landsat7", ("B8", "B2", "B1"), ("B8",), "one band"),  # nor is it red where red is missing
        ("modis_toa14", None, ("B01", "B02", "B03"), "near infrared as green"),  # as SatVision's authors show it
        ("abi", None, ("C02", "C03", "C01"), "near infrared as green"),
        ("naip", ("nir", "red", "green"), ("nir", "red", "green"), "colour infrared"),
        ("sentinel2_l1c", ("B12", "B8A", "B04"), ("B12", "B8A", "B04"), "short-wave infrared"),
        ("sentinel1", None, ("VV", "VH", "VV"), "two polarisations"),
        ("sentinel1", ("VH",), ("VH",), "one band"),
        ("modis_toa14", ("B31", "B21"), ("B31",), "one band"),
        (
            "hls",
            ("B04", "B03", "B02"),
            ("B04", "B03", "B02"),
            "true colour",
        ),  # aliases are shown by the file's own names
        ("landsat5", ("unknown", "B3", "B2", "B1"), ("B3", "B2", "B1"), "true colour"),
    ],
)
def test_bands_to_show_are_chosen_by_wavelength(sensor, have, shown, kind) -> None:
    found = get_sensor(sensor)
    names = have or found.names
    assert display_choice(found, names) == (shown, kind)
    assert display_bands(found, names[::-1] if kind != "one band" and "pol" not in kind else names) == shown


def test_without_a_sensor_only_plain_colour_names_are_understood() -> None:
    assert display_bands(None, ("blue", "green", "red", "nir")) == RGB
    assert display_choice(None, ("B04", "B03", "B02")) == (("B04",), "one band")
    with pytest.raises(BandError, match="at least one band"):
        display_bands(None, ())
