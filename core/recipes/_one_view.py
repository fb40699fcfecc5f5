"""The common shape of most recipes: one view is masked and encoded, and each branch predicts its targets from the tokens.

A recipe that fits this shape is its parts and nothing else; one that does not has a module of its own in its file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Backbone, Tokens
from core.errors import ConfigError
from core.fills.base import Fill
from core.fills.drop import Drop
from core.fills.mask_token import MaskToken
from core.groups import by_group
from core.losses import cross_entropy, masked_mean, squared
from core.maskers.base import Masker
from core.pictures import compose
from core.plan import Plan, Where
from core.predictors.base import PredictorSpec
from core.recipes._suited import on_plan, predicts_hidden, suited
from core.recipes.base import Recipe, StepOutput, checked, hinted
from core.rng import SampleRng
from core.shapes import Grid
from core.targets.base import Target

DROP = Drop()
Error = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss: what is compared, how, where, and how much it counts.

    Attributes:
        target: what is compared.
        error: how; None = by cross-entropy where the target gives codes, else by squared error.
        where: at which tokens.
        weight: beside the other terms.
    """

    target: Target
    error: Error | None = None
    where: Where = "hide"
    weight: float = 1.0

    @property
    def compare(self) -> Error:
        """The error, resolved."""
        return self.error or (cross_entropy if self.target.is_code else squared)


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One predictor and the terms that share it: its output is theirs, one after another."""

    predictor: PredictorSpec
    terms: dict[str, Term]


class OneView(Recipe):
    """The built method.

    Attributes:
        masker: what is hidden.
        fill: what the encoder is given instead.
        branches: what is predicted together and scored, with targets as they suit the inputs.
        predictors: one for each branch.
        mask_token: the learned token of a `mask_token` fill.
    """

    def __init__(
        self, name: str, encoder: Backbone, *, masker: Masker, fill: Fill = DROP, branches: dict[str, Branch]
    ) -> None:
        super().__init__()
        self.encoder = checked(encoder, name, frozenset({fill.ability}), masker, fill)
        self.masker, self.fill = hinted(masker, name), fill
        self.branches = {branch: self._suited(name, parts) for branch, parts in branches.items()}
        self.mask_token = fresh_mask_token(encoder, fill)
        self.predictors = nn.ModuleDict()
        for branch, parts in self.branches.items():
            values = {
                e.name: sum(t.target.num_values(e) for t in parts.terms.values()) for e in encoder.contract.inputs
            }
            self.predictors[branch] = parts.predictor.build(encoder, values)
        self.levels = inner_levels(encoder, *(parts.predictor for parts in branches.values()))

    def _suited(self, name: str, branch: Branch) -> Branch:
        """Give a branch with targets that suit the encoder's inputs.

        Raises:
            ConfigError: a target or the predictor does not suit the recipe.
        """
        if self.fill.ability == "drop" and any(term.where != "see" for term in branch.terms.values()):
            predicts_hidden(branch.predictor, name)
        on_plan(branch.predictor, name, self.fill.stage if isinstance(self.fill, MaskToken) else 0)
        terms = {}
        for label, term in branch.terms.items():
            codes = term.error in (None, cross_entropy)
            target = suited(term.target, name, self.encoder.contract, detail=self.detail, codes=codes)
            terms[label] = replace(term, target=target)
        return replace(branch, terms=terms)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = entry.grid(batch.size)

        plan = self.masker(batch, grid, rng, self.guide())
        tokens = shown(self, batch, plan, grid, rng, levels=self.levels)
        terms: dict[str, Tensor] = {}
        loss = tokens.value.new_zeros((), dtype=torch.float32)
        drawn: dict[str, tuple[Tensor, Tensor]] = {}
        for branch, parts in self.branches.items():
            prediction = self.predictors[branch](tokens, plan, batch)
            widths = [term.target.num_values(entry) for term in parts.terms.values()]
            for (name, term), own in zip(parts.terms.items(), prediction.split(widths, dim=2), strict=True):
                value, weight = by_group(term.target, batch, grid)
                terms[name] = masked_mean(term.compare(own, value), plan.weigh(weight, name, term.where))
                loss = loss + term.weight * terms[name]
                if pictures:
                    drawn |= draw(name, term.target, own, value, batch, grid)
        shown_to_people = compose(batch, entry, plan, drawn) if pictures else None
        return StepOutput(loss, {name: term.detach() for name, term in terms.items()}, shown_to_people)


def fresh_mask_token(encoder: Backbone, fill: Fill) -> nn.Parameter | None:
    """Make the learned token that a fill wants, of the width at its stage; None where it wants none.

    Raises:
        ConfigError: the encoder has no such stage.
    """
    if not isinstance(fill, MaskToken):
        return None
    if fill.stage >= encoder.num_levels:
        raise ConfigError(
            f"expected a mask token at a stage below {encoder.num_levels}, the encoder's last, got {fill.stage}."
        )
    return nn.Parameter(torch.randn(1, 1, encoder.level_width(fill.stage)) * 0.02)


def inner_levels(encoder: Backbone, *predictors: PredictorSpec) -> tuple[int, ...]:
    """Collect the inner stages that predictors read.

    Raises:
        ConfigError: the encoder cannot give them.
    """
    levels = sorted({level for predictor in predictors for level in predictor.levels(encoder.num_levels)})
    if levels and "levels" not in encoder.abilities:
        raise ConfigError(
            f"expected an encoder that gives the tokens of inner stages for this predictor, got {type(encoder).__name__}."
        )
    if levels and not 0 < levels[0] <= levels[-1] <= encoder.num_levels:
        raise ConfigError(f"expected stages from 1 to {encoder.num_levels}, the encoder's, got {levels}.")
    return tuple(levels)


def shown(recipe: Any, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng, **wanted: Any) -> Tokens:
    """Fill what is hidden and encode, with a recipe's own `encoder`, `fill` and `mask_token`."""
    fill: Fill = recipe.fill
    tokens: Tokens
    if isinstance(fill, MaskToken):
        tokens = recipe.encoder(batch, plan, mask_token=recipe.mask_token, stage=fill.stage, **wanted)
    elif fill.ability == "drop":
        tokens = recipe.encoder(batch, plan, **wanted)
    else:
        tokens = recipe.encoder(fill(batch, plan, grid, rng), None, **wanted)
    return tokens


