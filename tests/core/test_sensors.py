"""Every sensor file: found, complete, and with the numbers of the missions."""

from __future__ import annotations

from pathlib import Path

import pytest

import core.sensors
from core.errors import BandError, ConfigError
from core.sensors import find_band, get_sensor, sensor_names
from core.sensors._products import same_light, sensor_of_platform, sensor_of_product

COUNTS = {
    "abi": 16,
    "hls": 6,
    "landsat5": 7,
    "landsat7": 9,
    "landsat8": 11,
    "landsat9": 11,
    "modis_toa14": 14,
    "naip": 4,
    "rgb": 3,
    "sentinel1": 2,
    "sentinel2_l1c": 13,
    "sentinel2_l2a": 12,
    "viirs_m": 16,
}


def test_every_file_of_the_folder_is_a_sensor() -> None:
    folder = Path(core.sensors.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(sensor_names()) == {name for name in files if not name.startswith("_")}
    assert {name: len(get_sensor(name).bands) for name in COUNTS} == COUNTS


@pytest.mark.parametrize("name", sensor_names())
def test_a_sensor_says_where_its_numbers_are_from_and_how_wide_its_bands_are(name: str) -> None:
    sensor = get_sensor(name)
    assert sensor.name == name
    assert len(sensor.source) > 20
    assert sensor.title
    for band in sensor.bands:
        assert find_band(name, band.name) is band
        if band.centre_nm is None or band.width_nm is None:
            assert band.unit in ("dB", "linear power", "dn")
            continue
        assert 400 <= band.centre_nm <= 14000
        assert band.width_nm < band.centre_nm
        assert (band.unit == "K") == (band.centre_nm > 3000), f"{band.name}: sunlight ends about 3 um"
        if band.unit == "K":
            assert band.low > 100
            assert band.high > 400


@pytest.mark.parametrize(
    ("sensor", "band", "centre", "width", "unit", "resolution"),
    [
        ("modis_toa14", "B01", 645, 50, "percent reflectance", 1000),
        ("modis_toa14", "B21", 3959, 60, "K", 1000),
        ("modis_toa14", "B26", 1375, 30, "percent reflectance", 1000),
        ("modis_toa14", "B33", 13335, 300, "K", 1000),
        ("abi", "C02", 640, 100, "percent reflectance", 500),
        ("abi", "C13", 10350, 500, "K", 2000),
        ("viirs_m", "M5", 672, 20, "reflectance", 750),
        ("viirs_m", "M15", 10763, 1000, "K", 750),
        ("sentinel2_l1c", "B8A", 864.7, 21, "reflectance", 20),
        ("sentinel2_l1c", "B10", 1373.5, 31, "reflectance", 60),
        ("sentinel2_l2a", "B2", 492.4, 66, "reflectance", 10),
        ("landsat5", "B6", 11450, 2100, "K", 120),
        ("landsat7", "B6", 11450, 2100, "K", 60),
        ("landsat8", "B8", 590, 180, "reflectance", 15),
        ("landsat5", "SR_B7", 2215, 270, "reflectance", 30),
        ("landsat7", "SR_B4", 835, 130, "reflectance", 30),
        ("landsat8", "SR_B5", 865, 30, "reflectance", 30),
        ("landsat9", "B11", 12005, 1010, "K", 100),
        ("hls", "nir_narrow", 865, 30, "reflectance", 30),
        ("naip", "nir", 845, 74, "full scale", 1),
        ("sentinel1", "VH", None, None, "dB", 10),
    ],
)
def test_numbers_of_the_missions(sensor, band, centre, width, unit, resolution) -> None:
    found = find_band(sensor, band)
    assert (found.centre_nm, found.width_nm, found.unit, found.resolution_m) == (centre, width, unit, resolution)


def test_the_order_of_satvision_and_the_place_of_its_emissive_band_among_reflective_ones() -> None:
    sensor = get_sensor("modis_toa14")
    assert next(band.name for band in sensor.bands if band.unit == "K") == sensor.names[5] == "B21"
    assert [at for at, band in enumerate(sensor.bands) if band.unit != "K"] == [0, 1, 2, 3, 4, 6]


def test_names_that_no_sensor_or_band_has() -> None:
    with pytest.raises(ConfigError, match="no sensor is called 'sentinel3': did you mean 'sentinel1'"):
        get_sensor("sentinel3")
    with pytest.raises(ConfigError, match="no sensor is called '_optical'"):
        get_sensor("_optical")
    with pytest.raises(BandError, match="sensor 'sentinel2_l2a' has no band 'B10'"):
        find_band("sentinel2_l2a", "B10")


@pytest.mark.parametrize(
    ("name", "sensor"),
    [
        ("LC08_L2SP_190029_20200101_02_T1_SR_B4.TIF", "landsat8"),
        ("LC91900292023001LGN00_B4.TIF", "landsat9"),
        ("LE07_L1TP_022049_19991118", "landsat7"),
        ("LE70220491999322EDC01_stack.gtif", "landsat7"),
        ("LT05_L1TP_022049_19991118", "landsat5"),
        ("LT04_L1TP_022049_19881118", "landsat5"),
        ("S2A_MSIL1C_20200101T100401_N0208_R122_T33TWM.SAFE", "sentinel2_l1c"),
        ("S2B_MSIL2A_20200101T100401_N0208_R122_T33TWM.SAFE", "sentinel2_l2a"),
        ("T33TWM_20200101T100401_B02_10m.jp2", "sentinel2_l1c"),
        ("HLS.S30.T33TWM.2020001T100401.v2.0.B8A.tif", "sentinel2_l1c"),
        ("HLS.L30.T33TWM.2020001T100401.v2.0.B05.tif", "hls_l30"),
        ("MOD09GA.A2008296.h14v17.hdf", "modis_toa14"),
        ("LC08.tif", None),  # a name that anybody could give
        ("LEVEL_stack.tif", None),
        ("T33.tif", None),
        ("stack_LC08_L1TP.tif", None),
    ],
)
def test_the_name_of_a_product_tells_its_sensor(name: str, sensor: str | None) -> None:
    found = sensor_of_product(name)
    assert (found.name if found else None) == sensor


def test_a_platform_tells_a_sensor() -> None:
    for name, sensor in (("landsat-8", "landsat8"), ("LANDSAT_7", "landsat7"), ("Sentinel-2B", "sentinel2_l1c")):
        found = sensor_of_platform(name)
        assert found is not None
        assert found.name == sensor
    assert sensor_of_platform("sentinel-1a") is None
    assert sensor_of_platform("terra") is None


def test_bands_of_one_number_are_compared_by_wavelength() -> None:
    def agree(one: str, other: str) -> set[str]:
        first, second = get_sensor(one), get_sensor(other)
        return {b.name for b in first.bands if b.name in second and same_light(b, second.find(b.name))}

    assert agree("landsat8", "landsat9") == set(get_sensor("landsat8").names)
    assert agree("sentinel2_l2a", "sentinel2_l1c") == set(get_sensor("sentinel2_l2a").names)
    assert agree("landsat8", "sentinel2_l2a") == {"B1", "B2", "B3", "B4"}  # B5 is near infrared, and there a red edge
    assert agree("landsat7", "sentinel2_l2a") == set()
    assert agree("landsat7", "landsat8") == {"B7"}
    l30 = sensor_of_product("HLS.L30.T33TWM.2020001T100401.v2.0")
    assert l30 is not None
    assert l30.find("B05").centre_nm == 865
    assert same_light(l30.find("B02"), get_sensor("hls").find("B02"))
