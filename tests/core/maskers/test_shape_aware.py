"""The masker: exact counts, whole regions, the same plan each time, with a bank and without."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from core import config
from core.batch import valid_tokens
from core.errors import ConfigError
from core.mask_bank import build_bank
from core.maskers._superpixels import RegionCut, cut
from core.maskers.shape_aware import ShapeAware
from core.shapes import Grid, patchify
from core.testing.samples import CUBE, SCENE, VOLUME, grouped, ragged_batch
from tests.core.maskers.phantoms import phantom, phantoms
from tests.parity.fixture import make_batch, make_input

FLAT = make_input("flat", 2, (8, 8), (96, 96))
SOLID = make_input("solid", 1, (2, 8, 8), (8, 32, 32))
STILL = RegionCut(shift=0.0, grow=0.0)


def _count(valid, ratio):
    return min(math.ceil(round(ratio * int(valid.sum()), 6)), max(int(valid.sum()) - 1, 0))


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("banked", [False, True], ids=["image", "bank"])
@pytest.mark.parametrize("entry", [SCENE, VOLUME, CUBE, grouped(SCENE)], ids=["scene", "volume", "cube", "grouped"])
def test_hides_the_exact_share_of_valid_tokens(tmp_path, entry, banked, ratio):
    batch, grid = ragged_batch(entry).normalised(), entry.grid()
    masker = ShapeAware(ratio=ratio)
    if banked:
        build_bank([phantoms(entry, 1)], tmp_path, entry)
        masker = replace(masker, bank=str(tmp_path))
    masker.check(grid, (1.0,) * grid.ndim)
    valid, plan = valid_tokens(batch, grid), masker(batch, grid, batch.rng)
    assert [int(row.sum()) for row in plan.hide] == [_count(row, ratio) for row in valid]
    assert torch.equal(plan.see | plan.hide, valid)


@pytest.mark.parametrize("entry", [FLAT, SOLID], ids=lambda entry: entry.name)
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.75])
def test_a_constant_image_is_masked_at_random(entry, ratio):
    batch = make_batch(torch.ones(60, len(entry.bands), *entry.size), entry)
    hide = ShapeAware(ratio=ratio)(batch, entry.grid(), batch.rng).hide
    assert bool((hide.sum(1) == _count(torch.ones(entry.grid().num_tokens), ratio)).all())
    often = hide.float().mean(0)
    assert ratio - 0.3 < float(often.min()) < float(often.max()) < ratio + 0.3


def test_regions_are_hidden_whole_but_for_the_last():
    """Of the tokens that lie wholly in one region, all are hidden or none, except in one region of each image."""
    batch, grid = phantoms(FLAT, 4), FLAT.grid()
    hide = ShapeAware(ratio=0.3, regions=STILL)(batch, grid, batch.rng).hide
    for image, hidden in zip(batch.image.numpy(), hide, strict=True):
        found = cut(image, np.ones_like(image, bool), (1.0, 1.0), (8, 8), STILL)
        parts = [
            hidden[(patchify(torch.from_numpy(found.labels == k + 1)[None, None], (8, 8))[0].all(1))]
            for k in range(len(found.scores))
        ]
        broken = [part for part in parts if len(part) and 0 < int(part.sum()) < len(part)]
        assert len(broken) <= 1


def test_what_is_hard_to_predict_is_hidden_first():
    batch, grid = phantoms(FLAT, 4), FLAT.grid()
    plan = ShapeAware(ratio=0.1, regions=STILL)(batch, grid, batch.rng)
    for number, hidden in enumerate(plan.hide):
        image = batch.image[number].numpy()
        kept = cut(image, np.ones_like(image, bool), (1.0, 1.0), (8, 8), STILL).masks().any(axis=0)
        share = patchify(torch.from_numpy(kept)[None, None], (8, 8))[0].float().mean(1)
        assert float((share[hidden] >= 0.5).float().mean()) > 0.95


def test_the_organs_of_a_phantom_are_hidden_together_more_often_than_by_chance():
    """Tokens of one organ: all hidden or all seen in most draws; at random that happens once in a hundred."""
    image, organs = phantom((96, 96), 3)
    batch = make_batch(torch.from_numpy(image).expand(16, 2, 96, 96).clone(), FLAT)
    hide = ShapeAware(ratio=0.15, regions=STILL)(batch, FLAT.grid(), batch.rng).hide
    for organ in organs:
        share = patchify(torch.from_numpy(organ)[None, None], (8, 8))[0].float().mean(1)
        inside = hide[:, share > 0.95].float().mean(1)
        together = ((inside == 0) | (inside == 1)).float().mean()
        assert float(together) > 0.6


@pytest.mark.parametrize("entry", [FLAT, SOLID], ids=lambda entry: entry.name)
def test_a_plan_depends_on_image_and_key_alone(tmp_path, entry):
    batch, grid = phantoms(entry, 2), entry.grid()
    build_bank([batch], tmp_path, entry)
    for masker in (ShapeAware(), ShapeAware(bank=str(tmp_path))):
        plan = masker(batch, grid, batch.rng)
        assert torch.equal(masker(batch, grid, batch.rng).hide, plan.hide)
        alone = batch.take([1])
        assert torch.equal(masker(alone, grid, alone.rng).hide[0], plan.hide[1])
        other = replace(batch, key=batch.key + 1)
        assert not torch.equal(masker(other, grid, other.rng).hide, plan.hide)


def test_a_bank_lends_the_shapes_of_other_images(tmp_path):
    """The bank knows one region only, the right half: it is what is hidden, whatever the image."""
    image = torch.zeros(1, 2, 96, 96)
    image[..., 48:] = 1.0
    wish = RegionCut(shift=0.0, grow=0.0, largest=0.5, keep=0.5, merge=0.5)
    build_bank([make_batch(image, FLAT)], tmp_path, FLAT, wish)
    batch = phantoms(FLAT, 2)
    hide = ShapeAware(ratio=0.5, regions=wish, bank=str(tmp_path))(batch, FLAT.grid(), batch.rng).hide
    halves = hide.reshape(2, 12, 2, 6).float().mean((1, 3))
    assert sorted(halves[0].tolist()) == [0.0, 1.0]
    assert torch.equal(halves[0], halves[1])


def test_what_a_sample_may_not_see_is_not_in_the_plan():
    batch, grid = phantoms(FLAT, 2), FLAT.grid()
    batch.valid[:, :, :48] = False
    batch = batch.normalised()
    broken = replace(batch, image=torch.where(batch.valid, batch.image, 1e6))
    masker = ShapeAware()
    plan = masker(batch, grid, batch.rng)
    assert torch.equal(masker(broken, grid, batch.rng).hide, plan.hide)
    assert not bool((plan.see | plan.hide).reshape(2, 12, 12)[:, :6].any())


def test_a_bank_that_is_missing_or_stale_is_refused_when_built(tmp_path):
    with pytest.raises(ConfigError, match="expected a bank of masks"):
        ShapeAware(bank=str(tmp_path / "none")).check(FLAT.grid(), FLAT.spacing)
    build_bank([phantoms(FLAT, 1)], tmp_path, FLAT)
    ShapeAware(bank=str(tmp_path)).check(FLAT.grid(), FLAT.spacing)
    with pytest.raises(ConfigError, match="regions_digest differ"):
        ShapeAware(bank=str(tmp_path), regions=STILL).check(FLAT.grid(), FLAT.spacing)


def test_without_the_library_it_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"halfseen\[superpixel\]"):
        ShapeAware().check(FLAT.grid(), FLAT.spacing)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    batch = phantoms(FLAT, 1)
    with pytest.raises(ConfigError, match=r"halfseen\[superpixel\]"):
        ShapeAware()(batch, FLAT.grid(), batch.rng)


def test_impossible_options_are_refused():
    with pytest.raises(ConfigError, match="2D only"):
        ShapeAware(regions=RegionCut(algorithm="felzenszwalb")).check(SOLID.grid(), SOLID.spacing)
    with pytest.raises(ConfigError, match="two tokens"):
        ShapeAware().check(Grid.of((8, 8), (8, 8)), (1.0, 1.0))
    with pytest.raises(ConfigError, match="threshold"):
        ShapeAware(threshold=0.0)


def test_its_options_survive_a_file():
    masker = ShapeAware(ratio=0.5, regions=RegionCut(merge=0.2), bank="masks")
    assert config.from_dict(ShapeAware, config.to_dict(masker)) == masker
