"""What a tokenizer's file says."""

from __future__ import annotations

import json

import pytest

from core.errors import ConfigError, MissingDataError
from core.testing.texts import PIECES, write_tokenizer
from core.text.vocabulary import read_vocabulary


def test_specials_continuing_pieces_and_mask_come_from_the_file(tmp_path):
    vocabulary = read_vocabulary(write_tokenizer(tmp_path / "tokenizer.json"))
    assert len(vocabulary) == len(PIECES) == 40
    assert vocabulary.mask == 3
    assert vocabulary.special == (True,) * 4 + (False,) * 36
    assert vocabulary.continues == (False,) * 30 + (True,) * 10


def test_other_numbers_of_the_specials_are_found(tmp_path):
    pieces = ("[PAD]", "a", "##b", "[CLS]", "[SEP]", "[MASK]", "c")
    vocabulary = read_vocabulary(write_tokenizer(tmp_path / "tokenizer.json", pieces))
    assert vocabulary.mask == 5
    assert vocabulary.special == (True, False, False, True, True, True, False)
    assert vocabulary.continues == (False, False, True, False, False, False, False)


def test_gaps_in_the_numbers_count_as_pieces(tmp_path):
    path = write_tokenizer(tmp_path / "tokenizer.json")
    tree = json.loads(path.read_text())
    tree["model"]["vocab"]["far"] = 50
    path.write_text(json.dumps(tree))
    assert len(read_vocabulary(path)) == 51


@pytest.mark.parametrize("pieces", [("a", "[PAD]", "[MASK]"), ("[PAD]", "a"), ("a", "b")])
def test_a_vocabulary_without_padding_as_zero_or_without_a_mask_is_refused(tmp_path, pieces):
    with pytest.raises(ConfigError, match=r"expected \[PAD\] as piece 0 and a piece \[MASK\]"):
        read_vocabulary(write_tokenizer(tmp_path / "tokenizer.json", pieces))


@pytest.mark.parametrize("text", ["not json", "[]", '{"model": {"type": "BPE", "vocab": {}}, "added_tokens": []}'])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"tokenizer\.json: expected a"):
        read_vocabulary(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="nowhere"):
        read_vocabulary(tmp_path / "nowhere.json")
