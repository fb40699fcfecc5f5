"""MaskAlign: reconstruct nothing; the visible tokens are to equal those of a teacher that sees the intact image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Ability, EncoderSpec, Tokens
from core.encoders.vit import init_linear
from core.errors import ConfigError
from core.losses import masked_mean, smooth_absolute
from core.maskers.attention import AttentionGuided
from core.maskers.base import Masker
from core.pictures import compose
from core.recipes._suited import stays
from core.recipes.base import Recipe, RecipeSpec, StepOutput, checked, hinted
from core.rng import SampleRng
from core.targets._features import FeatureNorm, beside, each, last_levels, normalised, on_grid, places
from core.teachers.base import TeacherSpec

_DOUBLED = 2.0  # as the release has it: smooth L1 halves the squares of small errors


@dataclass(frozen=True, kw_only=True)
class MaskAlign(RecipeSpec):
    """Masked image modeling without reconstruction (Xue et al. 2022, arXiv 2211.08887). Compute: 1.15.

    That is with a teacher of the encoder's size: there is no predictor, and the teacher sees every patch.

    What differs from `mae`: the loss is scored on visible patches; what stays visible is drawn by the teacher's attention;
    each of the teacher's last stages is aligned with a learned mixture of all of the student's, through a linear layer of
    its own, by smooth L1.

    Deviations: the student's last stage is its normed output, so that its last norm learns; the class token is not
    aligned; the mixture has rows for aligned stages only. What paper and release call whitening is the norm `layer`;
    `whiten` is the joined batch's.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .625, below `mae` with raw pixels (.662);
    its teacher was the `mae` of normalised patches (.638), which is of its own size and knows no more.

    Attributes:
        encoder: needs the abilities `drop` and `levels`.
        teacher: needs `levels`, and `attention` where the masker follows it.
        masker: what is hidden.
        stages: how many of the teacher's last stages are aligned; all of them where it has fewer.
        normalise: of the teacher's tokens.
    """

    paper: ClassVar[str] = "Xue et al. 2022, arXiv 2211.08887"
    cost: ClassVar[float] = 1.15
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop", "levels"})

    encoder: EncoderSpec
    teacher: TeacherSpec
    masker: Masker = AttentionGuided(mode="sample", ratio=0.7)
    stages: int = 5
    normalise: FeatureNorm = "layer"

    def __post_init__(self) -> None:
        stays(self.teacher, "maskalign")
        if self.stages < 1:
            raise ConfigError(f"expected at least one stage to align, got {self.stages}.")

    def build(self) -> MaskAlignRecipe:
        """Make it, with fresh weights but the teacher's."""
        return MaskAlignRecipe(self)


class MaskAlignRecipe(Recipe):
    """The built method; see `MaskAlign`.

    Attributes:
        levels: the teacher's stages that are aligned.
        mix: (aligned stages, stages of the student), what each aligned stage is a mixture of; at first the stage that lies
            as deep, and a hundredth of all.
        align: a linear layer for each aligned stage.
    """

    def __init__(self, spec: MaskAlign) -> None:
        super().__init__()
        self.spec, self.masker = spec, hinted(spec.masker, "maskalign", "attention")
        self.encoder = checked(spec.encoder.build(), "maskalign", spec.needs, spec.masker)
        self.teacher = spec.teacher.build(self.encoder)
        teacher, student = self.teacher.encoder, self.encoder
        if spec.masker.hint == "attention":
            checked(teacher, "maskalign", frozenset({"attention"}))
        self.levels = last_levels(teacher, min(spec.stages, teacher.num_levels))
        inner = last_levels(student, student.num_levels)
        depths = torch.tensor(self.levels) * student.num_levels / teacher.num_levels
        self.mix = nn.Parameter((depths.round()[:, None] == torch.tensor(inner)).float() + 0.01)
        width = teacher.level_width(self.levels[-1])
        self.align = nn.ModuleList(nn.Linear(student.num_features, width) for _ in self.levels)
        self.align.apply(init_linear)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = entry.grid(batch.size)

        found = self.teacher.observe(batch, levels=self.levels, attention=self.masker.hint == "attention")
        hint = None if found.attention is None else found.attention.mean(dim=1)
        plan = self.masker(batch, grid, rng, self.guide(hint))
        tokens = self.encoder(batch, plan, levels=tuple(range(1, self.encoder.num_levels)))

        place = places(tokens, plan.see)
        loss = tokens.value.new_zeros((), dtype=torch.float32)
        for level, aligned in zip(self.levels, self.aligned(tokens), strict=True):
            value, counted = on_grid(found.levels[level], plan.see)
            value, counted = beside(normalised(value, counted, self.spec.normalise), counted, place)
            loss = loss + _DOUBLED * masked_mean(smooth_absolute(aligned, value), each(counted, value)) / len(
                self.levels
            )
        shown = compose(batch, entry, plan, {}) if pictures else None
        return StepOutput(loss, {"align": loss.detach()}, shown)

    def aligned(self, tokens: Tokens) -> list[Tensor]:
        """Mix the student's stages and project them, (B, V, D of the teacher) for each aligned stage."""
        stages = torch.stack([*(level.value for level in tokens.levels.values()), tokens.value])
        mixed = torch.einsum("kl,lbvd->kbvd", self.mix.to(stages.dtype), stages)
        return [layer(stage) for layer, stage in zip(self.align, mixed, strict=True)]

    def updated(self) -> bool:
        """Let the teacher follow, if it is one that does."""
        return self.teacher.follow(self.encoder, self.progress)
