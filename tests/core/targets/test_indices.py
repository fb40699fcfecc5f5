"""Indices: formed by band name, of radiances and not of z-scores, and silent where there is no ratio."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract, Normalisation
from core.errors import ConfigError
from core.groups import by_group
from core.shapes import unpatchify
from core.targets.indices import Indices
from tests.parity.fixture import make_batch, make_input

BANDS = ("blue", "green", "red", "nir", "swir1")
MEAN, STD = (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.2, 0.25, 0.5)
PLAIN = make_input("optical", 5, (4, 4), (8, 12))
OPTICAL = replace(PLAIN, bands=BANDS, normalisation=Normalisation(method="fixed", mean=MEAN, std=STD))
PER_IMAGE = replace(OPTICAL, normalisation=Normalisation(method="per_image"))


def _radiances(seed=0):
    return torch.rand(2, 5, 8, 12, generator=torch.Generator().manual_seed(seed)) + 0.05


def _normalised(radiance):
    mean, std = (torch.tensor(v).reshape(5, 1, 1) for v in (MEAN, STD))
    return make_batch((radiance - mean) / std, OPTICAL)


def _maps(target, batch):
    value, weight = target(batch, OPTICAL.grid())
    return unpatchify(value, OPTICAL.grid()), unpatchify(weight, OPTICAL.grid())


def test_indices_are_those_of_the_radiances():
    radiance = _radiances()
    _blue, green, red, nir, swir1 = radiance.unbind(1)
    target = Indices().undoing(Contract(inputs=(OPTICAL,)))
    value, weight = _maps(target, _normalised(radiance))
    expected = [(nir - red) / (nir + red), (green - nir) / (green + nir), (swir1 - nir) / (swir1 + nir)]
    torch.testing.assert_close(value, torch.stack(expected, 1), rtol=1e-4, atol=1e-5)
    assert bool(weight.all())
    assert target.num_values(OPTICAL) == 3 * 16


def test_radiometric_values_are_taken_as_they_are():
    radiance = _radiances()
    value, _ = _maps(Indices(radiometric=True, names=("ndvi",)), make_batch(radiance, OPTICAL))
    nir, red = radiance[:, 3], radiance[:, 2]
    torch.testing.assert_close(value[:, 0], (nir - red) / (nir + red))


def test_shuffled_bands_with_their_names_give_the_same():
    target, batch = Indices().undoing(Contract(inputs=(OPTICAL,))), _normalised(_radiances())
    shuffled = batch.aligned(("swir1", "red", "blue", "nir", "green"))
    assert torch.equal(target(batch, OPTICAL.grid())[0], target(shuffled, OPTICAL.grid())[0])


def test_sentinel_names_are_known_and_the_narrow_infrared_is_not_taken_for_the_wide_one():
    formed = Indices().formed(("B03", "B04", "B8A", "B08", "B11"))
    assert formed == {"ndvi": ("B08", "B04"), "ndwi": ("B03", "B08"), "ndbi": ("B11", "B08")}
    assert Indices().formed(("B03", "B04", "B8A", "B11")) == {}


def test_an_index_whose_band_is_missing_is_left_out():
    short = replace(OPTICAL, bands=BANDS[:4], normalisation=Normalisation(method="fixed", mean=MEAN[:4], std=STD[:4]))
    target = Indices().undoing(Contract(inputs=(short,)))
    value, _ = target(_normalised(_radiances()).aligned(BANDS[:4]), short.grid())
    assert target.num_values(short) == value.shape[2] == 2 * 16
    whole, _ = Indices().undoing(Contract(inputs=(OPTICAL,)))(_normalised(_radiances()), OPTICAL.grid())
    assert torch.equal(value, whole[..., : 2 * 16])


def test_a_zero_denominator_and_a_negative_radiance_have_no_weight():
    radiance = _radiances()
    radiance[0, 2:4, 1, 1] = 0.0  # nir + red = 0
    radiance[0, 3, 2, 2], radiance[0, 2, 2, 2] = 0.3, -0.3 + 1e-9  # the sum is near 0, the ratio would be huge
    radiance[0, 2, 3, 3] = -0.01  # noise over dark water
    value, weight = _maps(Indices(radiometric=True, names=("ndvi",)), make_batch(radiance, OPTICAL))
    silent = [(1, 1), (2, 2), (3, 3)]
    assert [tuple(place) for place in (~weight[0, 0]).nonzero().tolist()] == silent
    assert bool((value[0, 0][~weight[0, 0]] == 0).all())
    assert float(value.abs().max()) <= 1.0


def test_both_bands_must_be_measured():
    batch = make_batch(_radiances(), OPTICAL)
    batch.valid[0, 2, 0, 0] = False  # red
    batch.valid[0, 1, 0, 1] = False  # green
    _, weight = _maps(Indices(radiometric=True), batch)
    assert [tuple(place) for place in (~weight[0]).nonzero().tolist()] == [(0, 0, 0), (1, 0, 1)]


def test_values_normalised_by_each_image_are_refused():
    target = Indices().undoing(Contract(inputs=(PER_IMAGE,)))
    with pytest.raises(ConfigError, match="`per_image` normalisation loses them"):
        target.num_values(PER_IMAGE)
    assert replace(target, absent="omit").num_values(PER_IMAGE) == 0


def test_an_input_without_the_bands_is_refused_or_omitted():
    radar = make_input("radar", 2, (4, 4), (8, 8))
    with pytest.raises(ConfigError, match="expected the bands of one of"):
        Indices().num_values(radar)
    target = Indices(absent="omit")
    batch = make_batch(torch.randn(1, 2, 8, 8), radar)
    value, weight = target(batch, radar.grid())
    assert target.num_values(radar) == value.shape[2] == weight.shape[2] == 0
    assert target.picture(value, batch, radar.grid()) is None


def test_numbers_that_were_not_taken_over_are_refused():
    with pytest.raises(ConfigError, match=r"use `Indices.undoing\(contract\)`"):
        Indices().num_values(OPTICAL)
    other = Indices(mean=dict.fromkeys(BANDS, 0.0), std=dict.fromkeys(BANDS, 1.0))
    with pytest.raises(ConfigError, match="expected mean 0.2 and std 0.1 for band 'green'"):
        other.num_values(OPTICAL)


def test_an_omitted_input_that_shares_its_bands_with_a_usable_one_is_refused():
    """The target cannot tell their batches apart, so z-scores would be taken for those of the other input."""
    target = Indices(absent="omit").undoing(Contract(inputs=(OPTICAL, replace(PER_IMAGE, name="drone"))))
    with pytest.raises(ConfigError, match="`per_image` normalisation loses them"):
        target.num_values(replace(PER_IMAGE, name="drone"))


def test_a_band_normalised_in_two_ways_is_refused():
    other = replace(OPTICAL, name="other", normalisation=Normalisation(method="fixed", mean=(0.0,) * 5, std=(1.0,) * 5))
    with pytest.raises(ConfigError, match="expected one mean and std for band 'blue'"):
        Indices().undoing(Contract(inputs=(OPTICAL, other)))


def test_band_groups_have_the_indices_that_they_allow():
    split = replace(OPTICAL, groups=(("blue", "green", "nir"), ("red", "swir1")))
    target = Indices(radiometric=True)
    assert target.num_values(split) == 16  # ndwi, in the first group
    alone = replace(OPTICAL, groups=(("blue", "green", "red"), ("nir", "swir1")))
    assert target.num_values(alone) == 16  # ndbi, in the second
    value, weight = by_group(target, make_batch(_radiances(), OPTICAL), split.grid())
    assert value.shape == (2, 12, 16)
    assert bool(weight[:, :6].all())
    assert not bool(weight[:, 6:].any())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("ndvl",)}, "did you mean 'ndvi'"),
        ({"names": ()}, "expected different indices"),
        ({"smallest": 0.0}, "expected different indices"),
        ({"mean": {"red": 0.0}}, "expected mean and std for the same bands"),
        ({"radiometric": True, "mean": {"red": 0.0}, "std": {"red": 1.0}}, "radiometric already"),
    ],
)
def test_senseless_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Indices(**options)


def test_standardised_tokens_follow_mae():
    target = Indices(radiometric=True, standardise=True)
    batch = make_batch(_radiances(), OPTICAL)
    value, _ = target(batch, OPTICAL.grid())
    plain, _ = replace(target, standardise=False)(batch, OPTICAL.grid())
    variance, mean = torch.var_mean(plain, dim=2, keepdim=True)
    torch.testing.assert_close(value, (plain - mean) / (variance + 1e-6).sqrt(), rtol=1e-4, atol=1e-5)
