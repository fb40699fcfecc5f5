"""iBOT: a student that sees two masked views predicts what its moving average makes of the same views intact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.batch import Batch, valid_tokens
from core.encoders.base import Ability, Backbone, EncoderSpec, Tokens
from core.errors import ConfigError
from core.losses import masked_mean
from core.losses.distillation import Centre, distilled, per_image, sharpened, warmed
from core.maskers.base import Masker
from core.maskers.boxes import Boxes
from core.pictures import compose
from core.plan import Plan
from core.projection import ProjectionSpec
from core.recipes.base import Recipe, RecipeSpec, StepOutput, checked, hinted
from core.rng import SampleRng
from core.teachers._weights import average, still_copy
from core.teachers.ema import Ema
from core.views import Augment, make_view


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How a student is held against its teacher's distributions (Zhou et al. 2021, arXiv 2111.07832, 3 and appendix B).

    Attributes:
        student_temperature: of the student's distributions.
        teacher_temperature: of the teacher's, at the beginning and once it has risen.
        temperature_rise: share of the training over which it rises linearly; the paper's 30 of 800 epochs.
        centre_momentum: of the running means of the teacher's logits, one for class tokens and one for patches.
        hold_prototypes: share of the training during which the prototypes stay as they are; the paper's 1 of 800 epochs.
        class_weight: of the loss between class tokens of different views.
        patch_weight: of the loss at hidden patches within a view.
    """

    student_temperature: float = 0.1
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    temperature_rise: float = 0.0375
    centre_momentum: float = 0.9
    hold_prototypes: float = 0.00125
    class_weight: float = 1.0
    patch_weight: float = 1.0

    def __post_init__(self) -> None:
        if min(self.student_temperature, *self.teacher_temperature) <= 0.0:
            raise ConfigError(
                f"expected temperatures above 0, got {self.student_temperature} and {self.teacher_temperature}."
            )
        shares = (self.temperature_rise, self.centre_momentum, self.hold_prototypes)
        if not all(0.0 <= share <= 1.0 for share in shares) or self.hold_prototypes == 1.0:
            raise ConfigError(
                "expected temperature_rise, centre_momentum and hold_prototypes as shares from 0 to 1, and prototypes "
                f"that learn at some time, got {shares}."
            )
        if min(self.class_weight, self.patch_weight) <= 0.0:
            raise ConfigError(f"expected weights above 0, got {self.class_weight} and {self.patch_weight}.")


@dataclass(frozen=True, kw_only=True)
class Ibot(RecipeSpec):
    """Image BERT pretraining with an online tokenizer (Zhou et al. 2021, arXiv 2111.07832). Compute: 4.90.

    At hidden patches the student's distribution over prototypes is held against the teacher's for the same patch, and its
    class token's against the teacher's for the other view. Head, prototypes and centring serve both.

    Deviations: every view is masked, with one ratio, so that the hidden count is exact (the paper leaves half of the
    views whole and draws the others' ratio from 0.3 +- 0.2, which is `masker.unmasked_share=0.5` and
    `masker.ratio_spread=0.2`); two views and no small ones, the default of the release; views are parts of the crop
    that the loader gives, and differ as `core.views` says; hidden patches, centres and losses over valid tokens only; a
    view without hidden patches drops out of the patch loss's mean (the release averages over all views, so that such views
    make it smaller); a centre moves after the update of the weights.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .636, below `mae` with raw pixels (.662);
    self-distillation wants thousands of steps, and this head of 8,192 prototypes left it 17. With 512 prototypes it made 69
    in 300 seconds, and .604.

    Attributes:
        encoder: needs the ability `token`, and a class token.
        masker: what is hidden of each view; may rank by the teacher's attention, see recipe `attmask`.
        views: how the two views differ from the image.
        head: from tokens to prototypes.
        teacher: the moving average, of the encoder and of the head alike; it is what is exported.
        distillation: temperatures, centring and weights.
    """

    paper: ClassVar[str] = "Zhou et al. 2021, arXiv 2111.07832"
    cost: ClassVar[float] = 4.90
    needs: ClassVar[frozenset[Ability]] = frozenset({"token"})

    encoder: EncoderSpec
    masker: Masker = Boxes(ratio=0.3)
    views: Augment = Augment()
    head: ProjectionSpec = ProjectionSpec()
    teacher: Ema = Ema(start=0.996, end=1.0)
    distillation: Distillation = Distillation()

    def build(self) -> SelfDistillation:
        """Make it, with fresh weights; the teacher starts equal to the student."""
        return SelfDistillation(
            "ibot",
            checked(self.encoder.build(), "ibot", self.needs, self.masker),
            masker=self.masker,
            views=self.views,
            head=self.head,
            teacher=self.teacher,
            settings=self.distillation,
        )


@dataclass(frozen=True)
class _Taught:
    """What the teacher makes of a view: unit vectors of its class token (B, E) and patches (B, N, E), and a hint (B, N)."""

    token: Tensor
    patches: Tensor
    hint: Tensor | None


