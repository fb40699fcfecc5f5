"""The head interface: a frozen spec that builds a module from an encoder's features to an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import nn

Reads = Literal["vector", "map", "levels"]
"""What a head reads of an encoder.

`vector`: one vector per image, (B, D). `map`: the normed tokens of the last level, laid out as an image, one map of `Maps`.
`levels`: the tokens of several inner levels, finest first, several maps of `Maps`.
"""


class HeadSpec(ABC):
    """A frozen description of a head; `core.heads.load.Model` joins it to an encoder."""

    part_kind: ClassVar[str] = "heads"
    reads: ClassVar[Reads] = "vector"

    @abstractmethod
    def build(self, *widths: int, ndim: int = 2) -> nn.Module:
        """Make it, with fresh weights from torch's current generator.

        Args:
            widths: D of the vector or the map; one per level for a head that reads several, finest first.
            ndim: axes of the images, 2 or 3, which matters to heads that read maps.
        """
