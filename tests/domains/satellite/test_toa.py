"""Calibration against Planck's law itself, the value space of SatVision-TOA, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.bands import nearest_bands
from core.contract import Normalisation
from core.encoders.cards.satvision import satvision_input
from core.errors import BandError, ConfigError, ShapeError
from core.sensors import get_sensor
from domains.satellite.radiance import (
    GOES16_PLANCK,
    GOES16_SUN,
    MODIS_PLANCK,
    abi_kelvin,
    abi_radiance,
    modis_kelvin,
    modis_radiance,
)
from domains.satellite.toa import (
    ABI_BANDS,
    abi_input,
    abi_physical,
    abi_satvision_legacy,
    modis_physical,
    normalise,
    restore,
)

MODIS = satvision_input()
SCENE = np.array([200.0, 250.0, 300.0, 330.0])


def over_the_filter(band: str, sensor: str, kelvin: float, *, per_wavenumber: bool) -> float:
    """Average Planck's law over a filter of even response: W m-2 sr-1 um-1, or mW m-2 sr-1 (cm-1)-1."""
    found = get_sensor(sensor).find(band)
    edge = np.linspace(-0.5, 0.5, 2001) * found.width_nm + found.centre_nm
    metres = edge * 1e-9
    per_metre = 1.191042972e-16 / (metres**5 * np.expm1(0.01438776877 / (metres * kelvin)))
    if not per_wavenumber:
        return float(per_metre.mean() * 1e-6)
    per_cm = per_metre * metres**2 * 100.0 * 1000.0
    return float(np.trapezoid(per_cm, 1e7 / edge) / (1e7 / edge[-1] - 1e7 / edge[0]))


@pytest.mark.parametrize("satellite", ["terra", "aqua"])
@pytest.mark.parametrize("band", list(MODIS_PLANCK["terra"]))
def test_a_black_body_seen_by_modis_has_its_temperature(satellite, band) -> None:
    for kelvin in (200.0, 250.0, 300.0):
        seen = over_the_filter(band, "modis_toa14", kelvin, per_wavenumber=False)
        assert float(modis_kelvin(np.array(seen), MODIS_PLANCK[satellite][band])) == pytest.approx(kelvin, abs=2.5)


@pytest.mark.parametrize("band", list(GOES16_PLANCK))
def test_a_black_body_seen_by_abi_has_its_temperature(band) -> None:
    for kelvin in (200.0, 250.0, 300.0):
        seen = over_the_filter(band, "abi", kelvin, per_wavenumber=True)
        assert float(abi_kelvin(np.array(seen), GOES16_PLANCK[band])) == pytest.approx(kelvin, abs=2.5)


@pytest.mark.parametrize("band", list(GOES16_PLANCK))
def test_the_constants_of_a_channel_are_those_of_one_wavenumber(band) -> None:
    planck = GOES16_PLANCK[band]
    wavenumber = planck.fk2 / 1.438776877  # cm-1
    assert planck.fk1 == pytest.approx(1.191042972e-5 * wavenumber**3, rel=2e-4)
    centre = get_sensor("abi").find(band).centre_nm
    assert 1e7 / wavenumber == pytest.approx(centre, rel=0.01)


def test_radiance_and_temperature_undo_each_other() -> None:
    for planck in (*MODIS_PLANCK["terra"].values(), *MODIS_PLANCK["aqua"].values()):
        np.testing.assert_allclose(modis_kelvin(modis_radiance(SCENE, planck), planck), SCENE, rtol=1e-9)
    for planck in GOES16_PLANCK.values():
        np.testing.assert_allclose(abi_kelvin(abi_radiance(SCENE, planck), planck), SCENE, rtol=1e-9)


def test_modis_counts_become_percent_and_kelvin_and_codes_no_number() -> None:
    planck = MODIS_PLANCK["terra"]["B31"]
    scale, offset = 8.4e-4, 1577.339722
    counts = np.array(
        [[[2000, 12000, 65535]], [[round(float(modis_radiance(np.array(290.0), planck)) / scale + offset), 0, 40000]]]
    )
    found = modis_physical(
        counts.astype(np.uint16), ("B01", "B31"), scales=(5e-5, scale), offsets=(0.0, offset), satellite="terra"
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0, :2], [10.0, 60.0], rtol=1e-6)
    assert float(found[1, 0, 0]) == pytest.approx(290.0, abs=0.02)  # a count is 0.005 K here
    assert np.isnan(found[0, 0, 2])
    assert np.isnan(found[1, 0, 1:]).all()  # radiance below 0; a code


