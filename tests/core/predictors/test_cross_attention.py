"""Cross-attention: who asks, who is looked at, what a hidden place begins with, and what another view may add."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from core.contract import Contract
from core.errors import ConfigError
from core.maskers.random import Random
from core.plan import Plan
from core.pos_embed import grid_positions
from core.predictors.cross_attention import Attention, CrossAttentionSpec
from core.testing.samples import CUBE, INPUTS, SCENE, VOLUME, encoder_spec, grouped, ragged_batch

TINY = CrossAttentionSpec(width=16, depth=2, heads=2)
VARIANTS = {
    "latent_mim": TINY,
    "cae": replace(TINY, start="learned", self_attention=False),
    "croco": replace(TINY, queries="all", start="learned"),
    "all": replace(TINY, queries="all", self_attention=False),
}


def setting(entry, spec=TINY, ratio=0.7):
    torch.manual_seed(0)
    encoder = replace(encoder_spec(), contract=Contract(inputs=(entry,))).build()
    predictor = spec.build(encoder, {entry.name: 5})
    batch, _ = encoder.prepare(ragged_batch(entry))
    plan = Random(ratio=ratio)(batch, entry.grid(), batch.rng)
    return encoder, predictor, batch, plan


@pytest.fixture(params=VARIANTS)
def spec(request):
    return VARIANTS[request.param]


@pytest.fixture(params=[*INPUTS, "grouped"])
def entry(request):
    return grouped(CUBE) if request.param == "grouped" else INPUTS[request.param]


def test_a_sample_is_predicted_as_if_it_were_alone(spec, entry):
    encoder, predictor, batch, plan = setting(entry, spec)
    together = predictor(encoder(batch, plan), plan, batch)
    assert together.shape == (4, entry.grid().num_tokens, 5)
    for row in range(3):
        own, part = batch.take([row]), Plan(see=plan.see[row : row + 1], hide=plan.hide[row : row + 1])
        alone = predictor(encoder(own, part), part, own)
        torch.testing.assert_close(alone[part.hide], together[row : row + 1][part.hide], rtol=1e-4, atol=1e-5)


def test_every_weight_learns(spec, entry):
    encoder, predictor, batch, plan = setting(entry, spec)
    predictor(encoder(batch, plan), plan, batch)[plan.hide].square().sum().backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().max() > 0), name


def test_a_batch_without_data_uses_every_weight_and_moves_none(spec, entry):
    encoder, predictor, batch, plan = setting(entry, spec)
    nothing = torch.zeros_like(plan.see[3:])
    empty, own = Plan(see=nothing, hide=nothing), batch.take([3])
    predicted = predictor(encoder(own, empty), empty, own)
    torch.where(empty.hide[..., None], predicted, 0.0).sum().backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad == 0).all()), name


def test_an_encoder_without_class_token_that_saw_nothing_gives_no_nan():
    torch.manual_seed(0)
    encoder = replace(encoder_spec(SCENE), class_token=False).build()
    predictor = TINY.build(encoder, {"scene": 5})
    batch, _ = encoder.prepare(ragged_batch(SCENE).take([3]))
    nothing = torch.zeros(1, 24, dtype=torch.bool)
    plan = Plan(see=nothing, hide=nothing)
    assert bool(torch.isfinite(predictor(encoder(batch, plan), plan, batch)).all())


def test_hidden_places_ask_and_are_answered_where_they_are():
    """A place is answered alike alone and among others, so an answer that landed elsewhere would show."""
    encoder, predictor, batch, plan = setting(SCENE, VARIANTS["cae"])
    tokens = encoder(batch, plan)
    all_at_once = predictor(tokens, plan, batch)
    row, place = 0, int(plan.hide[0].nonzero()[3])
    hide = torch.zeros_like(plan.hide)
    hide[row, place] = True
    single = predictor(tokens, replace(plan, hide=hide), batch)
    torch.testing.assert_close(single[row, place], all_at_once[row, place], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(all_at_once[row, place], all_at_once[row, int(plan.hide[0].nonzero()[4])], atol=1e-4)


def test_questions_look_at_each_other_only_with_self_attention():
    for self_attention in (True, False):
        encoder, predictor, batch, plan = setting(SCENE, replace(TINY, self_attention=self_attention))
        tokens = encoder(batch, plan)
        place = int(plan.hide[0].nonzero()[0])
        hide = torch.zeros_like(plan.hide)
        hide[0, place] = True
        one, two = (predictor(tokens, p, batch)[0, place] for p in (plan, replace(plan, hide=hide)))
        assert torch.allclose(one, two, atol=1e-6) is not self_attention


def test_only_what_was_seen_is_looked_at_even_if_the_encoder_kept_everything():
    encoder, predictor, batch, plan = setting(SCENE)
    full = encoder(batch)
    noise = torch.where(plan.see[..., None], full.value, torch.randn_like(full.value))
    one, two = predictor(full, plan, batch), predictor(replace(full, value=noise), plan, batch)
    assert torch.equal(one[plan.hide], two[plan.hide])


def test_mean_start_is_weighted_by_position():
    """By hand for one hidden place of a grid: softmax of position products over the seen places."""
    encoder, predictor, batch, plan = setting(SCENE)
    batch = batch.take([0])
    plan = Plan(see=plan.see[:1], hide=plan.hide[:1])
    tokens = encoder(batch, plan)
    seen = predictor._seen(tokens, plan.see, batch)
    index = plan.hide[0].nonzero().T
    start = predictor._start(seen, plan.see, index)
    places = grid_positions(SCENE.grid(), 16)[0].double()
    near = (places[plan.hide[0]] @ places[plan.see[0]].T / 4.0).softmax(1).float()
    expected = predictor.mask_token[0] + near @ predictor.embed(tokens.value)[0]
    torch.testing.assert_close(start[0], expected, rtol=1e-4, atol=1e-5)


def test_seen_places_begin_with_their_own_token_when_all_ask():
    encoder, predictor, batch, plan = setting(SCENE, VARIANTS["croco"])
    tokens = encoder(batch, plan)
    seen = predictor._seen(tokens, plan.see, batch)
    index = torch.arange(24).expand(4, -1)
    start = predictor._start(seen, plan.see, index)
    embedded = predictor.embed(tokens.value)
    for row in range(3):
        torch.testing.assert_close(start[row][plan.see[row]], embedded[row, : int(plan.see[row].sum())])
    assert torch.equal(start[plan.hide], predictor.mask_token[0].expand(int(plan.hide.sum()), -1))


def test_another_view_is_looked_at_instead():
    encoder, predictor, batch, plan = setting(SCENE, VARIANTS["croco"])
    other, _ = encoder.prepare(ragged_batch(SCENE, seed=1))
    everything = encoder(other)
    memory = (everything, everything.ok, other)
    tokens = encoder(batch, plan)
    found = predictor(tokens, plan, batch, memory)
    assert not torch.allclose(found[plan.hide], predictor(tokens, plan, batch)[plan.hide], atol=1e-3)
    hidden = torch.where(
        everything.ok[..., None], everything.value, torch.nan_to_num(torch.randn_like(everything.value))
    )
    again = predictor(tokens, plan, batch, (replace(everything, value=hidden), everything.ok, other))
    assert torch.equal(found[plan.hide], again[plan.hide])
    moved = replace(other, spacing=other.spacing * 2.0)  # the other view has places of its own
    assert not torch.equal(found, predictor(tokens, plan, batch, (everything, everything.ok, moved)))


def test_positions_are_in_spacing_not_in_steps():
    encoder, predictor, batch, plan = setting(VOLUME)
    tokens = encoder(batch, plan)
    moved = replace(batch, spacing=batch.spacing * torch.tensor([2.0, 1.0, 1.0]))
    assert not torch.allclose(predictor(tokens, plan, batch), predictor(tokens, plan, moved))


def test_each_group_of_bands_has_its_own_output():
    encoder, predictor, batch, plan = setting(grouped(CUBE), VARIANTS["cae"])
    tokens = encoder(batch, plan)
    before = predictor(tokens, plan, batch)
    with torch.no_grad():
        predictor.heads["cube"][1].bias.add_(1.0)
    after = predictor(tokens, plan, batch)
    assert torch.equal(before[:, :16], after[:, :16])
    torch.testing.assert_close(after[:, 16:], before[:, 16:] + 1.0)


def test_attention_equals_torchs_own():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2), torch.nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    asking, memory = torch.randn(3, 4, 8), torch.randn(3, 6, 8)
    ok = torch.tensor([[True] * 6, [True, False] * 3, [False] * 5 + [True]])
    expected, _ = theirs(asking, memory, memory, key_padding_mask=~ok)
    torch.testing.assert_close(ours(asking, memory, ok[:, None, None]), expected)


@pytest.mark.parametrize("options", [{"width": 15}, {"heads": 3}, {"depth": 0}])
def test_sizes_that_do_not_go_together_are_refused(options):
    with pytest.raises(ConfigError, match="expected an even predictor width"):
        replace(TINY, **options)


def test_an_encoder_that_merges_tokens_is_refused():
    encoder = encoder_spec(SCENE).build()
    encoder.level_grid = lambda level, grid: replace(grid, tokens=tuple(t // 2 for t in grid.tokens))
    with pytest.raises(ConfigError, match="got ViT, which merges them"):
        TINY.build(encoder, {"scene": 5})