def draw(
    name: str, target: Target, prediction: Tensor, value: Tensor, batch: Batch, grid: Grid
) -> dict[str, tuple[Tensor, Tensor]]:
    """Draw what was predicted and what is true, under the term's name; nothing where it cannot be drawn.

    With band groups each is drawn from its own tokens into the places of its bands.
    """
    if grid.groups:
        return _draw_groups(name, target, prediction, value, batch, grid)
    image = target.picture(prediction.float(), batch, grid)
    true = batch.image if name == "image" else target.picture(value, batch, grid)
    return {} if image is None or true is None else {name: (image, true)}


def _draw_groups(
    name: str, target: Target, prediction: Tensor, value: Tensor, batch: Batch, grid: Grid
) -> dict[str, tuple[Tensor, Tensor]]:
    image, true, found = torch.zeros_like(batch.image), torch.zeros_like(batch.image), False
    guesses, values = (part.float().chunk(grid.num_groups, 1) for part in (prediction, value))
    for group, guess, known in zip(grid.groups, guesses, values, strict=True):
        own = batch.aligned(group)
        width = target(own, grid.plain)[0].shape[2]  # the rest is padding, to the width of the largest group
        drawn = draw(name, target, guess if target.is_code else guess[..., :width], known[..., :width], own, grid.plain)
        if drawn:  # not of a group without any value, such as one whose bands form no index: its pictures stay empty
            found = True
            order = [batch.bands.index(band) for band in group]
            image[:, order], true[:, order] = (_a_band_each(part, len(group)) for part in drawn[name])
    return {name: (image, true)} if found else {}


def _a_band_each(picture: Tensor, bands: int) -> Tensor:
    """A picture of as many channels as there are bands; of another number, such as of indices, the mean for each."""
    return picture if picture.shape[1] == bands else picture.mean(1, keepdim=True).expand(-1, bands, *picture.shape[2:])
