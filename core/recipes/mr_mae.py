"""MR-MAE: predict the pixels of hidden patches, and mimic a teacher's features of the patches that are seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from core.batch import Batch
from core.encoders.base import Ability, EncoderSpec
from core.encoders.vit import init_linear
from core.errors import ConfigError
from core.groups import by_group
from core.losses import masked_mean, squared
from core.maskers.base import Masker
from core.maskers.random import Random
from core.pictures import compose
from core.predictors.base import PredictorSpec
from core.recipes._one_view import draw, inner_levels
from core.recipes._suited import predicts_hidden, stays, suited
from core.recipes.base import Recipe, RecipeSpec, StepOutput, checked, hinted
from core.rng import SampleRng
from core.targets._features import Features, beside, each, places
from core.targets.base import Target
from core.targets.pixels import Pixels
from core.teachers.base import TeacherSpec


@dataclass(frozen=True, kw_only=True)
class MrMae(RecipeSpec):
    """Mimic before reconstruct (Gao et al. 2023, arXiv 2303.05475). Compute: 1.61 with a teacher of the encoder's size.

    What differs from `mae`: the encoder's visible tokens, through one linear layer, are to equal the features that a
    frozen teacher has of the same patches when it sees the whole image.

    Deviations: any teacher, the paper's are CLIP and DINO; its features are normalised token by token unless told
    otherwise, on which the abstract is silent; no masked convolutions, which are the encoder's matter; ratio and losses
    over valid data only.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .638, below `mae` with raw pixels (.662),
    and .633 with raw pixels; its teacher was the `mae` of normalised patches (.638), which is of its own size and knows no
    more.

    Attributes:
        encoder: needs the ability `drop`.
        predictor: from visible tokens to the full grid.
        teacher: what is mimicked.
        masker: what is hidden.
        target: what a hidden patch should become.
        features: which of the teacher's stages are mimicked, and how they are normalised.
        mimic_weight: of the mimicking loss beside the pixels'.
    """

    paper: ClassVar[str] = "Gao et al. 2023, arXiv 2303.05475"
    cost: ClassVar[float] = 1.61
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    teacher: TeacherSpec
    masker: Masker = Random()
    target: Target = Pixels()
    features: Features = Features()
    mimic_weight: float = 1.0

    def __post_init__(self) -> None:
        stays(self.teacher, "mr_mae")
        if not self.mimic_weight > 0:
            raise ConfigError(f"expected a mimic weight above 0, got {self.mimic_weight}; recipe 'mae' has none.")

    def build(self) -> MrMaeRecipe:
        """Make it, with fresh weights but the teacher's."""
        return MrMaeRecipe(self)


class MrMaeRecipe(Recipe):
    """The built method; see `MrMae`."""

    def __init__(self, spec: MrMae) -> None:
        super().__init__()
        self.spec, self.masker = spec, hinted(spec.masker, "mr_mae")
        self.encoder = checked(spec.encoder.build(), "mr_mae", spec.needs, spec.masker)
        self.teacher = spec.teacher.build(self.encoder)
        self.levels = spec.features.levels(self.teacher.encoder)
        self.inner = inner_levels(self.encoder, spec.predictor)
        self.target = suited(spec.target, "mr_mae", self.encoder.contract)
        values = {entry.name: self.target.num_values(entry) for entry in self.encoder.contract.inputs}
        self.predictor = predicts_hidden(spec.predictor, "mr_mae").build(self.encoder, values)
        self.mimic = nn.Linear(self.encoder.num_features, self.teacher.encoder.level_width(self.levels[-1]))
        self.mimic.apply(init_linear)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = entry.grid(batch.size)

        plan = self.masker(batch, grid, rng, self.guide())
        tokens = self.encoder(batch, plan, levels=self.inner)
        prediction, mimicked = self.predictor(tokens, plan, batch), self.mimic(tokens.value)

        value, weight = by_group(self.target, batch, grid)
        image = masked_mean(squared(prediction, value), plan.weigh(weight, "image"))
        found = self.teacher.observe(batch, levels=self.levels)
        features, counted = beside(*self.spec.features(found, plan.see), places(tokens, plan.see))
        mimic = masked_mean(squared(mimicked, features), each(counted, features))
        drawn = draw("image", self.target, prediction, value, batch, grid) if pictures else {}
        shown = compose(batch, entry, plan, drawn) if pictures else None
        terms = {"image": image.detach(), "mimic": mimic.detach()}
        return StepOutput(image + self.spec.mimic_weight * mimic, terms, shown)

    def updated(self) -> bool:
        """Let the teacher follow, if it is one that does."""
        return self.teacher.follow(self.encoder, self.progress)
