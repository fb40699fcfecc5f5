"""ColorMAE: MAE whose masks are band-filtered noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.encoders.base import Ability, EncoderSpec
from core.maskers.base import Masker
from core.maskers.color_noise import ColorNoise
from core.predictors.base import PredictorSpec
from core.recipes._one_view import Branch, OneView, Term
from core.recipes.base import RecipeSpec
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class ColorMae(RecipeSpec):
    """Masks of coloured noise (Hinojosa et al. 2024, arXiv 2407.13036). Compute: 1.00; the noise is made on the fly.

    What differs from `mae`: the masker alone. Green noise, the default, hides and shows patches of middle size, evenly
    spread, and was best in the paper.
    Deviations: noise by Fourier transform in place of stored images, cut-offs in token edges, mm or m, 2D and 3D, see
    `core.maskers.color_noise`; otherwise those of `mae`.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .637, below `mae` with raw pixels (.662)
    and as good as `mae` with this target (.638): patches normalised one by one ask nothing of colour, which these classes
    differ by.

    Attributes:
        encoder: needs the ability `drop`.
        predictor: from visible tokens to the full grid.
        masker: what is hidden.
        target: what a hidden patch should become.
    """

    paper: ClassVar[str] = "Hinojosa et al. 2024, arXiv 2407.13036"
    cost: ClassVar[float] = 1.0
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = ColorNoise()
    target: Target = Pixels()

    def build(self) -> OneView:
        """Make it, with fresh weights."""
        image = Branch(predictor=self.predictor, terms={"image": Term(target=self.target)})
        return OneView("colormae", self.encoder.build(), masker=self.masker, branches={"image": image})
