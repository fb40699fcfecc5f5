"""The order of samples as arithmetic: position in, (epoch, row) out. No state, no list, nothing to save."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from core.errors import ConfigError
from core.rng import key

_ROUNDS = 6  # 4 suffice for a Feistel network of good round functions (Luby and Rackoff 1988); 6 are for tiny domains


@dataclass(frozen=True)
class Order:
    """An endless shuffled order over rows: every epoch is a fresh permutation, worked out one position at a time.

    A keyed Feistel network permutes the smallest square power of two that holds the rows; a value outside is permuted
    again until it is inside (cycle walking), which keeps the map one-to-one. Constant memory at any number of rows.

    Attributes:
        num_rows: rows of one epoch.
        seed: another seed, another order.
    """

    num_rows: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_rows < 1:
            raise ConfigError(f"expected at least one row to put in order, got {self.num_rows}.")

    def at(self, index: int) -> tuple[int, int]:
        """Give (epoch, row) of a position that counts for ever: epoch = index // num_rows."""
        epoch, place = divmod(index, self.num_rows)
        half = max(1, ((self.num_rows - 1).bit_length() + 1) // 2)
        keys = _round_keys(self.seed, epoch)
        while True:
            place = _feistel(place, half, keys)
            if place < self.num_rows:
                return epoch, place


@lru_cache(maxsize=64)
def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(key(seed, "order", epoch, number) for number in range(_ROUNDS))


def _feistel(value: int, half: int, keys: tuple[int, ...]) -> int:
    mask = (1 << half) - 1
    left, right = value >> half, value & mask
    for round_key in keys:
        left, right = right, left ^ (key(round_key, right) & mask)
    return (left << half) | right


@dataclass(frozen=True)
class Schedule:
    """Which kind of batch each step takes: the streams in turn, each for its number of steps, for ever.

    Attributes:
        streams: (name, turns) in order; turns is how many steps in a row the stream gets, at least 1.
    """

    streams: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.streams]
        if not names or len(set(names)) != len(names) or any(turns < 1 for _, turns in self.streams):
            raise ConfigError(f"expected streams of different names with at least 1 turn each, got {self.streams}.")

    def at(self, step: int) -> tuple[str, int]:
        """Give the stream of a step and how many batches that stream has had before it."""
        cycle, place = divmod(step, sum(turns for _, turns in self.streams))
        for name, turns in self.streams:
            if place < turns:
                return name, cycle * turns + place
            place -= turns
        raise AssertionError("place is smaller than the sum of turns")
