"""The encoder interface: a frozen spec that builds a backbone, and what a backbone promises to recipes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
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


Ability = Literal["drop", "token", "dense", "levels", "attention"]
"""What a recipe may ask of an encoder.

`drop`: compute on seen tokens alone, so that hidden ones cost nothing or at least never reach the output. `token`: put a
learned token in place of hidden ones. `dense`: read an image whose hidden parts were changed beforehand. `levels`: give
its tokens after inner stages too. `attention`: say how much the class token attends to each patch token.
"""


@dataclass(frozen=True)
class Tokens:
    """What an encoder returns.

    Attributes:
        value: (B, V, D) patch tokens in raster order, band groups one after another.
        ok: (B, V) bool, True = a real, valid token; None = all are.
        prefix: (B, R, D) tokens without a place, such as the class token; R may be 0.
        grid: the grid that the tokens lie on; coarser than the plan's where an encoder merges tokens.
        full_grid: True = `value` has one slot for every token of `grid`; False = for each sample those of `plan.see`, then
            padded slots that are not ok. V does not tell: the longest sample of a batch may see all it has.
        levels: the tokens after the inner stages that were asked for, by their number; before any last norm.
        attention: (B, heads, V) of the class token over patch tokens in the last block, softmax, where it was asked for.
    """

    value: Tensor
    ok: Tensor | None
    prefix: Tensor
    grid: Grid
    full_grid: bool
    levels: dict[int, Tokens] = field(default_factory=dict)
    attention: Tensor | None = None


class Backbone(nn.Module, ABC):
    """An encoder as recipes use it.

    Attributes:
        spec: what it was built from.
        abilities: what a recipe may ask.
        num_features: D of what it returns.
        num_levels: stages that `levels` may name, 1 to this; level 0 is the patch embedding.
    """

    spec: EncoderSpec
    abilities: ClassVar[frozenset[Ability]]
    num_features: int
    num_levels: int

    @property
    @abstractmethod
    def contract(self) -> Contract:
        """The inputs it reads."""

    @abstractmethod
    def level_width(self, level: int) -> int:
        """D of the tokens after a stage; level 0 = of the patch embedding, and so of a mask token that enters there."""

    @abstractmethod
    def level_grid(self, level: int, grid: Grid) -> Grid:
        """Lay out the tokens after a stage, for images with this grid at level 0; `num_levels` gives that of the output."""

    @abstractmethod
    def prepare(self, batch: Batch) -> tuple[Batch, Input]:
        """Normalise a batch, order its bands by name, and say which input it is."""

    @abstractmethod
    def forward(
        self,
        batch: Batch,
        plan: Plan | None = None,
        *,
        mask_token: Tensor | None = None,
        stage: int = 0,
        levels: tuple[int, ...] = (),
        attention: bool = False,
    ) -> Tokens:
        """Encode a prepared batch.

        Without a plan every valid token is read. With a plan hidden content is never read: hidden tokens are left out,
        or, with a mask token, replaced by it.

        Args:
            batch: from `prepare`.
            plan: on the grid of the input.
            mask_token: (1, 1, D) of `level_width(stage)`.
            stage: level after which hidden tokens are replaced; before it the encoder sees what the batch holds.
            levels: stages to give the tokens of.
            attention: give the class token's attention.
        """

    @abstractmethod
    def features(self, batch: Batch, pool: Pool) -> Tensor:
        """Summarise a prepared batch as (B, D); `mean_std` as (B, 2 D)."""


class EncoderSpec(ABC):
    """A frozen description of an encoder."""

    part_kind: ClassVar[str] = "encoders"
    contract: Contract

    @abstractmethod
    def build(self) -> Backbone:
        """Make it, with fresh weights from torch's current generator."""
