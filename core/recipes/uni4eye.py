"""Uni4Eye: one encoder for photographs and volumes, two branches that predict hidden pixels and hidden gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.encoders.base import Ability, EncoderSpec
from core.errors import ConfigError
from core.maskers.base import Masker
from core.maskers.random import Random
from core.predictors.base import PredictorSpec
from core.recipes._one_view import Branch, OneView, Term
from core.recipes.base import RecipeSpec
from core.targets.base import Target
from core.targets.gradient import Gradient
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class Uni4Eye(RecipeSpec):
    """Unified 2D/3D pretraining (Cai et al. 2022, arXiv 2203.04614). Compute: 1.00 plus a second predictor.

    Batches of 2D and of 3D images alternate by the schedule that the data declares; the blocks are the same parameters.
    Deviations: positions are never the frozen zeros of the release; each branch has its own last norm (the release shares
    it); ratio and losses over valid data only; the gradient map respects spacing.

    Measured on EuroSAT (docs/LOG.md, 2026-11-25, 1,920 CPU seconds): linear probe .743 and .775 by two seeds, 3.5 points above
    `mae` of raw pixels on average (.720, .728), k-NN 4.5 (.678, .711; .662, .638), with six steps for its ten. At 150 seconds it
    is still level with it. Edges beside colours, at hardly more compute than a second predictor, is the likely reason.

    Attributes:
        encoder: needs the ability `drop`; one input per rank.
        predictor: one copy for each branch.
        masker: what is hidden, the same for both branches.
        image: target of the image branch; like the release, pixels that are not normalised within the patch.
        gradient: target of the gradient branch.
        gradient_weight: of the gradient loss beside the image loss; the paper's is 1.
    """

    paper: ClassVar[str] = "Cai et al. 2022, arXiv 2203.04614"
    cost: ClassVar[float] = 1.56
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random()
    image: Target = Pixels(normalise="none")
    gradient: Target = Gradient()
    gradient_weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.gradient_weight > 0:
            raise ConfigError(f"expected a gradient weight above 0, got {self.gradient_weight}; recipe 'mae' has none.")

    def build(self) -> OneView:
        """Make it, with fresh weights."""
        terms = {
            "image": Term(target=self.image),
            "gradient": Term(target=self.gradient, weight=self.gradient_weight),
        }
        branches = {name: Branch(predictor=self.predictor, terms={name: term}) for name, term in terms.items()}
        return OneView("uni4eye", self.encoder.build(), masker=self.masker, branches=branches)
