"""What every encoder promises, in 2D and 3D: its abilities are true, hidden and missing content never reaches its tokens.

A test class gives the fixtures `encoder` (of all inputs), `fresh` (builds one of any contract) and `entry`, and inherits
the exam; see tests/contracts/test_encoders.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core import registry
from core.batch import Batch, valid_tokens
from core.config import from_dict, to_dict
from core.contract import Contract, Input
from core.encoders._pool import valid_mean
from core.encoders.base import Backbone, EncoderSpec, Tokens
from core.errors import BandError, ConfigError, DataError
from core.groups import cut
from core.maskers.random import Random
from core.plan import Plan
from core.shapes import patchify, unpatchify
from core.testing.samples import INPUTS, narrowed, ragged_batch

_BY_FIELD = {"width": 24, "depth": 2, "widths": (8, 16), "depths": (2, 2), "heads": 2, "patch": 2}


def tiny_spec(name: str, contract: Contract) -> EncoderSpec:
    """Describe any encoder of the folder at tiny size, so that windows are shifted, padded and merged."""
    rank = max(entry.ndim for entry in contract.inputs)
    staged = {"width": 16, "depths": (2, 2), "heads": (2, 2), "window": (3, 2, 4)[-rank:]}
    own: dict[str, dict[str, Any]] = {
        "swin": staged,
        "swinv2": staged | {"extra_norm_period": 2},
        "relative_vit": {"extent": (4, 4, 6)[-rank:], "bias": "per_block"},
    }
    part = registry.get("encoders", name)
    required = [f.name for f in fields(part) if f.default is MISSING and f.default_factory is MISSING]
    options = {field: _BY_FIELD[field] for field in required if field in _BY_FIELD}
    spec: EncoderSpec = part(contract=contract, **(options | own.get(name, {})))
    return spec


class EncoderContract:
    """The exam."""

    def test_missing_voxels_change_nothing(self, encoder: Backbone, entry: Input) -> None:
        batch = ragged_batch(entry)
        contents = torch.tensor([1e4, math.nan, math.inf, -math.inf, 0.0])
        mixed = contents[torch.arange(batch.image.numel()) % len(contents)].reshape(batch.image.shape)
        for mode in (None, *_modes(encoder)):
            _, one = _encoded(encoder, batch, mode)
            _, two = _encoded(encoder, replace(batch, image=torch.where(batch.valid, batch.image, mixed)), mode)
            assert bool(torch.isfinite(one.value).all())
            assert torch.equal(one.value, two.value)
            assert torch.equal(one.prefix, two.prefix)

    def test_hidden_content_never_reaches_the_tokens(self, encoder: Backbone, entry: Input) -> None:
        for mode in _modes(encoder):
            image = ragged_batch(entry).image.clone().requires_grad_()
            plan, tokens = _encoded(encoder, replace(ragged_batch(entry), image=image), mode)
            _probe(replace(tokens, ok=None)).backward()  # what padded slots hold counts too
            assert image.grad is not None
            reached = cut(image.grad, entry.bands, entry.grid()).abs().amax(dim=2)
            assert bool((reached[~plan.see] == 0.0).all())
            assert bool((reached[plan.see] > 0.0).all())

    def test_it_does_what_it_declares_and_refuses_the_rest(self, encoder: Backbone, entry: Input) -> None:
        batch, _ = encoder.prepare(ragged_batch(entry))
        plan = _plan(batch, entry)
        assert encoder.abilities & {"drop", "token"}
        if "drop" in encoder.abilities:
            tokens = encoder(batch, plan)
            assert torch.equal(tokens.ok.sum(1), plan.see.sum(1))
        else:
            with pytest.raises(ConfigError, match="mask token"):
                encoder(batch, plan)
        if "attention" in encoder.abilities:
            tokens = encoder(batch, attention=True)
            assert tokens.attention.shape[::2] == (len(batch), tokens.value.shape[1])
            assert bool((tokens.attention >= 0).all())
            assert bool((tokens.attention.sum(2) < 1.0 + 1e-5).all())
            assert bool((tokens.attention.movedim(2, 1)[~tokens.ok] == 0).all())
            assert bool((tokens.attention.movedim(2, 1)[tokens.ok] > 0).all())
        else:
            with pytest.raises(ConfigError, match="attention"):
                encoder(batch, attention=True)

    def test_it_says_whether_its_tokens_lie_on_the_full_grid(self, encoder: Backbone, entry: Input) -> None:
        batch = ragged_batch(entry)
        wanted = (1,) if "levels" in encoder.abilities else ()
        for mode in (None, *_modes(encoder)):
            plan, tokens = _encoded(encoder, batch, mode, levels=wanted)
            assert tokens.full_grid is (mode != "drop")
            for level in (tokens, *tokens.levels.values()):
                slots = level.grid.num_tokens if level.full_grid else int(plan.see.sum(1).max())
                assert level.value.shape[1] == slots

    def test_a_mask_token_enters_at_any_stage_it_may(self, encoder: Backbone, entry: Input) -> None:
        if "token" not in encoder.abilities:
            return
        batch, _ = encoder.prepare(ragged_batch(entry))
        valid = valid_tokens(batch, entry.grid())
        for stage in range(encoder.num_levels):
            whole_cells = Plan(see=valid & _first_half(entry), hide=valid & ~_first_half(entry))
            token = torch.randn(1, 1, encoder.level_width(stage), requires_grad=True)
            tokens = encoder(batch, whole_cells, mask_token=token, stage=stage)
            _probe(tokens).backward()
            assert token.grad is not None
            assert float(token.grad.abs().max()) > 0
            assert torch.equal(tokens.ok, encoder(batch).ok)

    def test_levels_have_the_announced_widths_and_grids(self, encoder: Backbone, entry: Input) -> None:
        if "levels" not in encoder.abilities:
            return
        batch, _ = encoder.prepare(ragged_batch(entry))
        wanted = tuple(range(1, encoder.num_levels + 1))
        tokens = encoder(batch, levels=wanted)
        assert tuple(sorted(tokens.levels)) == wanted
        for level, inner in tokens.levels.items():
            grid = encoder.level_grid(level, entry.grid())
            assert inner.grid == grid
            assert inner.value.shape == (len(batch), grid.num_tokens, encoder.level_width(level))
            assert inner.ok.shape == (len(batch), grid.num_tokens)
        assert not torch.equal(tokens.levels[encoder.num_levels].value, tokens.value)  # before the last norm

    def test_its_tokens_lie_on_the_announced_grid(self, encoder: Backbone, entry: Input) -> None:
        batch, _ = encoder.prepare(ragged_batch(entry).take([0]))
        tokens = encoder(batch)
        assert tokens.grid == encoder.level_grid(encoder.num_levels, entry.grid())
        assert tokens.value.shape == (1, tokens.grid.num_tokens, encoder.num_features)
        assert tokens.prefix.shape[::2] == (1, encoder.num_features)
        assert tokens.ok is None or bool(tokens.ok.all())

    def test_batch_mates_change_nothing(self, encoder: Backbone, entry: Input) -> None:
        batch = ragged_batch(entry)
        for mode in (None, *_modes(encoder)):
            _, together = _encoded(encoder, batch, mode)
            for sample in range(3):
                _, own = _encoded(encoder, batch.take([sample]), mode)
                count = own.value.shape[1]
                torch.testing.assert_close(own.value[0], together.value[sample, :count], rtol=1e-5, atol=1e-5)

    def test_bands_count_by_name(self, encoder: Backbone, entry: Input) -> None:
        batch = ragged_batch(entry)
        order = list(reversed(range(len(entry.bands))))
        shuffled = replace(
            batch,
            bands=tuple(entry.bands[i] for i in order),
            **{name: getattr(batch, name)[:, order] for name in ("image", "valid", "offset", "scale")},
        )
        assert torch.equal(_encoded(encoder, shuffled, None)[1].value, _encoded(encoder, batch, None)[1].value)

    def test_places_matter(self, encoder: Backbone, entry: Input) -> None:
        for name, value in (*encoder.named_parameters(), *encoder.named_buffers()):
            if value.ndim > 1 and ("tables" in name or "pos_" in name):
                assert bool((value != value.flatten(0, -2)[:1]).any()), name
        batch, _ = encoder.prepare(ragged_batch(entry).take([0]))
        _scatter(encoder)  # fresh biases are too small to see
        patches = patchify(batch.image, entry.patch)
        order = [patches.shape[1] - 1, *range(1, patches.shape[1] - 1), 0]
        swapped = replace(batch, image=unpatchify(patches[:, order], entry.grid().plain))
        before, after = (encoder.features(given, "mean") for given in (batch, swapped))
        assert float((before - after).detach().abs().max()) > 1e-4  # a bag of patches would give the same

    def test_features_pool_what_is_valid(self, encoder: Backbone, entry: Input) -> None:
        batch, _ = encoder.prepare(ragged_batch(entry))
        tokens = encoder(batch)
        expected = valid_mean(tokens.value, tokens.ok)
        torch.testing.assert_close(encoder.features(batch, "mean"), expected, rtol=1e-5, atol=1e-5)
        assert encoder.features(batch, "mean_std").shape == (len(batch), 2 * encoder.num_features)
        assert bool((encoder.features(batch, "mean")[3] == 0).all())
        assert bool(torch.isfinite(encoder.features(batch, "mean_then_norm")).all())
        if tokens.prefix.shape[1] == 0:
            with pytest.raises(ConfigError, match="class token"):
                encoder.features(batch, "cls")
        else:
            torch.testing.assert_close(encoder.features(batch, "cls"), tokens.prefix[:, 0])

    def test_a_batch_without_data_gives_finite_tokens(self, encoder: Backbone, entry: Input) -> None:
        for mode in (None, *_modes(encoder)):
            image = ragged_batch(entry).image.clone().requires_grad_()
            _, tokens = _encoded(encoder, replace(ragged_batch(entry), image=image).take([3]), mode)
            assert tokens.value.shape[1] == 0 or (tokens.ok is not None and not bool(tokens.ok.any()))
            assert bool(torch.isfinite(tokens.value).all())
            assert bool(torch.isfinite(tokens.prefix).all())
            (tokens.value.sum() + tokens.prefix.sum()).backward()
            assert image.grad is None or bool((image.grad == 0).all())

    def test_weights_move_between_two_of_its_kind(self, fresh: Callable[[Contract], Backbone], entry: Input) -> None:
        one, two = (fresh(Contract(inputs=(entry,))) for _ in range(2))
        batch, _ = one.prepare(ragged_batch(entry))
        assert not torch.equal(one(batch).value, two(batch).value)
        two.load_state_dict(one.state_dict())
        assert torch.equal(one(batch).value, two(batch).value)
        assert torch.equal(one.eval()(batch).value, one(batch).value)

    def test_its_description_survives_storage(self, encoder: Backbone) -> None:
        stored = to_dict(encoder.spec)
        assert from_dict(EncoderSpec, stored) == encoder.spec  # type: ignore[type-abstract]
        assert encoder.spec.depth > 0  # type: ignore[attr-defined]  # layer-wise learning rates count on it

    def test_every_parameter_learns(self, fresh: Callable[[Contract], Backbone], entry: Input) -> None:
        encoder = fresh(Contract(inputs=(entry,)))
        _probe(_encoded(encoder, ragged_batch(entry), None)[1]).backward()
        for name, parameter in encoder.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, name
                assert bool(torch.isfinite(parameter.grad).all()), name
                assert bool(parameter.grad.abs().max() > 0), name

    def test_inputs_share_all_but_their_stems(self, fresh: Callable[[Contract], Backbone], entry: Input) -> None:
        twin = narrowed(entry, "twin", entry.bands[:1])
        alone, both = (_shapes(fresh(Contract(inputs=inputs))) for inputs in ((entry,), (entry, twin)))
        assert alone == {name: shape for name, shape in both.items() if ".twin." not in name}
        other = INPUTS["volume"] if entry.ndim == 2 else INPUTS["scene"]
        ranks = _shapes(fresh(Contract(inputs=(entry, other)))).keys()
        assert alone.keys() <= ranks
        own = {name for name in ranks - alone.keys() if f".{other.name}." not in name}
        assert len(own) < 0.2 * len(alone)  # what each rank must have of its own: kernels, merging

    def test_what_it_does_not_read_is_refused(self, encoder: Backbone, entry: Input) -> None:
        batch = ragged_batch(entry)
        with pytest.raises(BandError, match="this encoder reads"):
            encoder.prepare(replace(batch, bands=tuple(f"x{band}" for band in batch.bands)))
        with pytest.raises(DataError, match=f"spacing in {entry.unit}, got px"):
            encoder.prepare(replace(batch, unit="px"))


def _shapes(encoder: Backbone) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in encoder.named_parameters()}


def _scatter(encoder: Backbone) -> None:
    """Move every parameter by noise, as training would."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.2)


