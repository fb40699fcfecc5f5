"""Learning a WordPiece vocabulary from counted words: pure, and the same words give the same pieces in the same order.

The tokenizers library learns by the same rule but breaks ties by the order of a hash table, so that no two trainings agree.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

PREFIX = "##"
"""What a piece begins with that goes on with a word."""

Pair = tuple[str, str]


def learn_pieces(words: Mapping[str, int], size: int, min_count: int) -> list[str]:
    """Merge the most frequent pair of neighbouring pieces, again and again (Sennrich et al. 2015, arXiv 1508.07909, 3.2).

    Ties go to the pair that comes first in the alphabet. Letters come before merged pieces, frequent ones first.

    Args:
        words: how often each word occurs.
        size: pieces at most; where there are more letters than that, the rarest have no piece.
        min_count: how often a pair must occur to be merged.
    """
    spelt = [[word[0], *(PREFIX + letter for letter in word[1:])] for word in words]
    counts = list(words.values())
    letters: Counter[str] = Counter()
    for pieces, count in zip(spelt, counts, strict=True):
        for piece in pieces:
            letters[piece] += count
    found = sorted(letters, key=lambda letter: (-letters[letter], letter))[:size]
    known = set(found)
    pairs = _Pairs()
    for number, pieces in enumerate(spelt):
        pairs.add(pieces, number, counts[number])
    while len(found) < size and (pair := pairs.best(min_count)) is not None:
        merged = pair[0] + pair[1].removeprefix(PREFIX)
        if merged not in known:
            known.add(merged)
            found.append(merged)
        for number in pairs.homes.pop(pair):
            pairs.add(spelt[number], number, -counts[number])
            spelt[number] = _merged(spelt[number], pair, merged)
            pairs.add(spelt[number], number, counts[number])
    return found


class _Pairs:
    """How often each pair of neighbours occurs, and in which words it may be."""

    def __init__(self) -> None:
        self.counts: Counter[Pair] = Counter()
        self.homes: defaultdict[Pair, set[int]] = defaultdict(set)
        self._heap: list[tuple[int, Pair]] = []
        self._changed: set[Pair] = set()

    def add(self, pieces: list[str], word: int, count: int) -> None:
        """Count the pairs of a word, or with a negative count take them away."""
        for pair in pairwise(pieces):
            self.counts[pair] += count
            if count > 0:
                self.homes[pair].add(word)
            self._changed.add(pair)

    def best(self, min_count: int) -> Pair | None:
        """Give the most frequent pair; None where none is frequent enough."""
        for pair in self._changed:
            heapq.heappush(self._heap, (-self.counts[pair], pair))
        self._changed.clear()
        while self._heap:
            count, pair = heapq.heappop(self._heap)
            if -count == self.counts[pair]:  # else the count is of an earlier day
                return pair if -count >= max(min_count, 1) else None
        return None


def _merged(pieces: list[str], pair: Pair, merged: str) -> list[str]:
    result, place = [], 0
    while place < len(pieces):
        hit = tuple(pieces[place : place + 2]) == pair
        result.append(merged if hit else pieces[place])
        place += 2 if hit else 1
    return result
