"""An encoder of a few weights that reads small photographs and volumes: what the engine's tests train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.contract import Contract, Input, Normalisation
from core.encoders.base import Backbone, EncoderSpec, Pool, Tokens
from core.plan import Plan
from core.shapes import Grid, patchify

_SPACE = Normalisation(method="fixed", mean=(0.5,), std=(0.25,))
PHOTOGRAPH = Input(
    name="photograph", bands=("grey",), patch=(2, 2), size=(4, 4), spacing=(1.0, 1.0), unit="px", normalisation=_SPACE
)
VOLUME = Input(
    name="volume",
    bands=("intensity",),
    patch=(2, 2, 2),
    size=(4, 4, 4),
    spacing=(1.0, 1.0, 1.0),
    unit="px",
    normalisation=_SPACE,
)


@dataclass(frozen=True, kw_only=True)
class StubSpec(EncoderSpec):
    """Describe it."""

    contract: Contract = Contract(inputs=(PHOTOGRAPH, VOLUME))
    width: int = 8
    depth: int = 1
    dropout: float = 0.25

    def build(self) -> Stub:
        return Stub(self)


class Stub(Backbone):
    """One linear stem per input, one shared block."""

    abilities: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, spec: StubSpec) -> None:
        super().__init__()
        self.spec: StubSpec = spec
        self.num_features, self.num_levels = spec.width, spec.depth
        self.stems = nn.ModuleDict(
            {e.name: nn.Linear(2 ** len(e.patch), spec.width) for e in spec.contract.inputs},
        )
        self.class_token = nn.Parameter(torch.randn(1, 1, spec.width))
        self.blocks = nn.ModuleList([nn.Linear(spec.width, spec.width)])
        self.dropout = nn.Dropout(spec.dropout)
        self.norm = nn.LayerNorm(spec.width)

    @property
    def contract(self) -> Contract:
        return self.spec.contract

    def prepare(self, batch: Batch) -> tuple[Batch, Input]:
        return batch.normalised(), self.contract.input_for(len(batch.size), batch.bands)

    def level_width(self, level: int) -> int:
        return self.spec.width

    def level_grid(self, level: int, grid: Grid) -> Grid:
        return grid

    def forward(self, batch: Batch, plan: Plan | None = None, **wanted: object) -> Tokens:
        entry = self.contract.input_for(len(batch.size), batch.bands)
        tokens = self.stems[entry.name](patchify(batch.image, entry.patch)) + self.class_token
        tokens = self.norm(self.dropout(torch.relu(self.blocks[0](tokens))))
        return Tokens(tokens, None, tokens[:, :0], batch.grid(entry.patch), True)

    def features(self, batch: Batch, pool: Pool) -> Tensor:
        return self(batch).value.mean(1)
