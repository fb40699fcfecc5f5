"""The text branch: what it may read, and that an image reaches every piece."""

from __future__ import annotations

import pytest
import torch

from core.errors import ConfigError, ShapeError
from core.text.model import TextModel, TextSpec

SPEC = TextSpec(width=16, depth=2, heads=2, inner=32, length=12)


def _model() -> TextModel:
    return TextModel(SPEC, 30).eval()


def test_padding_is_never_read():
    model, vector = _model(), torch.randn(2, 16)
    ids = torch.randint(4, 30, (2, 6))
    short = model(ids, vector)
    padded = model(torch.cat([ids, torch.zeros(2, 5, dtype=torch.int64)], dim=1), vector)
    torch.testing.assert_close(padded[:, :6], short)


def test_a_text_of_padding_alone_is_finite_and_so_are_its_gradients():
    model = _model()
    state = model(torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 16))
    assert bool(torch.isfinite(state).all())
    state.square().sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.blocks.parameters())


def test_order_counts_and_so_does_the_vector():
    model = _model()
    ids = torch.randint(4, 30, (1, 6))
    state = model(ids, torch.zeros(1, 16))
    assert not torch.allclose(model(ids.flip(1), torch.zeros(1, 16)).flip(1), state, atol=1e-4)
    moved = (model(ids, torch.ones(1, 16)) - state).abs().amax(dim=2)
    assert bool((moved > 1e-3).all())


def test_each_piece_reads_the_whole_text():
    model, ids = _model(), torch.randint(4, 20, (1, 6))
    other = ids.clone()
    other[0, 3] = 25
    changed = (model(ids, torch.zeros(1, 16)) - model(other, torch.zeros(1, 16))).abs().amax(dim=2)
    assert bool((changed > 1e-6).all())


def test_output_layer_is_the_word_embedding():
    model = _model()
    state = model(torch.randint(4, 30, (2, 5)), torch.zeros(2, 16))
    expected = model.head(state) @ model.words.weight.T + model.bias
    torch.testing.assert_close(model.logits(state), expected)
    assert sum(parameter.shape[0] == 30 for parameter in model.parameters()) == 2  # words and the output bias


def test_published_size():
    with torch.device("meta"):
        model = TextModel(TextSpec(), 30_000)
    block = 4 * (384 * 384 + 384) + 384 * 1536 + 1536 + 1536 * 384 + 384 + 4 * 384
    expected = 30_000 * 384 + 100 * 384 + 2 * 384 + 6 * block + 384 * 384 + 384 + 2 * 384 + 30_000
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_a_long_text_is_refused():
    with pytest.raises(ShapeError, match="at most 12 pieces, got 13"):
        _model()(torch.ones(1, 13, dtype=torch.int64), torch.zeros(1, 16))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="text width that the heads divide"):
        TextSpec(width=10, heads=3)
