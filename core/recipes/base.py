"""The recipe interface: a frozen spec that builds a module, and what a step returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Backbone, EncoderSpec
from core.errors import ConfigError
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
        encoder: what is kept after pretraining.
    """

    encoder: Backbone

    @abstractmethod
    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step on a batch as it left the loader; `rng` decides every draw, so a step can be replayed."""


class RecipeSpec(ABC):
    """A frozen description of a method."""

    part_kind: ClassVar[str] = "recipes"
    encoder: EncoderSpec

    @abstractmethod
    def build(self) -> Recipe:
        """Make it, with fresh weights from torch's current generator."""


def require(encoder: Backbone, ability: str, recipe: str) -> None:
    """Refuse an encoder that cannot do what a method needs.

    Raises:
        ConfigError: when the recipe is built, not at its first step.
    """
    if ability not in encoder.abilities:
        raise ConfigError(
            f"recipe '{recipe}' needs an encoder with the ability '{ability}', got {type(encoder).__name__} "
            f"with {sorted(encoder.abilities)}."
        )