def test_abi_reflectance_is_by_channel_and_distance() -> None:
    radiance = np.array([[[GOES16_SUN[band] / np.pi / 2]] for band in GOES16_SUN])
    np.testing.assert_allclose(abi_physical(radiance, tuple(GOES16_SUN)), 50.0, rtol=1e-5)
    farther = abi_physical(radiance, tuple(GOES16_SUN), distance=1.0167)
    np.testing.assert_allclose(farther, 50.0 * 1.0167**2, rtol=1e-5)


def test_only_c12_is_a_temperature_in_the_legacy_calibration() -> None:
    warm = tuple(band for band in ABI_BANDS if band in GOES16_PLANCK)
    radiance = np.array([[[float(abi_radiance(np.array(280.0), GOES16_PLANCK[band]))]] for band in warm])
    np.testing.assert_allclose(abi_physical(radiance, warm), 280.0, rtol=1e-5)
    wrong = {
        band: abs(float(value[0, 0]) - 280.0)
        for band, value in zip(warm, abi_satvision_legacy(radiance, warm), strict=True)
    }
    assert wrong.pop("C12") < 1e-3
    assert min(wrong.values()) > 10.0
    assert wrong["C07"] > 90.0  # the source of the authors' odd minimum of 117 K


def test_abi_channels_stand_for_the_nearest_modis_bands() -> None:
    abi, modis = get_sensor("abi"), get_sensor("modis_toa14")
    for band, channel in zip(modis.bands, ABI_BANDS, strict=True):
        same = tuple(other for other in abi.bands if other.unit == band.unit)
        assert nearest_bands(same, (band,), 300.0)[0].name == channel


def test_the_value_space_of_abi_is_that_of_modis_band_by_band() -> None:
    entry = abi_input()
    assert (entry.bands, entry.sensor, entry.normalisation) == (ABI_BANDS, "abi", MODIS.normalisation)
    legacy = abi_input("satvision_legacy")
    assert (legacy.sensor, legacy.normalisation.mean[5]) == ("", 117.04327)
    with pytest.raises(ConfigError, match="calibration of per_channel, satvision_legacy, got 'best'"):
        abi_input("best")


def test_values_come_back_and_leave_the_bounds_of_0_and_1() -> None:
    values = np.random.default_rng(0).uniform(0, 110, (14, 5, 6))
    warm = [at for at, band in enumerate(MODIS.described) if band.unit == "K"]
    values[warm] += 190.0
    normal = normalise(values, MODIS.bands, MODIS)
    assert normal.max() > 1.0
    np.testing.assert_allclose(restore(normal, MODIS.bands, MODIS), values, rtol=1e-5)
    np.testing.assert_allclose(normalise(np.full((14, 1, 1), 50.0), MODIS.bands, MODIS)[:5, 0, 0], 0.5)


def test_one_band_never_changes_another_and_order_is_by_name() -> None:
    values = np.random.default_rng(1).uniform(100, 300, (14, 4, 4))
    whole = normalise(values, MODIS.bands, MODIS)
    order = np.random.default_rng(2).permutation(14)
    names = tuple(MODIS.bands[at] for at in order)
    assert np.array_equal(normalise(values[order], names, MODIS), whole)
    for band in range(14):
        changed = values.copy()
        changed[[at for at in range(14) if at != band]] = 1e6
        assert np.array_equal(normalise(changed, MODIS.bands, MODIS)[band], whole[band])


def test_what_does_not_fit_is_refused() -> None:
    values = np.ones((14, 2, 2))
    with pytest.raises(BandError, match="one channel for each"):
        normalise(values[:13], MODIS.bands, MODIS)
    with pytest.raises(BandError, match=r"\['B33'\] are not among"):
        normalise(values[:13], MODIS.bands[:13], MODIS)
    with pytest.raises(ConfigError, match="fixed normalisation"):
        normalise(values, MODIS.bands, replace(MODIS, normalisation=Normalisation(method="per_image")))
    with pytest.raises(BandError, match="sensor 'abi' has no band 'B01'"):
        abi_physical(values[:1], ("B01",))
    with pytest.raises(BandError, match=r"got none for \['C07'\]"):
        abi_physical(values[:1], ("C07",), planck={})
    with pytest.raises(ConfigError, match="1 astronomical unit, got 149"):
        abi_physical(values[:1], ("C01",), distance=149.6)
    with pytest.raises(ShapeError, match="one number of each kind"):
        modis_physical(values[:2], ("B01", "B02"), scales=(1.0,), offsets=(0.0, 0.0), satellite="terra")
    with pytest.raises(ConfigError, match="terra or aqua, got 'noaa20'"):
        modis_physical(values[:1], ("B01",), scales=(1.0,), offsets=(0.0,), satellite="noaa20")
