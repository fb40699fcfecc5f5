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
from core.fills.base import Fill
from core.maskers.base import Hint, Masker
from core.pictures import Pictures
from core.plan import Guide
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
        progress: scalar buffer, share of the training that is done, 0 to 1: in `forward` before this step, in `updated`
            with it.
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

    def updated(self) -> bool:
        """Let teachers follow after an update of the weights; True = the optimiser must forget its moments.

        Nothing follows where a recipe says nothing else.
        """
        return False

    def kept(self) -> Backbone:
        """Give the encoder that is exported after training: `encoder`, or a teacher's where that is the better one."""
        return self.encoder

    def reached(self) -> Tensor:
        """Give the share of the training that is done; in evaluation 0, so that what follows from it is fixed."""
        return self.progress if self.training else torch.zeros_like(self.progress)

    def guide(self, hint: Tensor | None = None) -> Guide:
        """Tell a masker how far the training is, and pass on a hint (B, N)."""
        return Guide(hint=hint, progress=self.reached())


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

    @property
    def detail(self) -> int:
        """How many times the size of the encoder's input crops are loaded at: 1, unless a target is finer."""
        return 1

    @abstractmethod
    def build(self) -> Recipe:
        """Make it, with fresh weights from torch's current generator.

        Raises:
            ConfigError: encoder, masker, target and predictor do not go together; says what is missing.
        """


def checked(encoder: Backbone, recipe: str, needs: frozenset[Ability], *parts: Masker | Fill) -> Backbone:
    """Give the encoder back, or refuse it when a method needs what it cannot do, or a masker or fill does not suit its inputs.

    Raises:
        ConfigError: when the recipe is built, not at its first step.
    """
    missing = sorted(needs - encoder.abilities)
    if missing:
        raise ConfigError(
            f"recipe '{recipe}' needs an encoder with the ability {' and '.join(map(repr, missing))}, got "
            f"{type(encoder).__name__} with {sorted(encoder.abilities)}: choose another encoder or another recipe."
        )
    for part in parts:
        for entry in encoder.contract.inputs:
            if isinstance(part, Fill):
                part.check(entry)
            else:
                part.check(entry.grid(), entry.spacing)
    return encoder


def hinted(masker: Masker, recipe: str, *given: Hint) -> Masker:
    """Give a masker back, or refuse it when it needs a hint that the recipe's networks do not give.

    Raises:
        ConfigError: when the recipe is built, not at its first step.
    """
    if masker.hint not in (None, *given):
        raise ConfigError(
            f"recipe '{recipe}' has no network that gives the hint '{masker.hint}' of its masker: choose another masker, "
            "such as 'random', or a recipe that gives it."
        )
    return masker
