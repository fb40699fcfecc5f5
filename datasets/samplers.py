"""The order of samples as arithmetic: position in, (epoch, image, tile) out. No state, no list, nothing to save."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from core.errors import ConfigError
from core.rng import key

_ROUNDS = 6  # 4 suffice for a Feistel network of good round functions (Luby and Rackoff 1988); 6 are for tiny domains
_LANES = 64


@dataclass(frozen=True)
class Order:
    """An endless shuffled order over rows: every epoch is a fresh permutation, worked out one position at a time.

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
        return epoch, shuffled(place, self.num_rows, self.seed, "order", epoch)


class TileOrder:
    """An endless shuffled order over the tiles of many images, several of an image at a time; nothing is listed.

    The tiles of all images stand in a line, image after image. The line is cut into visits of `per_visit` tiles: what is
    read while an image is open. Visits are shuffled over the whole epoch; `window` visits that follow one another then
    are a shuffle window, whose tiles are shuffled among themselves. So a batch is made of many images, while only the
    images of one window need to be open or decoded at a time.

    Each tile comes exactly once in each epoch. A visit is of one image where `per_visit` divides the image's number of
    tiles, else some visits are of two neighbours. The visit that the end of the line cuts short comes last in its epoch,
    and so does a window that is not full.

    Within a full window a position's lane, which is its remainder by gcd(window, 64), decides which of the window's
    images it may be of. Ranks take positions in turn, so ranks whose number divides that gcd never decode each other's
    images.
    """

    def __init__(
        self, counts: int | np.ndarray, num_images: int, seed: int, *, per_visit: int = 1, window: int = 1
    ) -> None:
        """Measure the line: constant memory for one number of tiles for all images, 8 bytes per image otherwise.

        Args:
            counts: tiles of each image, one number for all or (num_images,).
            num_images: how many images.
            seed: another seed, another order.
            per_visit: tiles of one visit.
            window: visits of one shuffle window.

        Raises:
            ConfigError: no image, or an image, a visit or a window without tiles.
        """
        fewest = counts if isinstance(counts, int) else int(counts.min(initial=1))
        if num_images < 1 or min(fewest, per_visit, window) < 1:
            raise ConfigError(
                "expected at least one image, one tile per image, one per visit and a window of one, got "
                f"{num_images}, {fewest}, {per_visit} and {window}."
            )
        if not isinstance(counts, int) and (counts == counts[0]).all():
            counts = int(counts[0])
        self._each = counts if isinstance(counts, int) else 0
        self._ends = None if isinstance(counts, int) else np.cumsum(counts, dtype=np.int64)
        self.num_tiles = self._each * num_images if self._ends is None else int(self._ends[-1])
        self.num_images, self.seed, self.per_visit, self.window = num_images, seed, per_visit, window

    def at(self, index: int) -> tuple[int, int, int]:
        """Give (epoch, image, tile of that image) of a position that counts for ever: epoch = index // num_tiles."""
        epoch, place = divmod(index, self.num_tiles)
        window, within = divmod(place, self.window * self.per_visit)
        within = self._within(within, window, epoch)
        visit, offset = divmod(within, self.per_visit)
        visit += window * self.window
        whole = self.num_tiles // self.per_visit
        if visit < whole:
            visit = shuffled(visit, whole, self.seed, "order", epoch)
        image, tile = self._image(visit * self.per_visit + offset)
        return epoch, image, tile

    def _within(self, within: int, window: int, epoch: int) -> int:
        """Shuffle a position inside its window; the last window may be shorter, and has one lane."""
        before = window * self.window * self.per_visit
        length = min(self.window * self.per_visit, self.num_tiles - before)
        if self.per_visit == 1 or length == 1:
            return within  # visits of one tile are in shuffled order already
        lanes = math.gcd(self.window, _LANES) if length == self.window * self.per_visit else 1
        turn, lane = divmod(within, lanes)
        turn = shuffled(turn, length // lanes, self.seed, "window", epoch, window, lane)
        if lanes == 1:
            return turn
        group, offset = divmod(turn, self.per_visit)
        return (group * lanes + lane) * self.per_visit + offset

    def _image(self, position: int) -> tuple[int, int]:
        """Find the image of a place in the line, and the number of the tile within it."""
        if self._ends is None:
            return divmod(position, self._each)
        image = int(np.searchsorted(self._ends, position, side="right"))
        return image, position - (int(self._ends[image - 1]) if image else 0)


def shuffled(place: int, count: int, *parts: int | str) -> int:
    """Permute the whole numbers below `count`, one at a time: the permutation that belongs to a key of these parts.

    A keyed Feistel network permutes the smallest square power of two that holds them; a value outside is permuted again
    until it is inside (cycle walking), which keeps the map one-to-one. Constant memory at any number.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    keys = _round_keys(*parts)
    while True:
        place = _feistel(place, half, keys)
        if place < count:
            return place


@lru_cache(maxsize=1024)
def _round_keys(*parts: int | str) -> tuple[int, ...]:
    return tuple(key(*parts, number) for number in range(_ROUNDS))


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
