"""Learning pieces: the most frequent pair first, the same for the same words."""

from __future__ import annotations

import random

from datasets.wordpiece import learn_pieces

WORDS = {"low": 5, "lower": 2, "newest": 6, "widest": 3}  # of Sennrich et al. 2015, 3.2


def test_letters_come_first_and_the_most_frequent_pair_is_merged_first():
    pieces = learn_pieces(WORDS, 100, 1)
    letters = {"l", "n", "w", "##o", "##w", "##e", "##r", "##s", "##t", "##i", "##d"}
    assert set(pieces[: len(letters)]) == letters
    assert pieces[0] == "##e"  # 17 times
    # es and st occur 9 times each; es comes first in the alphabet, then est
    assert pieces[len(letters) : len(letters) + 4] == ["##es", "##est", "##ow", "low"]
    assert {"newest", "widest", "lower"} <= set(pieces)


def test_a_size_is_kept_and_rare_pairs_are_left_apart():
    assert len(learn_pieces(WORDS, 13, 1)) == 13
    assert "lower" not in learn_pieces(WORDS, 100, 3)
    assert learn_pieces({"xy": 5, "z": 1}, 2, 1) == ["##y", "x"]


def test_the_order_of_the_words_changes_nothing():
    draw = random.Random(0)
    words = {"".join(draw.choice("abcde") for _ in range(draw.randint(1, 9))): draw.randint(1, 4) for _ in range(400)}
    shuffled = list(words.items())
    draw.shuffle(shuffled)
    assert learn_pieces(dict(shuffled), 300, 2) == learn_pieces(words, 300, 2)


def test_repeated_letters_are_merged_from_the_left():
    assert learn_pieces({"aaaa": 3}, 100, 1) == ["##a", "a", "##aa", "##aaa", "aaaa"]


def test_each_piece_is_found_once():
    pieces = learn_pieces({"abc": 3, "bc": 3, "xabc": 3}, 100, 1)
    assert len(pieces) == len(set(pieces))
