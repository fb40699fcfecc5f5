"""Uni4Eye: one encoder for photographs and volumes, two branches that predict hidden pixels and hidden gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from core.batch import Batch
from core.encoders.base import EncoderSpec
from core.errors import ConfigError
from core.losses import masked_mean, squared
from core.maskers.base import Masker
from core.maskers.random import Random
from core.pictures import compose
from core.predictors.base import PredictorSpec
from core.recipes.base import Recipe, RecipeSpec, StepOutput, require
from core.rng import SampleRng
from core.targets.base import Target
from core.targets.gradient import Gradient
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class Uni4Eye(RecipeSpec):
    """Unified 2D/3D pretraining (Cai et al. 2022, arXiv 2203.04614). Compute: 1.00 plus a second predictor.

    Batches of 2D and of 3D images alternate by the schedule that the data declares; the blocks are the same parameters.
    Deviations: positions are never the frozen zeros of the release; each branch has its own last norm (the release shares
    it); ratio and losses over valid data only; the gradient map respects spacing.

    Attributes:
        encoder: needs the ability `drop`; one input per rank.
        predictor: one copy for each branch.
        masker: what is hidden, the same for both branches.
        image: target of the image branch; like the release, pixels that are not normalised within the patch.
        gradient: target of the gradient branch.
        gradient_weight: of the gradient loss beside the image loss; the paper's is 1.
    """

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random()
    image: Target = Pixels(normalise="none")
    gradient: Target = Gradient()
    gradient_weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.gradient_weight > 0:
            raise ConfigError(f"expected a gradient weight above 0, got {self.gradient_weight}; recipe 'mae' has none.")

    def build(self) -> Uni4EyeRecipe:
        """Make it, with fresh weights."""
        return Uni4EyeRecipe(self)


class Uni4EyeRecipe(Recipe):
    """The built method."""

    def __init__(self, spec: Uni4Eye) -> None:
        super().__init__()
        self.encoder = spec.encoder.build()
        require(self.encoder, "drop", "uni4eye")
        self.masker, self.targets = spec.masker, {"image": spec.image, "gradient": spec.gradient}
        self.gradient_weight = spec.gradient_weight
        inputs = self.encoder.contract.inputs
        self.predictors = nn.ModuleDict()
        for branch, target in self.targets.items():
            values = {entry.name: target.num_values(len(entry.bands), entry.patch) for entry in inputs}
            self.predictors[branch] = spec.predictor.build(spec.encoder.width, spec.encoder.contract, values)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = batch.grid(entry.patch)

        plan = self.masker(batch, grid, rng)
        tokens = self.encoder(batch, plan)
        terms, branches = {}, {}
        for branch, target in self.targets.items():
            value, weight = target(batch, grid)
            prediction = self.predictors[branch](tokens, plan, batch)
            terms[branch] = masked_mean(squared(prediction, value), plan.weigh(weight, branch))
            if pictures:
                true = batch.image if branch == "image" else target.picture(value, batch, grid)
                branches[branch] = (target.picture(prediction.float(), batch, grid), true)
        loss = terms["image"] + self.gradient_weight * terms["gradient"]

        shown = compose(batch, entry, plan, branches) if pictures else None
        return StepOutput(loss, {branch: term.detach() for branch, term in terms.items()}, shown)
