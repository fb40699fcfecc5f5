"""Shape-aware masking: an MAE that hides whole regions, which follow edges and which their surroundings do not explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.encoders.base import Ability, EncoderSpec
from core.maskers.base import Masker
from core.maskers.shape_aware import ShapeAware as Shapes
from core.predictors.base import PredictorSpec
from core.recipes._one_view import Branch, OneView, Term
from core.recipes.base import RecipeSpec
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class ShapeAware(RecipeSpec):
    """Masks shaped like what is in the image (Yeganeh et al. 2022, arXiv 2207.05787). Compute: 1.26, that of MAE at ratio 0.6.

    Deviations: the paper trains an inpainting U-Net on the masks; here they are the masks of an MAE.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .617, below `mae` with raw pixels (.662),
    and .605 with raw pixels; superpixels were cut anew for every crop, which left it 52 steps. With a bank of them
    (`masker.bank`) they cost next to nothing.

    Attributes:
        encoder: needs the ability `drop`.
        predictor: from visible tokens to the full grid.
        masker: what is hidden; name its `bank` for training at speed.
        target: what a hidden patch should become.
    """

    paper: ClassVar[str] = "Yeganeh et al. 2022, arXiv 2207.05787"
    cost: ClassVar[float] = 1.26
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Shapes()
    target: Target = Pixels()

    def build(self) -> OneView:
        """Make it, with fresh weights."""
        image = Branch(predictor=self.predictor, terms={"image": Term(target=self.target)})
        return OneView("shape_aware", self.encoder.build(), masker=self.masker, branches={"image": image})
