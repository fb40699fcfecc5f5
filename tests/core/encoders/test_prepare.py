"""What an encoder reads under a plan, and when the mask token enters."""

from __future__ import annotations

from dataclasses import replace

import torch

from core.encoders._prepare import reading
from core.plan import hide_share
from core.testing.samples import SCENE, ragged_batch

GRID = SCENE.grid()
BATCH = ragged_batch(SCENE).normalised()
WHOLE = replace(BATCH, valid=torch.ones_like(BATCH.valid))
TOKEN = torch.full((1, 1, 3), 9.0)


def _plan(seed: int = 0):
    valid = torch.ones(4, GRID.num_tokens, dtype=torch.bool)
    return hide_share(torch.rand(4, GRID.num_tokens, generator=torch.Generator().manual_seed(seed)), valid, 0.5)


def test_the_mask_token_enters_after_its_own_level_alone_and_leaves_the_prefix():
    plan = _plan()
    read = reading(WHOLE, GRID, plan, TOKEN, stage=1)
    tokens = torch.zeros(4, 1 + GRID.num_tokens, 3)
    replaced = read.replaced(tokens, 1, level=1)
    assert torch.equal(replaced[:, 1:, 0] == 9.0, plan.hide)
    assert bool((replaced[:, 0] == 0.0).all())
    for level in (0, 2):
        assert read.replaced(tokens, 1, level=level) is tokens


def test_without_a_mask_token_what_is_seen_is_gathered_and_nothing_replaced():
    plan = _plan()
    read = reading(WHOLE, GRID, plan, None, stage=0)
    assert read.index is plan.seen_index[0]
    assert read.ok is None
    tokens = torch.zeros(4, read.index.shape[1], 3)
    assert read.replaced(tokens, 0, level=0) is tokens


def test_without_a_plan_valid_tokens_are_marked_where_some_are_not():
    assert reading(WHOLE, GRID, None, None, stage=0).ok is None
    ok = reading(BATCH, GRID, None, None, stage=0).ok
    assert ok is not None
    assert not bool(ok[3].any())
    assert bool(ok[0].all())
