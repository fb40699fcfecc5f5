"""MAE: hide most patches, encode the rest, predict the hidden pixels."""

from __future__ import annotations

from dataclasses import dataclass

from core.batch import Batch
from core.encoders.base import EncoderSpec
from core.losses import masked_mean, squared
from core.maskers.base import Masker
from core.maskers.random import Random
from core.pictures import compose
from core.predictors.base import PredictorSpec
from core.recipes.base import Recipe, RecipeSpec, StepOutput, require
from core.rng import SampleRng
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class Mae(RecipeSpec):
    """Masked autoencoder (He et al. 2021, arXiv 2111.06377). Compute: 1.00, what the other recipes are measured by.

    Deviations: 2D and 3D inputs share the blocks; normalisation per band; ratio and loss over valid data only.

    Attributes:
        encoder: needs the ability `drop`.
        predictor: from visible tokens to the full grid.
        masker: what is hidden.
        target: what a hidden patch should become.
    """

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random()
    target: Target = Pixels()

    def build(self) -> MaeRecipe:
        """Make it, with fresh weights."""
        return MaeRecipe(self)


class MaeRecipe(Recipe):
    """The built method."""

    def __init__(self, spec: Mae) -> None:
        super().__init__()
        self.encoder = spec.encoder.build()
        require(self.encoder, "drop", "mae")
        inputs = self.encoder.contract.inputs
        values = {entry.name: spec.target.num_values(len(entry.bands), entry.patch) for entry in inputs}
        self.predictor = spec.predictor.build(spec.encoder.width, spec.encoder.contract, values)
        self.masker, self.target = spec.masker, spec.target

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = batch.grid(entry.patch)

        value, weight = self.target(batch, grid)
        plan = self.masker(batch, grid, rng)
        tokens = self.encoder(batch, plan)
        prediction = self.predictor(tokens, plan, batch)
        loss = masked_mean(squared(prediction, value), plan.weigh(weight, "image"))

        shown = None
        if pictures:
            image = self.target.picture(prediction.float(), batch, grid)
            shown = compose(batch, entry, plan, {"image": (image, batch.image)})
        return StepOutput(loss, {"image": loss.detach()}, shown)