class SelfDistillation(Recipe):
    """The built method, of `ibot` and `attmask`.

    Attributes:
        masker: what is hidden of a view.
        mask_token: what stands there.
        head: of the student.
        teacher: moving average of the encoder, and
        teacher_head: of the head.
        token_centre: running mean of the teacher's logits of class tokens, and
        patch_centre: of patches.
    """

    def __init__(
        self,
        name: str,
        encoder: Backbone,
        *,
        masker: Masker,
        views: Augment,
        head: ProjectionSpec,
        teacher: Ema,
        settings: Distillation,
    ) -> None:
        super().__init__()
        if hinted(masker, name, "attention").hint is not None:
            checked(encoder, name, frozenset({"attention"}))
        if not getattr(encoder.spec, "class_token", False):
            raise ConfigError(
                f"recipe '{name}' compares class tokens and needs an encoder that has one, got "
                f"{type(encoder).__name__} without: choose encoder 'vit' with class_token true, or recipe 'simmim'."
            )
        views.check(encoder.contract)
        self.encoder, self.masker, self.views, self.settings = encoder, masker, views, settings
        self.mask_token = nn.Parameter(torch.randn(1, 1, encoder.level_width(0)) * 0.02)
        self.head = head.build(encoder.num_features)
        self.teacher, self.teacher_head = teacher.build(encoder), still_copy(self.head)
        self.token_centre = Centre(head.num_prototypes, settings.centre_momentum)
        self.patch_centre = Centre(head.num_prototypes, settings.centre_momentum)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step."""
        batch, entry = self.encoder.prepare(batch)
        grid = entry.grid(batch.size)
        progress = self.reached()

        views = [make_view(batch, entry, self.views, rng.split(f"view {i}")) for i in (0, 1)]
        taught = [self._teach(view) for view in views]
        plans = [
            self.masker(view, grid, rng.split(f"mask {i}"), self.guide(answer.hint))
            for i, (view, answer) in enumerate(zip(views, taught, strict=True))
        ]
        learnt = [self.encoder(view, plan, mask_token=self.mask_token) for view, plan in zip(views, plans, strict=True)]
        valid = [valid_tokens(view, grid) for view in views]
        token = self._across(learnt, taught, [ok.any(dim=1) for ok in valid], progress)
        patch = self._within(learnt, taught, plans, progress)
        if self.training:
            self._note(taught, valid)
        loss = self.settings.class_weight * token + self.settings.patch_weight * patch
        shown = compose(views[0], entry, plans[0], {}) if pictures else None
        return StepOutput(loss, {"class": token.detach(), "patch": patch.detach()}, shown)

    @torch.no_grad()
    def _teach(self, view: Batch) -> _Taught:
        """Let the teacher look at an intact view."""
        wanted = self.masker.hint == "attention"
        tokens = self.teacher.observe(view, attention=wanted)
        hint = tokens.attention.mean(dim=1) if wanted and tokens.attention is not None else None
        return _Taught(self.teacher_head.reduce(tokens.prefix[:, 0]), self.teacher_head.reduce(tokens.value), hint)

    def _across(self, learnt: list[Tokens], taught: list[_Taught], seen: list[Tensor], progress: Tensor) -> Tensor:
        """Hold each view's class token against the teacher's for the other; a sample needs data in both."""
        both = (seen[0] & seen[1])[:, None]
        error = [
            self._error(learnt[own].prefix[:, 0], taught[other].token, self.token_centre, progress)
            for own, other in ((0, 1), (1, 0))
        ]
        return masked_mean(torch.cat(error), torch.cat([both, both]))

    def _within(self, learnt: list[Tokens], taught: list[_Taught], plans: list[Plan], progress: Tensor) -> Tensor:
        """Hold what the student makes of hidden patches against the teacher's; each view of an image counts the same."""
        errors, weights = [], []
        for tokens, answer, plan in zip(learnt, taught, plans, strict=True):
            rows = plan.hide.flatten().nonzero()[:, 0]  # found once: each search waits for the device
            own, theirs = (value.flatten(0, 1).index_select(0, rows) for value in (tokens.value, answer.patches))
            errors.append(self._error(own, theirs, self.patch_centre, progress))
            weights.append(per_image(plan.hide).flatten().index_select(0, rows)[:, None])
        return masked_mean(torch.cat(errors), torch.cat(weights))

    def _error(self, tokens: Tensor, vectors: Tensor, centre: Centre, progress: Tensor) -> Tensor:
        """Cross-entropy of a student's tokens with a teacher's vectors, (..., 1)."""
        s = self.settings
        heat = warmed(progress, *s.teacher_temperature, s.temperature_rise)
        with torch.no_grad():
            distribution = sharpened(self.teacher_head.score(vectors), centre.value, heat)
        logits = self.head(tokens, learn=(progress >= s.hold_prototypes).to(torch.float32))
        return distilled(logits, distribution, s.student_temperature)

    @torch.no_grad()
    def _note(self, taught: list[_Taught], valid: list[Tensor]) -> None:
        """Note the teacher's logits over valid tokens; their sum is the score of the summed vectors."""
        for answer, ok in zip(taught, valid, strict=True):
            there = ((self.token_centre, answer.token, ok.any(dim=1)), (self.patch_centre, answer.patches, ok))
            for centre, vectors, where in there:
                total = torch.where(where[..., None], vectors.to(torch.float32), 0.0).flatten(0, -2).sum(dim=0)
                centre.note(self.teacher_head.score(total), where.sum(), self.progress)

    def updated(self) -> bool:
        """Let encoder, head and centres of the teacher follow."""
        self.teacher.follow(self.encoder, self.progress)
        average(self.teacher_head, self.head, self.teacher.spec.share(self.progress))
        self.token_centre.update()
        self.patch_centre.update()
        return False

    def kept(self) -> Backbone:
        """The teacher's encoder, which the paper evaluates."""
        return self.teacher.encoder
