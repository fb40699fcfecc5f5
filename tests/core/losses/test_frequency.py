"""The focal frequency loss, by hand, by the paper's formula, and where data is missing or seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributed

from core.errors import ConfigError
from core.groups import cut
from core.losses import masked_mean, squared
from core.losses.frequency import focal_frequency
from core.shapes import Grid, patchify

GRIDS = {
    "2d": Grid((2, 3), (4, 4)),
    "3d": Grid((2, 2, 2), (1, 4, 2)),
    "groups": Grid((2, 3), (4, 4), (("red",), ("nir", "swir"))),
}


@pytest.fixture(params=GRIDS)
def grid(request):
    return GRIDS[request.param]


def case(grid, seed=0):
    draw = torch.Generator().manual_seed(seed)
    values = (2 if grid.groups else 3) * grid.voxels
    prediction, value = (torch.randn(3, grid.num_tokens, values, generator=draw) for _ in range(2))
    return prediction, value, torch.rand(3, grid.num_tokens, values, generator=draw) > 0.5


def test_without_focus_it_is_the_masked_mean_of_squared_errors(grid):
    prediction, value, weight = case(grid)
    expected = masked_mean(squared(prediction, value), weight)
    torch.testing.assert_close(focal_frequency(prediction, value, weight, grid, focus=0.0), expected)
    graded = weight * torch.rand(weight.shape, generator=torch.Generator().manual_seed(1))
    expected = masked_mean(squared(prediction, value), graded)
    torch.testing.assert_close(focal_frequency(prediction, value, graded, grid, focus=0.0), expected)


def test_two_waves_by_hand():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    wave = 2.0 * torch.cos(2 * math.pi * x / 8) + 0.5 * torch.cos(2 * math.pi * (x + 2 * y) / 8)
    grid = Grid((2, 2), (4, 4))
    error = patchify(wave[None, None], grid.patch)
    everything = torch.ones_like(error, dtype=torch.bool)
    # powers 2**2 / 2 and 0.5**2 / 2 of the two waves; the weaker one has a quarter of the modulus
    loss = focal_frequency(error, torch.zeros_like(error), everything, grid)
    assert loss.item() == pytest.approx(2.0 + 0.125 / 4, rel=1e-5)
    sharper = focal_frequency(error, torch.zeros_like(error), everything, grid, focus=2.0)
    assert sharper.item() == pytest.approx(2.0 + 0.125 / 16, rel=1e-5)
    softer = focal_frequency(error, torch.zeros_like(error), everything, grid, soften=True)  # moduli 8 and 2
    assert softer.item() == pytest.approx(2.0 + 0.125 * math.log(3) / math.log(9), rel=1e-5)


def test_equals_the_formula_of_the_paper_where_everything_is_scored():
    grid, total = GRIDS["3d"], 0.0
    prediction, value, _ = case(grid)
    image, true = (
        t.reshape(3, 2, 2, 2, 3, 1, 4, 2).permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(3, 3, 2, 8, 4)
        for t in (prediction, value)
    )
    for sample in range(3):
        for band in range(3):
            difference = np.fft.fftn(image[sample, band].numpy()) - np.fft.fftn(true[sample, band].numpy())
            modulus = np.abs(difference) / math.sqrt(64)
            total += float((modulus / modulus.max() * modulus**2).mean()) / 9
    everything = torch.ones_like(value, dtype=torch.bool)
    assert focal_frequency(prediction, value, everything, grid).item() == pytest.approx(total, rel=1e-5)


def test_no_gradient_passes_through_the_weights():
    grid = GRIDS["2d"]
    prediction, value, weight = case(grid)
    prediction.requires_grad_()
    focal_frequency(prediction, value, weight, grid).backward()
    difference = torch.where(weight, prediction - value, 0.0).detach()
    image = difference.reshape(3, 2, 3, 3, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(3, 3, 8, 12)
    spectrum = torch.fft.fft2(image, norm="ortho")
    importance = spectrum.abs() / spectrum.abs().amax((2, 3), keepdim=True)
    slope = 2.0 * torch.fft.ifft2(importance * spectrum, norm="ortho").real / weight.sum()
    expected = torch.where(weight, patchify(slope, grid.patch), 0.0)
    torch.testing.assert_close(prediction.grad, expected, rtol=1e-4, atol=1e-7)


def test_what_is_seen_or_missing_is_never_read(grid):
    prediction, value, weight = case(grid)
    loss = focal_frequency(prediction, value, weight, grid)
    for content in (0.0, 1e4, math.nan, math.inf):
        changed = [torch.where(weight, t, content).requires_grad_() for t in (prediction, value)]
        again = focal_frequency(*changed, weight, grid)
        assert torch.equal(again, loss)
        again.backward()
        assert bool(torch.isfinite(changed[0].grad).all())
        assert bool((changed[0].grad[~weight] == 0.0).all())


def test_batch_mates_do_not_move_the_weights_of_a_sample(grid):
    prediction, value, weight = case(grid)
    alone = [focal_frequency(prediction[i : i + 1], value[i : i + 1], weight[i : i + 1], grid) for i in range(3)]
    share = weight.sum((1, 2)) / weight.sum()
    together = focal_frequency(prediction, value, weight, grid)
    torch.testing.assert_close(together, (torch.stack(alone) * share).sum())


def test_two_ranks_equal_the_joined_batch(grid, monkeypatch):
    prediction, value, weight = case(grid)
    weight[1] = False
    parts, joined = (slice(0, 1), slice(1, 3)), focal_frequency(prediction, value, weight, grid)
    other = weight.sum(dtype=torch.float32)
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda total: total.copy_(other))
    ranks = [focal_frequency(prediction[rows], value[rows], weight[rows], grid) for rows in parts]
    torch.testing.assert_close(sum(ranks) / 2, joined)


def test_nothing_to_score_and_nothing_wrong_give_zero():
    grid = GRIDS["2d"]
    prediction, value, weight = case(grid)
    prediction.requires_grad_()
    for given, scored in ((value, torch.zeros_like(weight)), (prediction.detach(), weight)):
        loss = focal_frequency(prediction, given, scored, grid)
        assert loss.item() == 0.0
        (gradient,) = torch.autograd.grad(loss, prediction)
        assert bool((gradient == 0.0).all())


def test_half_precision_predictions_and_groups_of_unequal_size():
    grid = GRIDS["groups"]
    image = torch.randn(2, 3, *grid.size)
    value = cut(image, ("red", "nir", "swir"), grid)
    weight = cut(torch.ones_like(image), ("red", "nir", "swir"), grid) > 0
    loss = focal_frequency(torch.zeros_like(value, dtype=torch.bfloat16), value, weight, grid, focus=0.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(image.square().mean().item(), rel=1e-5)


def test_a_focus_below_zero_is_refused():
    prediction, value, weight = case(GRIDS["2d"])
    with pytest.raises(ConfigError, match="focus of 0 or more"):
        focal_frequency(prediction, value, weight, GRIDS["2d"], focus=-1.0)
