"""Attention as the guide: who is hidden, how many, how often, and what happens without a teacher."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from core.batch import valid_tokens
from core.errors import ConfigError, ShapeError
from core.maskers.attention import AttentionGuided
from core.plan import Guide
from core.testing.samples import CUBE, SCENE, VOLUME, ragged_batch
from tests.parity.fixture import make_batch, make_input

ENTRY = make_input("image", 1, (4, 4), (40, 40))


def _plan(masker, hint, count=1):
    batch = make_batch(torch.zeros(count, 1, 40, 40), ENTRY)
    return masker(batch, batch.grid((4, 4)), batch.rng, Guide(hint=hint))


@pytest.mark.parametrize("mode", ["high", "low", "hint", "sample"])
@pytest.mark.parametrize("entry", [SCENE, VOLUME, CUBE], ids=lambda entry: entry.name)
def test_hides_the_exact_share_of_valid_tokens_in_every_mode(mode, entry):
    batch = ragged_batch(entry).normalised()
    grid = entry.grid()
    valid = valid_tokens(batch, grid)
    hint = torch.rand(4, grid.num_tokens)
    for ratio in (0.1, 0.3, 0.6):
        plan = AttentionGuided(mode=mode, ratio=ratio)(batch, grid, batch.rng, Guide(hint=hint))
        for sample in range(4):
            count = int(valid[sample].sum())
            assert int(plan.hide[sample].sum()) == min(math.ceil(round(ratio * count, 6)), max(count - 1, 0))
        assert torch.equal(plan.see | plan.hide, valid)
        assert not bool((plan.see & plan.hide).any())


def test_high_hides_the_most_and_low_the_least_attended():
    hint = torch.rand(1, 100)
    order = hint[0].argsort()
    assert set(_plan(AttentionGuided(), hint).hide[0].nonzero().flatten().tolist()) == set(order[-30:].tolist())
    assert set(_plan(AttentionGuided(mode="low"), hint).hide[0].nonzero().flatten().tolist()) == set(
        order[:30].tolist()
    )


def test_hints_reveal_some_of_the_top_and_hide_the_next_instead():
    hint = torch.rand(8, 100)
    rank = hint.argsort(1, descending=True).argsort(1)
    hide = _plan(AttentionGuided(mode="hint", reveal=0.05, top=0.1), hint, 8).hide
    for sample in range(8):
        hidden = set(rank[sample][hide[sample]].tolist())
        revealed = set(range(10)) - hidden
        assert len(revealed) == 5
        assert hidden == set(range(35)) - revealed
    assert len({tuple(sorted(set(range(10)) - set(rank[s][hide[s]].tolist()))) for s in range(8)}) > 4


def test_floor_counts_as_the_release_does():
    hint = torch.rand(1, 100)
    assert int(_plan(AttentionGuided(ratio=0.305), hint).hide.sum()) == 31
    assert int(_plan(AttentionGuided(ratio=0.305, count="floor"), hint).hide.sum()) == 30
    hints = AttentionGuided(ratio=0.305, count="floor", mode="hint", reveal=0.1, top=0.2)
    assert int(_plan(hints, hint).hide.sum()) == 20


def test_sampling_keeps_in_proportion_to_attention():
    """Of one visible token each: kept as often as its share of attention says."""
    hint = torch.full((4000, 100), 0.5 / 98)
    hint[:, 3], hint[:, 60] = 0.4, 0.1
    see = _plan(AttentionGuided(mode="sample", ratio=0.99), hint, 4000).see
    assert bool((see.sum(1) == 1).all())
    assert float(see[:, 3].float().mean()) == pytest.approx(0.4, abs=0.03)
    assert float(see[:, 60].float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(see[:, 4:60].float().sum(1).mean()) == pytest.approx(0.5 * 56 / 98, abs=0.03)


def test_sampling_never_keeps_what_has_no_attention_while_another_can_be_kept():
    hint = torch.zeros(50, 100)
    hint[:, :40] = 1.0
    see = _plan(AttentionGuided(mode="sample", ratio=0.7), hint, 50).see
    assert bool((see.sum(1) == 30).all())
    assert not bool(see[:, 40:].any())


def test_equal_attention_prefers_no_place():
    hide = _plan(AttentionGuided(ratio=0.3), torch.full((400, 100), 0.01), 400).hide
    often = hide.float().mean(0)
    assert 0.18 < float(often.min()) < float(often.max()) < 0.42


def test_masks_a_share_of_the_samples_and_leaves_the_others_whole():
    hide = _plan(AttentionGuided(applied=0.5), torch.rand(400, 100), 400).hide.sum(1)
    assert set(hide.tolist()) == {0, 30}
    assert float((hide == 30).float().mean()) == pytest.approx(0.5, abs=0.08)


def test_a_sample_is_masked_alike_whatever_its_mates():
    batch, hint = ragged_batch(SCENE).normalised(), torch.rand(4, 24)
    for mode in ("hint", "sample"):
        masker = AttentionGuided(mode=mode, applied=0.7)
        whole = masker(batch, SCENE.grid(), batch.rng, Guide(hint=hint))
        alone = masker(batch.take([2]), SCENE.grid(), batch.take([2]).rng, Guide(hint=hint[2:3]))
        assert torch.equal(alone.hide[0], whole.hide[2])


def test_without_a_hint_it_says_so():
    with pytest.raises(ConfigError, match="masker 'attention' ranks tokens by a hint and got none"):
        _plan(AttentionGuided(), None)


def test_a_hint_of_another_grid_is_refused():
    with pytest.raises(ShapeError, match=r"\(1, 100\), got \(1, 99\)"):
        _plan(AttentionGuided(), torch.rand(1, 99))


@pytest.mark.parametrize(
    "wrong",
    [{"ratio": 0.0}, {"reveal": 0.2, "top": 0.1}, {"reveal": 0.0}, {"applied": 0.0}, {"mode": "hint", "ratio": 0.96}],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        replace(AttentionGuided(), **wrong)
