"""LocalMIM: hide most patches, and let several stages of the encoder each predict the image at a scale of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability, EncoderSpec
from core.errors import ConfigError
from core.groups import by_group
from core.losses import masked_mean, squared
from core.maskers.base import Masker
from core.maskers.random import Random
from core.pictures import compose
from core.predictors.base import PredictorSpec
from core.predictors.per_level import PerLevelSpec, check_scale, rescaled, scaled
from core.recipes._one_view import draw, inner_levels
from core.recipes._suited import predicts_hidden, suited
from core.recipes.base import Recipe, RecipeSpec, StepOutput, checked, hinted
from core.rng import SampleRng
from core.shapes import Grid
from core.targets.base import Target
from core.targets.hog import Hog


@dataclass(frozen=True, kw_only=True)
class LocalMim(RecipeSpec):
    """Local multi-scale reconstruction (Wang et al. 2023, arXiv 2303.05251). Compute: 0.52 with predictors of 1 x 256.

    Shallow stages predict fine scales, deep ones coarse scales; each scale has a predictor and a target on a grid of its
    own, and the losses are added. With patches of 16 voxels the default scales are windows of 4, 8, 16 and 32.

    Deviations: any rank and patch: an axis whose patch cannot be halved, or whose tokens cannot be paired, keeps its scale;
    the last stage passes the encoder's own norm; ratio and losses over valid data only.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .596, below `mae` with raw pixels (.662)
    and below random weights (.632); histograms of gradients ask nothing of colour, and four predictors left it 73 steps.

    Attributes:
        encoder: needs the abilities `drop` and `levels`, and must not merge tokens.
        predictor: one copy for each scale, small.
        masker: what is hidden.
        target: of every scale, a token of the scale's grid being its patch; histograms of one cell, or pixels.
        scales: windows along a token's edge, finest first; 0.5 = a window covers two tokens.
        levels: stages of the encoder, one for each scale, the last among them; none = after 1/6, 1/3, 5/6 and all of its
            depth, which are the paper's 2, 4, 10 and 12 (needs four scales).
        width: of tokens after they were doubled once, see `PerLevelSpec`.
    """

    paper: ClassVar[str] = "Wang et al. 2023, arXiv 2303.05251"
    cost: ClassVar[float] = 0.52
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop", "levels"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random()
    target: Target = Hog(pool=None)
    scales: tuple[float, ...] = (4.0, 2.0, 1.0, 0.5)
    levels: tuple[int, ...] = ()
    width: int = 128

    def __post_init__(self) -> None:
        for scale in self.scales:
            check_scale(scale)
        if (
            not self.scales
            or len(set(self.scales)) != len(self.scales)
            or len(self.levels or range(4)) != len(self.scales)
        ):
            raise ConfigError(
                f"expected different scales and a stage of the encoder for each, got scales {self.scales} and levels "
                f"{self.levels or 'for four scales'}."
            )

    def chosen(self, num_levels: int) -> tuple[int, ...]:
        """Name the stage of each scale, of an encoder with that many."""
        return self.levels or tuple(max(round(num_levels * sixths / 6), 1) for sixths in (1, 2, 5, 6))

    def build(self) -> LocalMimRecipe:
        """Make it, with fresh weights."""
        return LocalMimRecipe(self)


class LocalMimRecipe(Recipe):
    """The module; see `LocalMim`.

    Attributes:
        predictors: one for each scale, by its term's name.
        scales: the same names and their scales.
    """

    def __init__(self, spec: LocalMim) -> None:
        super().__init__()
        self.encoder = encoder = checked(spec.encoder.build(), "localmim", spec.needs, spec.masker)
        self.masker, self.target = hinted(spec.masker, "localmim"), suited(spec.target, "localmim", encoder.contract)
        predicts_hidden(spec.predictor, "localmim")
        stages = spec.chosen(encoder.num_levels)
        if encoder.num_levels not in stages:
            raise ConfigError(
                f"expected the encoder's last stage, {encoder.num_levels}, among the levels, got {stages}."
            )
        self.scales = {f"scale_{scale:g}".replace(".", "_"): scale for scale in spec.scales}
        parts = {
            name: PerLevelSpec(inner=spec.predictor, level=stage, scale=scale, width=spec.width)
            for (name, scale), stage in zip(self.scales.items(), stages, strict=True)
        }
        self.levels = inner_levels(encoder, *parts.values())
        self.predictors = nn.ModuleDict()
        for name, part in parts.items():
            values = {e.name: self.target.num_values(_at_scale(e, part.scale)) for e in encoder.contract.inputs}
            self.predictors[name] = part.build(encoder, values)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = entry.grid(batch.size)

        plan = self.masker(batch, grid, rng, self.guide())
        tokens = self.encoder(batch, plan, levels=self.levels)
        terms: dict[str, Tensor] = {}
        drawn: dict[str, tuple[Tensor, Tensor]] = {}
        for name, scale in self.scales.items():
            window = scaled(grid, scale)
            prediction = self.predictors[name](tokens, plan, batch)
            value, weight = by_group(self.target, batch, window)
            hidden = rescaled(plan.weigh(plan.hide[..., None], name).to(value.dtype), grid, window)
            terms[name] = masked_mean(squared(prediction, value), weight * hidden)
            if pictures:
                drawn |= draw(name, self.target, prediction, value, batch, window)
        loss = sum(terms.values(), start=tokens.value.new_zeros(()))
        shown_to_people = compose(batch, entry, plan, drawn) if pictures else None
        return StepOutput(loss, {name: term.detach() for name, term in terms.items()}, shown_to_people)


def _at_scale(entry: Input, scale: float) -> Input:
    """Describe an input whose tokens are those of a scale."""
    window: Grid = scaled(entry.grid(), scale)
    return replace(entry, patch=window.patch, whole_size=None)
