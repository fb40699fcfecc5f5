"""The recipe interface: a frozen spec that builds a module, and what a step returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Ability, Backbone, EncoderSpec
from core.errors import ConfigError
from core.maskers.base import Masker
from core.pictures import Pictures
from core.rng import SampleRng


@dataclass(frozen=True)
class StepOutput:
    """What a step returns.

    Attributes:
        loss: scalar with gradient; on several ranks the mean over ranks is the joined loss, see `core.losses`.
        terms: each term of the loss, detached, same convention.
        pictures: only when asked for.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    pictures: Pictures | None = None


class Recipe(nn.Module, ABC):
    """One method, built.

    Attributes:
        encoder: what learns; batches are prepared by it.
        detail: crops are loaded at this many times the size of the encoder's input, for targets that are finer than it.
        progress: scalar buffer, share of the training that is done before this step, 0 to 1.
    """

    encoder: Backbone
    detail: int = 1
    progress: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("progress", torch.zeros(()), persistent=False)

    @abstractmethod
    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step on a batch as it left the loader; `rng` decides every draw, so a step can be replayed."""

    @abstractmethod
    def updated(self) -> bool:
        """Let teachers follow after an update of the weights; True = the optimiser must forget its moments."""

    @abstractmethod
    def kept(self) -> Backbone:
        """Give the encoder that is exported after training: usually `encoder`, a teacher's where that is the better one."""


class RecipeSpec(ABC):
    """A frozen description of a method.

    Attributes:
        paper: authors, year and arXiv id.
        cost: compute of a step over that of `mae` with the same encoder, decoder and ratio 0.75, as measured or computed
            for ViT-B at 196 tokens (multiply-adds, forward and backward).
        needs: what its encoder must be able to do.
    """

    part_kind: ClassVar[str] = "recipes"
    paper: ClassVar[str]
    cost: ClassVar[float]
    needs: ClassVar[frozenset[Ability]]
    encoder: EncoderSpec

    @abstractmethod
    def build(self) -> Recipe:
        """Make it, with fresh weights from torch's current generator.

        Raises:
            ConfigError: encoder, masker, target and predictor do not go together; says what is missing.
        """


def checked(encoder: Backbone, recipe: str, needs: frozenset[Ability], *maskers: Masker) -> Backbone:
    """Give the encoder back, or refuse it when a method needs what it cannot do, or a masker cannot work on its grids.

    Raises:
        ConfigError: when the recipe is built, not at its first step.
    """
    missing = sorted(needs - encoder.abilities)
    if missing:
        raise ConfigError(
            f"recipe '{recipe}' needs an encoder with the ability {' and '.join(map(repr, missing))}, got "
            f"{type(encoder).__name__} with {sorted(encoder.abilities)}: choose another encoder or another recipe."
        )
    for masker in maskers:
        for entry in encoder.contract.inputs:
            masker.check(entry.grid())
    return encoder
