"""Counter-based randomness: every draw is a pure function of (seed, epoch, index, stream), on any device.

No generator state exists, so nothing needs saving, and neither workers nor ranks nor batch composition can change a draw.
The mixing function is splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", section 5).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * _M1) & _MASK
    value = ((value ^ (value >> 27)) * _M2) & _MASK
    return value ^ (value >> 31)


def key(*parts: int | str) -> int:
    """Hash whole numbers and names into one signed 64-bit key; the order of the parts matters."""
    state = 0
    for part in parts:
        if isinstance(part, str):
            part = int.from_bytes(hashlib.blake2b(part.encode(), digest_size=8).digest(), "big")
        state = _mix(state ^ (part & _MASK))
    return state - (1 << 64) if state >> 63 else state


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """Make the numpy generator that belongs to a key: the same parts give the same draws, in any process."""
    return np.random.Generator(np.random.Philox(key=key(*parts) & _MASK))


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _shift(value: Tensor, bits: int) -> Tensor:
    """Shift right without sign: torch has no unsigned 64-bit arithmetic on every device."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(value: Tensor) -> Tensor:
    value = value + _signed(_GOLDEN)
    value = (value ^ _shift(value, 30)) * _signed(_M1)
    value = (value ^ _shift(value, 27)) * _signed(_M2)
    return value ^ _shift(value, 31)


# of the few names in the code: hashing at every draw would break torch.compile's graph, and so would functools.cache
_STREAMS: dict[int | str, int] = {}


@dataclass(frozen=True)
class SampleRng:
    """One independent stream of uniform numbers for each sample of a batch.

    Attributes:
        keys: (B,) int64, one key per sample, as made by `key(seed, epoch, index)`.
    """

    keys: Tensor

    def split(self, stream: int | str) -> SampleRng:
        """Derive independent keys for a named use, so that two maskers never share their noise."""
        known = _STREAMS.get(stream)
        if known is None:
            known = _STREAMS[stream] = key(stream)
        return SampleRng(_mix_tensor(self.keys ^ known))

    def uniform(self, *shape: int) -> Tensor:
        """Draw (B, *shape) float32 in [0, 1), 24 random bits each; calling again gives the same numbers."""
        counter = torch.arange(math.prod(shape), dtype=torch.int64, device=self.keys.device) * _signed(_GOLDEN)
        bits = _mix_tensor(_mix_tensor(self.keys[:, None]) + counter)
        return (_shift(bits, 40).to(torch.float32) / (1 << 24)).reshape(len(self.keys), *shape)
