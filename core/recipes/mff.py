"""MFF: MAE whose predictor also reads inner stages, so that the last one need not carry low-level detail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.encoders.base import Ability, EncoderSpec
from core.maskers.base import Masker
from core.maskers.random import Random
from core.predictors.base import PredictorSpec
from core.predictors.layer_fusion import LayerFusionSpec
from core.recipes._one_view import Branch, OneView, Term
from core.recipes.base import RecipeSpec
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class Mff(RecipeSpec):
    """Multi-level feature fusion (Liu et al. 2023, arXiv 2308.00261). Compute: 1.02, five projections of seen tokens.

    Deviations: as `mae`; those of the fusion, see `LayerFusionSpec`.

    Measured on EuroSAT with raw pixels (docs/LOG.md, 2026-11-25): after 1,920 CPU seconds its linear probe (.692) is not above
    `mae`'s (.720). With 6 blocks the last one has little low-level detail to be freed of; the paper's gains are for 12 and more.

    Attributes:
        encoder: needs the abilities `drop` and `levels`.
        predictor: from fused visible tokens to the full grid.
        fused: inner stages that join the last; none = every other one from the first.
        masker: what is hidden.
        target: what a hidden patch should become.
    """

    paper: ClassVar[str] = "Liu et al. 2023, arXiv 2308.00261"
    cost: ClassVar[float] = 1.02
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop", "levels"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    fused: tuple[int, ...] = ()
    masker: Masker = Random()
    target: Target = Pixels()

    def build(self) -> OneView:
        """Make it, with fresh weights."""
        fusion = LayerFusionSpec(inner=self.predictor, fused=self.fused)
        image = Branch(predictor=fusion, terms={"image": Term(target=self.target)})
        return OneView("mff", self.encoder.build(), masker=self.masker, branches={"image": image})
