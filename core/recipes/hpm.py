"""HPM: MAE whose teacher predicts which patches are hard to reconstruct, and hides more of those as training goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from core.batch import Batch, valid_tokens
from core.contract import Input
from core.encoders.base import Ability, Backbone, EncoderSpec
from core.errors import ConfigError
from core.groups import by_group
from core.losses import masked_mean, squared
from core.losses.ranking import pairwise_ranking, standardised_loss
from core.maskers.base import Masker
from core.maskers.hard_patches import HardPatches
from core.pictures import compose
from core.plan import Plan
from core.predictors.base import PredictorSpec
from core.predictors.cross_attention import CrossAttentionPredictor
from core.predictors.layer_fusion import LayerFusion
from core.predictors.per_level import PerLevel
from core.predictors.transformer import TransformerPredictor
from core.recipes._one_view import draw, inner_levels
from core.recipes._suited import predicts_hidden, suited
from core.recipes.base import Recipe, RecipeSpec, StepOutput, checked, hinted
from core.rng import SampleRng
from core.shapes import Grid
from core.targets.base import Target
from core.targets.pixels import Pixels
from core.teachers._weights import average, still_copy
from core.teachers.ema import Ema


@dataclass(frozen=True, kw_only=True)
class Hpm(RecipeSpec):
    """Hard patches mining (Wang et al. 2023, arXiv 2304.05919). Compute: 2.34 (2.54 where the teacher also reconstructs).

    A second predictor learns the order of the tokens' reconstruction losses. A moving average of encoder and that predictor
    looks at the whole image before it is masked and says which tokens are hard.

    Deviations: each predictor has its own input layer and mask token (the release shares them); the loss predictor gives
    one number per token where the release averages P; its last biases, which the relative loss cannot see, are frozen;
    momentum rises over a share of the training; ratio, losses and ranking over valid data only.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .621, below `mae` with raw pixels (.662),
    and .634 with raw pixels; the teacher looks at the whole image, and 86 steps were made where `mae` made 174. After so
    few no order of difficulty has been learnt.

    Attributes:
        encoder: needs the ability `drop`.
        predictor: one copy for pixels and one for losses.
        masker: what is hidden; gets the teacher's predicted losses as its hint. One that wants none saves the teacher's pass.
        target: what a hidden patch should become.
        ranking: `relative`: which of two tokens is harder; `absolute`: the standardised loss itself.
        ranking_weight: of the ranking loss beside the image loss; the paper's is 1.
        teacher: the moving average, of the encoder and of the loss predictor alike; the paper's momentum rises over 100 of
            800 epochs.
    """

    paper: ClassVar[str] = "Wang et al. 2023, arXiv 2304.05919"
    cost: ClassVar[float] = 2.34
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = HardPatches()
    target: Target = Pixels()
    ranking: Literal["relative", "absolute"] = "relative"
    ranking_weight: float = 1.0
    teacher: Ema = Ema(start=0.999, end=0.9999, schedule="linear", until=0.125)

    def __post_init__(self) -> None:
        if not self.ranking_weight > 0.0:
            raise ConfigError(f"expected a ranking weight above 0, got {self.ranking_weight}; recipe 'mae' has none.")

    def build(self) -> HpmRecipe:
        """Make it, with fresh weights; the teacher starts equal to the student."""
        return HpmRecipe(self)


class HpmRecipe(Recipe):
    """The built method.

    Attributes:
        predictors: `image` and `ranking`.
        teacher: moving average of the encoder, and
        teacher_ranking: of the loss predictor.
    """

    def __init__(self, spec: Hpm) -> None:
        super().__init__()
        self.spec, self.masker = spec, hinted(spec.masker, "hpm", "loss")
        self.encoder = checked(spec.encoder.build(), "hpm", Hpm.needs, spec.masker)
        predicts_hidden(spec.predictor, "hpm")
        inputs = self.encoder.contract.inputs
        self.target = suited(spec.target, "hpm", self.encoder.contract)
        values = {"image": {e.name: self.target.num_values(e) for e in inputs}, "ranking": {e.name: 1 for e in inputs}}
        self.predictors = nn.ModuleDict({name: spec.predictor.build(self.encoder, values[name]) for name in values})
        if spec.ranking == "relative":
            _freeze_shifts(self.predictors["ranking"], inputs)
        self.levels = inner_levels(self.encoder, spec.predictor)
        self.teacher = spec.teacher.build(self.encoder)
        self.teacher_ranking = still_copy(self.predictors["ranking"])

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = entry.grid(batch.size)

        hint = None if self.spec.masker.hint is None else self.hardness(batch, grid)
        plan = self.masker(batch, grid, rng, self.guide(hint))
        tokens = self.encoder(batch, plan, levels=self.levels)
        prediction = self.predictors["image"](tokens, plan, batch)
        guess = self.predictors["ranking"](tokens, plan, batch)[..., 0]

        value, weight = by_group(self.target, batch, grid)
        error, weight = squared(prediction, value), plan.weigh(weight, "image")
        image = masked_mean(error, weight)
        rank = pairwise_ranking if self.spec.ranking == "relative" else standardised_loss
        ranking = rank(guess, *token_loss(error.detach(), weight))
        loss = image + self.spec.ranking_weight * ranking

        drawn = draw("image", self.target, prediction, value, batch, grid) if pictures else {}
        shown = compose(batch, entry, plan, drawn) if pictures else None
        return StepOutput(loss, {"image": image.detach(), "ranking": ranking.detach()}, shown)

    @torch.no_grad()
    def hardness(self, batch: Batch, grid: Grid) -> Tensor:
        """Let the teacher look at a whole prepared batch and say how hard each token would be, (B, N)."""
        tokens, valid = self.teacher.observe(batch, levels=self.levels), valid_tokens(batch, grid)
        guess: Tensor = self.teacher_ranking(tokens, Plan(see=valid, hide=torch.zeros_like(valid)), batch)
        return guess[..., 0]

    def train(self, mode: bool = True) -> HpmRecipe:
        """Switch all but the teacher, which stays in evaluation mode."""
        super().train(mode)
        self.teacher_ranking.eval()
        return self

    def updated(self) -> bool:
        """Let the teacher follow."""
        average(self.teacher_ranking, self.predictors["ranking"], self.spec.teacher.share(self.progress))
        return self.teacher.follow(self.encoder, self.progress)

    def kept(self) -> Backbone:
        """The encoder that learns, not its average."""
        return self.encoder


def _freeze_shifts(predictor: nn.Module, inputs: tuple[Input, ...]) -> None:
    """Take from the optimiser what adds one number to all tokens' outputs, which no order of them depends on.

    Where bands have groups each has an output layer of its own, and their biases do order the groups. Where a norm stands
    right before the output layers, its bias shifts all outputs alike; other predictors have more after their norms.
    """
    while isinstance(predictor, (LayerFusion, PerLevel)):  # these come before the predictor whose output is last
        predictor = predictor.inner
    single = [entry.name for entry in inputs if entry.grid().num_groups == 1]
    for name in single:
        for layer in cast(nn.ModuleDict, predictor.heads)[name].modules():
            if isinstance(layer, nn.Linear) and layer.out_features == 1:
                layer.bias.requires_grad_(False)
    normed = isinstance(predictor, (TransformerPredictor, CrossAttentionPredictor))
    if normed and len(single) == len(inputs):
        cast(nn.LayerNorm, predictor.norm).bias.requires_grad_(False)


def token_loss(error: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Average errors (B, N, P) with their weights in each token: (B, N) loss, and (B, N) bool where there is one."""
    weight = weight.to(torch.float32)
    total = weight.sum(dim=2)
    scored = total > 0
    return torch.where(weight > 0, error * weight, 0.0).sum(dim=2) / total.clamp(min=1e-12), scored
