"""What stands in place of hidden voxels: mean, noise, patches of another sample, codewords, projections."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from core.errors import ConfigError
from core.fills._visible import visible_statistics, visible_voxels
from core.fills.codeword import Codeword
from core.fills.mean import Mean
from core.fills.noise import Noise
from core.fills.other_sample import OtherSample, next_by_key
from core.fills.projection import Projection, project, sketch
from core.maskers.random import Random
from core.maskers.voxel_blocks import VoxelBlocks
from core.plan import Plan
from core.shapes import Grid, patchify
from core.targets.codebook import fit_codebook
from core.voxel_masks import to_voxels
from tests.core.maskers.inputs import complete, streams
from tests.parity.fixture import make_input

FLAT, SOLID = Grid((4, 6), (8, 8)), Grid((4, 4, 4), (2, 8, 8))


def _ragged(grid, count=3, bands=2):
    batch = complete(count, grid, bands=bands)
    batch.valid[1, 0, : grid.size[0] // 2, : grid.size[1] // 3] = False
    return batch


def _plan(batch, grid, ratio=0.5):
    return Random(ratio=ratio)(batch, grid, batch.rng)


@pytest.mark.parametrize("grid", [FLAT, SOLID])
@pytest.mark.parametrize("masker", [Random(ratio=0.5), VoxelBlocks(ratio=0.5)])
def test_statistics_are_those_of_visible_measured_voxels(grid, masker):
    batch = _ragged(grid)
    plan = masker(batch, grid, batch.rng)
    visible = visible_voxels(batch, plan, grid)
    mean, deviation = visible_statistics(batch, plan, grid)
    hidden = (to_voxels(plan.hide, grid, batch.bands) if plan.voxels is None else plan.voxels).expand_as(batch.valid)
    assert not bool((visible & hidden).any())
    assert not bool((visible & ~batch.valid).any())
    for sample in range(3):
        for band in range(2):
            own = batch.image[sample, band][batch.valid[sample, band] & ~hidden[sample, band]]
            assert float(mean[sample, band]) == pytest.approx(float(own.mean()), abs=1e-6)
            assert float(deviation[sample, band]) == pytest.approx(float(own.std(correction=0)), abs=1e-6)


def test_a_token_that_is_mostly_missing_teaches_nothing():
    """The encoder does not read it, so neither does the mean."""
    batch = complete(1, FLAT)
    batch.valid[..., :8, 2:8] = False  # three quarters of the first token
    batch.image[..., :8, :2] = 100.0
    plan = _plan(batch, FLAT)
    assert not bool(plan.see[0, 0] | plan.hide[0, 0])
    mean, _ = visible_statistics(batch, plan, FLAT)
    assert abs(float(mean)) < 0.2


def test_the_mean_of_each_band_stands_where_it_is_hidden():
    image = torch.randn(1, 2, *FLAT.size) * 0.1 + torch.tensor([5.0, -3.0])[:, None, None]
    batch = complete(1, FLAT, bands=2, image=image)
    plan = _plan(batch, FLAT)
    given = Mean()(batch, plan, FLAT, batch.rng).image
    hidden = to_voxels(plan.hide, FLAT, batch.bands)[0, 0]
    for band, level in enumerate((5.0, -3.0)):
        assert len(given[0, band][hidden].unique()) == 1
        assert float(given[0, band][hidden][0]) == pytest.approx(level, abs=0.02)


def test_a_band_without_visible_voxels_becomes_zero_without_nan():
    batch = complete(1, FLAT, bands=2)
    batch.valid[:, 1] = False
    image = batch.image.clone().requires_grad_()
    plan = Plan(see=torch.zeros(1, 24, dtype=torch.bool), hide=torch.ones(1, 24, dtype=torch.bool))
    for fill in (Mean(), Noise()):
        given = fill(replace(batch, image=image), plan, FLAT, batch.rng).image
        assert float(given[0, 0].detach().abs().max()) == 0.0
        given.sum().backward()
        assert bool(torch.isfinite(image.grad).all())


@pytest.mark.parametrize("grid", [FLAT, SOLID])
def test_noise_has_the_mean_and_deviation_of_what_is_visible(grid):
    image = torch.randn(8, 2, *grid.size) * torch.tensor([2.0, 0.1]).reshape(2, *(1 for _ in grid.size)) + 7.0
    batch = complete(8, grid, bands=2, image=image)
    plan = _plan(batch, grid)
    hidden = to_voxels(plan.hide, grid, batch.bands)[:, 0]
    given = Noise()(batch, plan, grid, batch.rng).image
    for band, deviation in enumerate((2.0, 0.1)):
        values = given[:, band][hidden]
        assert float(values.mean()) == pytest.approx(7.0, abs=5 * deviation / len(values) ** 0.5)
        assert float(values.std()) == pytest.approx(deviation, rel=0.05)
        assert abs(float(((values - values.mean()) / values.std()).pow(4).mean()) - 3.0) < 0.25  # normal
    mean = Mean()(batch, plan, grid, batch.rng).image
    faint = Noise(strength=0.5)(batch, plan, grid, batch.rng).image
    torch.testing.assert_close(faint - mean, (given - mean) / 2.0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, -1.0, float("nan")])
def test_noise_without_strength_is_refused(strength):
    with pytest.raises(ConfigError, match="strength above 0, got .*fill 'mean' has none"):
        Noise(strength=strength)


@pytest.mark.parametrize("grid", [FLAT, SOLID])
def test_patches_come_from_what_is_seen_of_the_partner(grid):
    batch = complete(3, grid, bands=2)
    plan = _plan(batch, grid)
    given = patchify(OtherSample()(batch, plan, grid, batch.rng).image, grid.patch)
    patches = patchify(batch.image, grid.patch)
    partner = next_by_key(batch.key, torch.ones(3, dtype=torch.bool))
    chosen = []
    for sample in range(3):
        donors = patches[partner[sample]][plan.see[partner[sample]]]
        same = (given[sample][plan.hide[sample]][:, None] == donors).all(2)
        assert bool((same.sum(1) == 1).all())
        chosen.append(int(same.any(0).sum()))
    assert min(chosen) > 4  # not one patch for all


def test_partners_go_round_by_key_and_skip_samples_without_data():
    key = torch.tensor([30, 10, 40, 20])
    assert next_by_key(key, torch.tensor([True] * 4)).tolist() == [2, 3, 1, 0]
    assert next_by_key(key, torch.tensor([True, True, True, False])).tolist()[:3] == [2, 0, 1]
    assert next_by_key(key, torch.tensor([True, False, False, False])).tolist()[0] == 0


def test_what_the_partner_lacks_becomes_the_own_mean():
    batch = complete(2, FLAT, bands=2)
    batch.valid[1, 1] = False
    plan = _plan(batch, FLAT)
    given, mean = (fill(batch, plan, FLAT, batch.rng).image for fill in (OtherSample(), Mean()))
    hidden = to_voxels(plan.hide, FLAT, batch.bands)[0, 0]
    assert torch.equal(given[0, 1][hidden], mean[0, 1][hidden])
    assert not torch.equal(given[0, 0][hidden], mean[0, 0][hidden])
    alone = batch.take([0])
    only = Plan(plan.see[:1], plan.hide[:1])
    assert torch.equal(OtherSample()(alone, only, FLAT, alone.rng).image, Mean()(alone, only, FLAT, alone.rng).image)


def test_the_nearest_codeword_stands_where_a_patch_is_hidden(tmp_path):
    entry = make_input("image", 2, FLAT.patch, FLAT.size)
    levels = torch.tensor([-2.0, 0.0, 3.0])
    image = levels[torch.randint(3, (4, 1, *FLAT.tokens))].repeat_interleave(8, 2).repeat_interleave(8, 3)
    image = image.expand(-1, 2, -1, -1) + 0.05 * torch.randn(4, 2, *FLAT.size)
    batch = complete(4, FLAT, bands=2, image=image)
    save_file(fit_codebook([batch], entry, size=3, seed=0), tmp_path / "codes.safetensors")
    plan = _plan(batch, FLAT)
    given = patchify(Codeword(codebook=str(tmp_path / "codes.safetensors"))(batch, plan, FLAT, batch.rng).image, (8, 8))
    hidden, patches = given[plan.hide], patchify(image, (8, 8))[plan.hide]
    assert len(hidden.unique(dim=0)) == 3
    torch.testing.assert_close(hidden.mean(1), patches.mean(1), atol=0.05, rtol=0)
    with pytest.raises(ConfigError, match="codebook"):
        Codeword(codebook=str(tmp_path / "none.safetensors"))(batch, plan, FLAT, batch.rng)
    with pytest.raises(ConfigError, match="got none"):
        Codeword(codebook="")


def _matrix(operator, valid):
    """Apply P to the unit vectors."""
    count = operator.shape[2]
    return project(torch.eye(count).expand(len(operator), -1, -1), valid[..., None].expand(-1, -1, count), operator)


@pytest.mark.parametrize("count", [7, 49, 100])
def test_it_is_an_orthogonal_projection_of_the_wanted_rank(count):
    valid = torch.ones(3, count, dtype=torch.bool)
    valid[1, : count // 2] = False
    operator = sketch(streams(3), valid, 1 / 7)
    matrix = _matrix(operator, valid).double()
    torch.testing.assert_close(matrix @ matrix, matrix, atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix, matrix.transpose(1, 2), atol=1e-7, rtol=0)
    for sample in range(3):
        rank = -(-int(valid[sample].sum()) // 7)
        assert int(torch.linalg.matrix_rank(matrix[sample])) == rank
        assert float(matrix[sample].trace()) == pytest.approx(rank, abs=1e-4)
        assert not bool(matrix[sample][~valid[sample]].any())


def test_buckets_are_random_and_of_equal_size():
    valid = torch.ones(200, 49, dtype=torch.bool)
    operator = sketch(streams(200), valid, 1 / 7)
    assert torch.equal(operator.abs().sum(2), torch.full((200, 7), 7.0))
    together = (operator.abs().transpose(1, 2) @ operator.abs()).mean(0)
    off = together[~torch.eye(49, dtype=torch.bool)]
    assert float(off.mean()) == pytest.approx(6 / 48, abs=1e-4)
    assert float(off.max()) < 0.25
    assert abs(float(operator.sum((1, 2)).mean())) < 1.0


@pytest.mark.parametrize("grid", [FLAT, SOLID])
def test_the_image_is_projected_and_projecting_again_changes_nothing(grid):
    batch = _ragged(grid)
    plan, fill = _plan(batch, grid), Projection()
    once = fill(batch, plan, grid, batch.rng)
    twice = fill(once, plan, grid, batch.rng)
    torch.testing.assert_close(once.image, twice.image, atol=1e-5, rtol=1e-5)
    rest = torch.where(once.valid, batch.image - once.image, 0.0)[0].flatten().double()
    kept = torch.where(once.valid, once.image, 0.0)[0].flatten().double()
    assert abs(float(rest @ kept)) < 1e-4 * float(kept @ kept)
    share = float(kept @ kept) / float(batch.image[0].double().square().sum())
    assert share == pytest.approx(1 / 7, abs=0.05)  # of white noise


@pytest.mark.parametrize("kept", [0.0, 1.0])
def test_keeping_nothing_or_all_is_refused(kept):
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        Projection(kept=kept)
