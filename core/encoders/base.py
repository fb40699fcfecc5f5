"""The encoder interface: a frozen spec that builds a backbone, and what a backbone promises to recipes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from core.batch import Batch
from core.contract import Contract, Input
from core.plan import Plan
from core.shapes import Grid

Pool = Literal["mean", "mean_std", "cls", "mean_then_norm"]
"""How tokens become one vector.

`mean`: of the normed valid tokens. `mean_std`: that mean and the standard deviation over those tokens, (B, 2 D): what is
rare and small, such as a lesion, moves the spread of the tokens more than their mean. `cls`: the normed class token.
`mean_then_norm`: the norm of the mean of the tokens, the convention of MAE's fine-tuning code.
"""


@dataclass(frozen=True)
class Tokens:
    """What an encoder returns.

    Attributes:
        value: (B, V, D) patch tokens in raster order of what was seen; V = N when nothing was hidden.
        ok: (B, V) bool, True = a real, valid token; None = all are.
        prefix: (B, R, D) tokens without a place, such as the class token; R may be 0.
        grid: the token grid of the images.
    """

    value: Tensor
    ok: Tensor | None
    prefix: Tensor
    grid: Grid


class Backbone(nn.Module, ABC):
    """An encoder as recipes use it.

    Attributes:
        spec: what it was built from.
        abilities: what a recipe may ask: `drop` = computes on the visible tokens only.
        num_features: D.
    """

    spec: EncoderSpec
    abilities: ClassVar[frozenset[str]]
    num_features: int

    @property
    @abstractmethod
    def contract(self) -> Contract:
        """The inputs it reads."""

    @abstractmethod
    def prepare(self, batch: Batch) -> tuple[Batch, Input]:
        """Normalise a batch, order its bands by name, and say which input it is."""

    @abstractmethod
    def forward(self, batch: Batch, plan: Plan | None = None) -> Tokens:
        """Encode a prepared batch: what `plan` lets it see, or every token."""

    @abstractmethod
    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise a prepared batch as (B, D); `mean_std` as (B, 2 D)."""


class EncoderSpec(ABC):
    """A frozen description of an encoder."""

    part_kind: ClassVar[str] = "encoders"
    contract: Contract
    width: int
    depth: int

    @abstractmethod
    def build(self) -> Backbone:
        """Make it, with fresh weights from torch's current generator."""