def _modes(encoder: Backbone) -> list[str]:
    return [mode for mode in ("drop", "token") if mode in encoder.abilities]


def _plan(batch: Batch, entry: Input) -> Plan:
    return Random(ratio=0.5)(batch, entry.grid(), batch.rng)


def _first_half(entry: Input) -> Tensor:
    """Mark the first half of the grid along its last axis, (1, N): a mask that coarse tokens can follow."""
    grid = entry.grid()
    row = torch.arange(grid.tokens[-1]) < grid.tokens[-1] // 2
    return row.expand(*grid.tokens).reshape(1, -1).repeat(1, grid.num_groups)


def _encoded(encoder: Backbone, batch: Batch, mode: str | None, levels: tuple[int, ...] = ()) -> tuple[Plan, Tokens]:
    """Prepare and encode in one of the modes that hide, or with everything shown."""
    ready, entry = encoder.prepare(batch)
    plan = _plan(ready, entry)
    if mode is None:
        return plan, encoder(ready, levels=levels)
    if mode == "drop":
        return plan, encoder(ready, plan, levels=levels)
    token = torch.linspace(-1.0, 1.0, encoder.level_width(0)).reshape(1, 1, -1)
    return plan, encoder(ready, plan, mask_token=token, levels=levels)


def _probe(tokens: Tokens) -> Tensor:
    """Make one number that every real token's every value moves, each in its own way."""
    value = tokens.value if tokens.ok is None else torch.where(tokens.ok[..., None], tokens.value, 0.0)
    both = torch.cat([tokens.prefix, value], dim=1)
    weight = torch.randn(both.shape, generator=torch.Generator().manual_seed(0))
    return (both * weight).sum()
