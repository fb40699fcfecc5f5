"""SparK: masked modeling for convolutional encoders, by sparse convolution and a U-decoder over all scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from core.encoders.base import Ability, EncoderSpec
from core.maskers.base import Masker
from core.maskers.random import Random
from core.predictors.base import PredictorSpec
from core.recipes._one_view import Branch, OneView, Term
from core.recipes.base import RecipeSpec, checked
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class SparK(RecipeSpec):
    """Sparse and hierarchical masked modeling (Tian et al. 2023, arXiv 2301.03580).

    The method lies in its parts: the encoder `convnet`, whose convolutions hold nothing at hidden places of any stage, and
    the predictor `u_decoder`, which fills those places in at every stage. A token is the encoder's total stride.

    Compute: 0.78 of MAE's with ViT-B, for ConvNeXt-B at 224 pixels, which has 49 tokens of 32, and a decoder of width 512;
    multiply-adds, counted forward in this code. Norms and MLPs, nearly all of a ConvNeXt, run over what is seen;
    depthwise convolutions and the decoder over whole maps. Time is less favourable than multiply-adds: depthwise
    convolutions are bound by memory, and on one core of a CPU a step takes 1.1 times MAE's.

    Deviations: those of the parts; normalisation per band; ratio and loss over valid data only.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .447, and .546 with raw pixels, below
    `mae` with raw pixels (.662) and below a random ViT (.632); some 40 steps have hardly moved a convolutional network of
    three stages.

    Attributes:
        encoder: needs the abilities `drop` and `levels`: `convnet`.
        predictor: `u_decoder` is the paper's.
        masker: what is hidden.
        target: what a hidden patch should become.
    """

    paper: ClassVar[str] = "Tian et al. 2023, arXiv 2301.03580"
    cost: ClassVar[float] = 0.78
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop", "levels"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random(ratio=0.6)
    target: Target = Pixels()

    def build(self) -> OneView:
        """Make it, with fresh weights."""
        encoder = checked(self.encoder.build(), "spark", self.needs)
        image = Branch(predictor=self.predictor, terms={"image": Term(target=self.target)})
        return OneView("spark", encoder, masker=self.masker, branches={"image": image})
