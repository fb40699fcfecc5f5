"""MAE: hide most patches, encode the rest, predict the hidden pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.encoders.base import Ability, EncoderSpec
from core.maskers.base import Masker
from core.maskers.random import Random
from core.predictors.base import PredictorSpec
from core.recipes._one_view import Branch, OneView, Term
from core.recipes.base import RecipeSpec
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class Mae(RecipeSpec):
    """Masked autoencoder (He et al. 2021, arXiv 2111.06377). Compute: 1.00, what the other recipes are measured by.

    Deviations: 2D and 3D inputs share the blocks; normalisation per band; ratio and loss over valid data only.

    Measured on EuroSAT (docs/LOG.md, 2026-11-25): the default target, normalised within each patch, asks nothing of colour and
    brightness, and after 1,000 steps the features are worse than random weights. Where classes differ by them, set
    `target.normalise=none`, which was better after a third of the steps; after 1,920 CPU seconds it is .09 above random weights
    (linear probe .72), below the .82 that a plain MAE reached with far more chips to pretrain on.

    Attributes:
        encoder: needs the ability `drop`.
        predictor: from visible tokens to the full grid.
        masker: what is hidden.
        target: what a hidden patch should become.
    """

    paper: ClassVar[str] = "He et al. 2021, arXiv 2111.06377"
    cost: ClassVar[float] = 1.0
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random()
    target: Target = Pixels()

    def build(self) -> OneView:
        """Make it, with fresh weights."""
        image = Branch(predictor=self.predictor, terms={"image": Term(target=self.target)})
        return OneView("mae", self.encoder.build(), masker=self.masker, branches={"image": image})
