"""MultiMAE: groups of bands, or modalities, share one budget of seen tokens, and each is predicted from all that is seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability, EncoderSpec
from core.errors import ConfigError
from core.groups import by_group
from core.losses import masked_mean, squared
from core.maskers.bands import Bands
from core.maskers.base import Masker
from core.pictures import Pictures, compose
from core.plan import Plan, check_grid
from core.predictors.base import PredictorSpec
from core.recipes._one_view import inner_levels
from core.recipes._suited import predicts_hidden, suited
from core.recipes.base import Recipe, RecipeSpec, StepOutput, checked, hinted
from core.rng import SampleRng
from core.shapes import patchify, unpatchify
from core.targets.base import Target
from core.targets.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class MultiMae(RecipeSpec):
    """Multi-modal masked autoencoder (Bachmann et al. 2022, arXiv 2204.01678). Compute: 1.06, with three groups.

    The input declares its `groups`: bands of one resolution, sensor or sequence. Each place has one token per group; a few
    of all tokens are seen, shared among the groups by random proportions; every group is predicted by its own output
    layer. A sample that lacks a group, or a part of one, is trained by what it has. Beside inputs of several groups there
    may be some of one, which are masked and predicted as by MAE.

    Deviations: modalities are bands of one grid; all are continuous and scored by the same target (the paper's semantic
    map by cross-entropy); one predictor tells the groups apart by a learned vector, where the paper has one for each with
    one cross-attention and two self-attention blocks of width 256; the loss is the weighted mean of the groups', each
    over valid data only, where the paper sums them; the global token is the encoder's class token.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .633, below `mae` with raw pixels (.662),
    and .651 with raw pixels; with a group for each band it reads three times the tokens, and made 78 steps where `mae` made
    174.

    Attributes:
        encoder: needs the ability `drop` and, of the inputs that it is built for, band groups.
        predictor: from visible tokens to the full grid; the paper's is nearest to `cross_attention` of width 256, depth 2.
        masker: what is hidden.
        target: what a hidden token should become, for each group of bands by itself.
        weights: per input name, how much each group's loss counts, in the order of its groups; absent = all alike.
    """

    paper: ClassVar[str] = "Bachmann et al. 2022, arXiv 2204.01678"
    cost: ClassVar[float] = 1.06
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Bands()
    target: Target = Pixels()
    weights: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        inputs = {entry.name: entry for entry in self.encoder.contract.inputs}
        if not any(entry.groups for entry in inputs.values()):  # some may: data may lack the others' kind
            _check_groups(self.encoder.contract.inputs)
        for name, weights in self.weights.items():
            if name not in inputs or len(weights) != len(inputs[name].groups) or min(weights) < 0 or not sum(weights):
                expected = {name: len(entry.groups) for name, entry in inputs.items()}
                raise ConfigError(
                    f"expected weights of 0 or more for each group of the inputs {expected}, not all 0, got {self.weights}."
                )

    def build(self) -> MultiMaeRecipe:
        """Make it, with fresh weights."""
        return MultiMaeRecipe(self)


class MultiMaeRecipe(Recipe):
    """The built method.

    Attributes:
        masker: what is hidden.
        predictor: of all groups.
    """

    def __init__(self, spec: MultiMae) -> None:
        super().__init__()
        self.spec, self.masker = spec, hinted(spec.masker, "multimae")
        self.encoder = checked(spec.encoder.build(), "multimae", spec.needs)
        self.target = suited(spec.target, "multimae", self.encoder.contract)
        _check_groups(self.encoder.contract.inputs)
        for entry in self.encoder.contract.inputs:  # of one group there is nothing to share: any grid of tokens will do
            if len(entry.groups) > 1:
                spec.masker.check(entry.grid(), entry.spacing)
            else:
                check_grid(entry.grid())
        values = {entry.name: self.target.num_values(entry) for entry in self.encoder.contract.inputs}
        self.levels = inner_levels(self.encoder, spec.predictor)
        self.predictor = predicts_hidden(spec.predictor, "multimae").build(self.encoder, values)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = entry.grid(batch.size)

        plan = self.masker(batch, grid, rng, self.guide())
        tokens = self.encoder(batch, plan, levels=self.levels)
        prediction = self.predictor(tokens, plan, batch)
        value, weight = by_group(self.target, batch, grid)
        error, weight = squared(prediction, value), plan.weigh(weight, "image")
        parts = zip(error.chunk(grid.num_groups, 1), weight.chunk(grid.num_groups, 1), strict=True)
        terms = {name: masked_mean(*part) for name, part in zip(group_names(entry), parts, strict=True)}
        weights = self.spec.weights.get(entry.name, (1.0,) * grid.num_groups)
        loss = torch.stack([w * term for w, term in zip(weights, terms.values(), strict=True)]).sum() / sum(weights)
        shown = self._pictures(batch, entry, plan, prediction) if pictures else None
        return StepOutput(loss, {name: term.detach() for name, term in terms.items()}, shown)

    def _pictures(self, batch: Batch, entry: Input, plan: Plan, prediction: Tensor) -> Pictures:
        """Draw each band as predicted where its own group was hidden, and as it is elsewhere."""
        grid = entry.grid(batch.size)
        if self.target.num_values(entry) != max(map(len, grid.groups)) * grid.voxels:
            return compose(batch, entry, plan, {})  # not a target of one number per voxel
        image = batch.image.clone()
        parts = zip(prediction.float().chunk(grid.num_groups, 1), plan.hide.chunk(grid.num_groups, 1), strict=True)
        for group, (part, hide) in zip(grid.groups, parts, strict=True):
            own = batch.aligned(group)
            drawn = self.target.picture(part[..., : len(group) * grid.voxels], own, grid.plain)
            if drawn is None:
                return compose(batch, entry, plan, {})
            cut = torch.where(hide[..., None], patchify(drawn, grid.patch), patchify(own.image, grid.patch))
            image[:, [batch.bands.index(band) for band in group]] = unpatchify(cut, grid.plain)
        return compose(batch, entry, plan, {"image": (image, batch.image)})


def _check_groups(inputs: tuple[Input, ...]) -> None:
    """Refuse inputs without groups.

    Raises:
        ConfigError: names one option that would help.
    """
    plain = [entry for entry in inputs if not entry.groups]
    if plain:
        # inputs that the data lack may have been left out, which are counted on the command line: the first is not certain
        number = "0" if len(plain) == len(inputs) else "N"
        bands = "],[".join(plain[0].bands)
        raise ConfigError(
            f"recipe 'multimae' shares what is seen among groups of bands, and inputs {[e.name for e in plain]} have none: "
            f"declare them, such as --recipe.encoder.contract.inputs.{number}.groups '[[{bands}]]', or choose recipe 'mae'."
        )


def group_names(entry: Input) -> tuple[str, ...]:
    """Name each group of an input by its first and last band, for the terms of the loss."""
    return tuple(group[0] if len(group) == 1 else f"{group[0]}..{group[-1]}" for group in entry.groups)
