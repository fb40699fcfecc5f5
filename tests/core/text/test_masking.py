"""Hidden words: half of them, whole, never a special piece."""

from __future__ import annotations

import pytest
import torch

from core.rng import SampleRng
from core.rng import key as rng_key
from core.text.masking import hidden_words

# a vocabulary of 4 specials, 10 pieces that begin a word, 6 that continue one
SPECIAL = torch.tensor([True] * 4 + [False] * 16)
CONTINUES = torch.tensor([False] * 14 + [True] * 6)


def _rng(count: int, seed: int = 0) -> SampleRng:
    return SampleRng(torch.tensor([rng_key(seed, i) for i in range(count)]))


def _texts(count: int, length: int = 100) -> torch.Tensor:
    ids = torch.randint(0, 20, (count, length))
    ids[:, 0] = 2
    return ids


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_the_share_of_ten_thousand_words_is_hidden(share):
    ids = torch.randint(4, 14, (100, 100))
    assert float(hidden_words(ids, SPECIAL, CONTINUES, share, _rng(100)).float().mean()) == pytest.approx(
        share, abs=0.02
    )


def test_words_are_drawn_apart_whatever_their_number_of_pieces():
    ids = torch.tensor([[4, 14, 15, 5, 16, 6] * 20] * 100)
    hidden = hidden_words(ids, SPECIAL, CONTINUES, 0.5, _rng(100)).reshape(-1, 6)
    first, second, third = hidden[:, 0], hidden[:, 3], hidden[:, 5]
    for word in (first, second, third):
        assert float(word.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float((first & second).float().mean()) == pytest.approx(0.25, abs=0.03)


def test_continuing_pieces_share_the_fate_of_their_word():
    ids = torch.tensor([[2, 4, 14, 15, 5, 6, 16, 17, 18, 7]] * 200)
    hidden = hidden_words(ids, SPECIAL, CONTINUES, 0.5, _rng(200))
    assert torch.equal(hidden[:, 2], hidden[:, 1]) and torch.equal(hidden[:, 3], hidden[:, 1])
    assert all(torch.equal(hidden[:, place], hidden[:, 5]) for place in (6, 7, 8))
    assert not torch.equal(hidden[:, 4], hidden[:, 5])


def test_special_pieces_and_what_continues_them_are_never_hidden():
    ids = _texts(500)
    hidden = hidden_words(ids, SPECIAL, CONTINUES, 0.9, _rng(500))
    assert not bool(hidden[ids < 4].any())
    after_special = (ids[:, :-1] < 4) & (ids[:, 1:] >= 14)
    assert int(after_special.sum()) > 1000
    assert not bool(hidden[:, 1:][after_special].any())
    assert 0.75 < float(hidden[ids >= 4].float().mean()) < 0.95


def test_a_text_that_begins_inside_a_word_has_that_piece_as_a_word():
    ids = torch.tensor([[14, 15, 4]] * 400)
    hidden = hidden_words(ids, SPECIAL, CONTINUES, 0.5, _rng(400))
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    assert 0.4 < float(hidden[:, 0].float().mean()) < 0.6


def test_neither_padding_nor_batch_mates_change_a_draw():
    ids = _texts(8, 40)
    hidden = hidden_words(ids, SPECIAL, CONTINUES, 0.5, _rng(8))
    padded = torch.cat([ids, torch.zeros(8, 20, dtype=torch.int64)], dim=1)
    assert torch.equal(hidden_words(padded, SPECIAL, CONTINUES, 0.5, _rng(8))[:, :40], hidden)
    alone = hidden_words(ids[5:6], SPECIAL, CONTINUES, 0.5, SampleRng(_rng(8).keys[5:6]))
    assert torch.equal(alone[0], hidden[5])
    assert not torch.equal(hidden_words(ids, SPECIAL, CONTINUES, 0.5, _rng(8, seed=1)), hidden)
