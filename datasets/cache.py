"""Decoded images that a process keeps, so that a small collection is decoded once and not at every epoch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Decoded:
    """An image in memory: (C, *S), where it is data (*S) (None = everywhere), and mean and std per band."""

    image: np.ndarray
    valid: np.ndarray | None
    mean: np.ndarray | None
    std: np.ndarray | None

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return self.image.nbytes + (0 if self.valid is None else self.valid.nbytes)


class Cache:
    """Least-recently-used images of one process, within a budget of bytes; travels to a worker empty."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: OrderedDict[tuple[int, int], Decoded] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Cache], tuple[int]]:
        return Cache, (self.budget,)

    def get(self, name: tuple[int, int]) -> Decoded | None:
        """Give what is held under a name, which becomes the most recently used."""
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
            return self._held.get(name)

    def put(self, name: tuple[int, int], decoded: Decoded) -> None:
        """Hold an image, and let the least recently used go until the budget is kept; one beyond it is not held."""
        with self._lock:
            if name in self._held or decoded.bytes > self.budget:
                return
            self._held[name] = decoded
            self._bytes += decoded.bytes
            while self._bytes > self.budget:
                self._bytes -= self._held.popitem(last=False)[1].bytes
