"""Predicting an image that is larger than memory: read ahead, predict in batches, blend where windows overlap, hand on.

Three things happen at a time: threads read the next windows, the caller's thread runs the network, one thread blends and
writes. Memory does not grow with the image's length, and `memory_bytes` and
`network_bytes` say it beforehand. Opening files and writing them
is the caller's.
"""

from core.inference.blend import Write, taper
from core.inference.memory import memory_bytes, network_bytes
from core.inference.predict import predict_windows, sample_windows
from core.inference.scene import Read, Scene
from core.inference.windows import Windows

__all__ = [
    "Read",
    "Scene",
    "Windows",
    "Write",
    "memory_bytes",
    "network_bytes",
    "predict_windows",
    "sample_windows",
    "taper",
]
