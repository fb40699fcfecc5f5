"""Noise passes its band alone, is as round in mm as asked, and an empty band is refused."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError
from core.maskers.color_noise import ColorNoise, _window, filtered, weakest_first
from core.shapes import Grid
from tests.core.maskers.inputs import agreement, complete

FLAT = Grid((14, 14), (2, 2))
SOLID = Grid((10, 10, 10), (2, 2, 2))


@pytest.mark.parametrize("color", ["red", "green", "blue", "purple"])
@pytest.mark.parametrize("size", [(40, 40), (24, 24, 24)])
def test_no_power_outside_the_band(color, size):
    grid = Grid(size, (1,) * len(size))
    masker = ColorNoise(color=color, shortest=3.1, longest=7.7)
    passed = masker._passed(grid, torch.ones(1, grid.ndim))
    whole = Grid(_window(grid), grid.patch)
    noise = filtered(torch.randn(1, *_window(grid)), passed, whole)
    power = torch.fft.fftn(noise[0]).abs()
    frequency = torch.stack(torch.meshgrid(*(torch.fft.fftfreq(n) for n in _window(grid)), indexing="ij")).norm(dim=0)
    inside = {
        "red": frequency < 1 / 7.7,
        "green": (frequency >= 1 / 7.7) & (frequency <= 1 / 3.1),
        "blue": frequency > 1 / 3.1,
        "purple": (frequency < 1 / 7.7) | (frequency > 1 / 3.1),
    }[color] & (frequency > 0)
    assert float(power[~inside].max()) < 1e-3 * float(power.max())
    assert int(inside.sum()) == int(passed.sum())


def test_colours_go_from_large_patches_to_small_ones():
    """Share of neighbours that are both hidden or both not, at half: noise without a filter would have 0.5."""
    batch = complete(60, FLAT)

    def alike(color):
        hide = ColorNoise(ratio=0.5, color=color)(batch, FLAT, batch.rng).hide
        return agreement(hide.reshape(-1, 14, 14), 1)

    assert alike("red") > 0.8
    assert 0.5 < alike("green") < 0.7
    assert alike("blue") < 0.4


@pytest.mark.parametrize(("grid", "count"), [(FLAT, 300), (SOLID, 60)])
def test_opposite_borders_are_strangers(grid, count):
    batch = complete(count, grid)
    hide = ColorNoise(ratio=0.5, color="red")(batch, grid, batch.rng).hide.reshape(-1, *grid.tokens)
    assert abs(float((hide[:, 0] == hide[:, -1]).float().mean()) - 0.5) < 0.1
    assert float((hide[:, 0] == hide[:, 1]).float().mean()) > 0.75


def test_lengths_make_patterns_round_in_millimetres():
    grid = Grid((40, 40), (1, 1))
    batch = complete(40, grid, spacing=(4.0, 1.0))
    by_token = ColorNoise(ratio=0.5, color="red", longest=10.0)
    by_length = ColorNoise(ratio=0.5, color="red", shortest=4.0, longest=20.0, unit="length")
    token, length = (m(batch, grid, batch.rng).hide.reshape(-1, 40, 40) for m in (by_token, by_length))
    assert abs(agreement(token, 1) - agreement(token, 2)) < 0.03
    assert agreement(length, 2) - agreement(length, 1) > 0.15
    four = (length[:, :, 4:] == length[:, :, :-4]).float().mean()  # 4 mm apart along x, as neighbours along y are
    assert abs(float(four) - agreement(length, 1)) < 0.05


def test_an_empty_band_is_refused_where_it_can_be_known():
    with pytest.raises(ConfigError, match=r"green noise, cut at 0.4 and 1 token edges"):
        ColorNoise(shortest=0.4, longest=1.0).check(FLAT, (1.0, 1.0))
    with pytest.raises(ConfigError, match="red noise"):
        ColorNoise(color="red", longest=100.0).check(FLAT, (1.0, 1.0))
    with pytest.raises(ConfigError, match="got 0"):
        ColorNoise(color="blue", shortest=1.2).check(FLAT, (1.0, 1.0))
    for color in ("red", "green", "blue", "purple"):
        ColorNoise(color=color).check(Grid((4, 4), (2, 2)), (1.0, 1.0))
        ColorNoise(color=color).check(SOLID, (5.0, 1.0, 1.0))
    batch = complete(2, FLAT, spacing=(5.0, 5.0))
    ColorNoise(shortest=22.0, longest=80.0, unit="length")(batch, FLAT, batch.rng)
    with pytest.raises(ConfigError, match="mm or m"):
        ColorNoise(shortest=2.2, longest=8.0, unit="length")(batch, FLAT, batch.rng)
    ColorNoise(shortest=22.0, longest=80.0, unit="length").check(FLAT, (5.0, 5.0))
    with pytest.raises(ConfigError, match="mm or m"):
        ColorNoise(shortest=22.0, longest=80.0, unit="length").check(FLAT, (50.0, 50.0))


def test_cuts_out_of_order_are_refused():
    with pytest.raises(ConfigError, match="shortest < longest"):
        ColorNoise(shortest=8.0, longest=2.0)


def test_the_weakest_is_hidden_first():
    assert weakest_first(torch.tensor([[[0.1, 0.9], [0.5, 0.2]]])).argsort(descending=True).tolist() == [[0, 3, 2, 1]]
