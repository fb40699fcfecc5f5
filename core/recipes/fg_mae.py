"""FG-MAE: hide most patches, predict the gradients' orientations and, of optical images, spectral indices."""

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
from core.targets.hog import Hog
from core.targets.indices import Indices


@dataclass(frozen=True, kw_only=True)
class FgMae(RecipeSpec):
    """Feature-guided MAE (Wang et al. 2023, arXiv 2310.18653). Compute: 1.09, MAE's at its ratio of 0.7.

    One predictor gives the numbers of both terms. An input of which no index can be formed (radar, CT, or values that were
    normalised by each image's own statistics) has histograms alone, as the paper's SAR model; `indices.absent` can refuse it.

    Deviations: targets by band name, validity and spacing, see `Hog` and `Indices`; no normalisation of targets within the
    token unless they are told to `standardise`; ratio and losses over valid data only.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .604, below `mae` with raw pixels (.662)
    and below random weights (.632); a histogram of gradients asks nothing of colour, which these classes differ by, and
    three bands of visible light form no index.

    Attributes:
        encoder: needs the ability `drop`.
        predictor: from visible tokens to the full grid.
        masker: what is hidden.
        hog: target of every input.
        indices: target of optical inputs; None = of none.
        indices_weight: of the indices' loss beside the histograms'; the paper's is 1.
    """

    paper: ClassVar[str] = "Wang et al. 2023, arXiv 2310.18653"
    cost: ClassVar[float] = 1.09
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random(ratio=0.7)
    hog: Target = Hog()
    indices: Indices | None = Indices(absent="omit")
    indices_weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.indices_weight > 0:
            raise ConfigError(
                f"expected a weight above 0 for indices, got {self.indices_weight}: or set indices to none."
            )

    def build(self) -> OneView:
        """Make it, with fresh weights."""
        encoder = self.encoder.build()
        terms = {"hog": Term(target=self.hog)}
        if self.indices is not None:
            indices = self.indices.undoing(encoder.contract)
            if any(indices.num_values(entry) for entry in encoder.contract.inputs):
                terms["indices"] = Term(target=indices, weight=self.indices_weight)
        features = Branch(predictor=self.predictor, terms=terms)
        return OneView("fg_mae", encoder, masker=self.masker, branches={"features": features})
