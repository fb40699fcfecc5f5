"""Decoded images that a process keeps, so that a small collection is decoded once and not at every epoch."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Name = tuple[int, int]


@dataclass(frozen=True)
class Decoded:
    """An image, or a window of one, in memory.

    Attributes:
        image: (C, *S), raw values.
        valid: (1, *S) or (C, *S) bool, True = measured data; None = everywhere.
        mean: per band, of the whole image, where the value space needs it; and
        std: the same.
        scaling: per band (s, o) with physical value = raw * s + o; None = raw values are the values.
    """

    image: np.ndarray
    valid: np.ndarray | None
    mean: np.ndarray | None
    std: np.ndarray | None
    scaling: tuple[tuple[float, float], ...] | None = None

    @property
    def bytes(self) -> int:
        """Memory that it holds."""
        return self.image.nbytes + (0 if self.valid is None else self.valid.nbytes)


class Cache:
    """Least-recently-used images of one process, within a budget of bytes; travels to a worker empty."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: OrderedDict[Name, Decoded] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._making: dict[Name, threading.Lock] = {}

    def __reduce__(self) -> tuple[type[Cache], tuple[int]]:
        return Cache, (self.budget,)

    def get(self, name: Name) -> Decoded | None:
        """Give what is held under a name, which becomes the most recently used."""
        with self._lock:
            if name in self._held:
                self._held.move_to_end(name)
            return self._held.get(name)

    def put(self, name: Name, decoded: Decoded) -> None:
        """Hold an image, and let the least recently used go until the budget is kept; one beyond it is not held."""
        with self._lock:
            if name in self._held or decoded.bytes > self.budget:
                return
            self._held[name] = decoded
            self._bytes += decoded.bytes
            while self._bytes > self.budget:
                self._bytes -= self._held.popitem(last=False)[1].bytes

    def get_or_make(self, name: Name, make: Callable[[], Decoded]) -> Decoded:
        """Give what is held, or make and hold it; of threads that want the same image, one decodes and the rest wait."""
        with self._lock:
            turn = self._making.setdefault(name, threading.Lock())
        try:
            with turn:
                held = self.get(name)
                if held is None:
                    held = make()
                    self.put(name, held)
                return held
        finally:
            with self._lock:
                self._making.pop(name, None)
