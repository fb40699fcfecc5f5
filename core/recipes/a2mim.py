"""A2MIM: masked modeling for any architecture, by filling with the mean, a mask token inside, and the spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from core.batch import Batch
from core.encoders.base import Ability, EncoderSpec
from core.errors import ConfigError
from core.fills.base import Fill
from core.fills.mask_token import MaskToken
from core.fills.mean import Mean
from core.groups import by_group
from core.losses import absolute, masked_mean
from core.losses.frequency import focal_frequency
from core.maskers.base import Masker
from core.maskers.random import Random
from core.pictures import compose
from core.predictors.base import PredictorSpec
from core.recipes._one_view import draw, fresh_mask_token, inner_levels
from core.recipes._suited import on_plan, suited
from core.recipes.base import Recipe, RecipeSpec, StepOutput, checked, hinted
from core.rng import SampleRng
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class A2Mim(RecipeSpec):
    """Architecture-agnostic masked image modeling (Li et al. 2022, arXiv 2205.13943).

    Hidden voxels are shown as the mean, which every architecture can read; a mask token marks them inside the encoder; the
    prediction is compared voxel by voxel, and as a spectrum. Compute: 1.84, the encoder reads all tokens, as in SimMIM.

    Deviations: the token replaces what the encoder made of a hidden token (theirs is added to it); the mean is of the
    seen voxels; the spectrum's loss is the focal one without averaging over the batch, see `focal_frequency`; L1 for every
    architecture (theirs is focal for ResNets); stage and frequency weight are those of their ResNets for every encoder
    (their ViTs have the mask token at stage 0 and a weight of 0.1). Their masks are cells of 32 pixels: choose the masker
    `cells` where a token is smaller.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .645, below `mae` with raw pixels (.662);
    it encodes every token, and made 74 steps where `mae` made 174.

    Attributes:
        encoder: needs the abilities `dense` and `token`.
        predictor: `linear` is the paper's.
        masker: what is hidden.
        fill: what the encoder is shown there.
        stage: level after which the mask token enters, counted as in the encoder; none = three quarters through, which is
            the third of four stages, as their ResNets and ConvNeXts have it. 0 = right after the patch embedding, where
            the fill of a token's own voxels is never read.
        target: voxels; the spectrum is of what it gives.
        frequency_weight: of the spectrum's loss beside the voxels'; their configurations use 0.5 for ResNets, 0.1 for ViTs
            and 0 for ConvNeXt.
    """

    paper: ClassVar[str] = "Li et al. 2022, arXiv 2205.13943"
    cost: ClassVar[float] = 1.84
    needs: ClassVar[frozenset[Ability]] = frozenset({"dense", "token"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random(ratio=0.6)
    fill: Fill = Mean()
    stage: int | None = None
    target: Target = Pixels(normalise="none")
    frequency_weight: float = 0.5

    def __post_init__(self) -> None:
        if self.fill.ability != "dense":
            raise ConfigError(
                f"expected a fill that changes voxels for recipe 'a2mim', such as 'mean', got {type(self.fill).__name__}; "
                "recipe 'simmim' needs none."
            )
        if not self.frequency_weight > 0:
            raise ConfigError(
                f"expected a frequency weight above 0, got {self.frequency_weight}: choose recipe 'simmim'."
            )

    def build(self) -> A2MimRecipe:
        """Make it, with fresh weights."""
        return A2MimRecipe(self)


class A2MimRecipe(Recipe):
    """The built method; see `A2Mim`."""

    def __init__(self, spec: A2Mim) -> None:
        super().__init__()
        self.spec, self.masker = spec, hinted(spec.masker, "a2mim")
        encoder = self.encoder = checked(spec.encoder.build(), "a2mim", spec.needs, spec.masker, spec.fill)
        self.fill, self.target = spec.fill, suited(spec.target, "a2mim", encoder.contract)
        values = {}
        for entry in encoder.contract.inputs:
            values[entry.name] = self.target.num_values(entry)
            if values[entry.name] % entry.grid().voxels:
                raise ConfigError(
                    f"expected a target of voxels for recipe 'a2mim', whose spectrum is compared, got "
                    f"{type(spec.target).__name__} with {values[entry.name]} values per token of {entry.patch} voxels."
                )
        self.stage = 3 * encoder.num_levels // 4 if spec.stage is None else spec.stage
        self.mask_token = fresh_mask_token(encoder, MaskToken(stage=self.stage))
        self.predictor = on_plan(spec.predictor, "a2mim", self.stage).build(encoder, values)
        self.levels = inner_levels(encoder, spec.predictor)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = entry.grid(batch.size)

        plan = self.masker(batch, grid, rng, self.guide())
        filled = self.fill(batch, plan, grid, rng)
        tokens = self.encoder(filled, plan, mask_token=self.mask_token, stage=self.stage, levels=self.levels)
        prediction: Tensor = self.predictor(tokens, plan, batch)
        value, weight = by_group(self.target, batch, grid)
        scored = {name: plan.weigh(weight, name) for name in ("image", "frequency")}
        image = masked_mean(absolute(prediction, value), scored["image"])
        frequency = focal_frequency(prediction, value, scored["frequency"], grid)
        drawn = draw("image", self.target, prediction, value, batch, grid) if pictures else {}
        return StepOutput(
            image + self.spec.frequency_weight * frequency,
            {"image": image.detach(), "frequency": frequency.detach()},
            compose(batch, entry, plan, drawn) if pictures else None,
        )
