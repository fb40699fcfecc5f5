"""MRM: paint the hidden patches at twice the resolution, and fill in the report's hidden words with what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from core.batch import Batch
from core.encoders.base import Ability, Backbone, EncoderSpec, Tokens
from core.errors import ConfigError, DataError
from core.groups import by_group
from core.losses import cross_entropy, masked_mean, squared
from core.maskers.base import Masker
from core.maskers.random import Random
from core.pictures import compose
from core.plan import Plan
from core.predictors.base import PredictorSpec
from core.recipes._one_view import draw, inner_levels
from core.recipes._suited import predicts_hidden, suited
from core.recipes.base import Recipe, RecipeSpec, StepOutput, checked, hinted
from core.resize import Resize, finer, reduced
from core.rng import SampleRng
from core.targets.fine_pixels import FinePixels
from core.text.masking import hidden_words
from core.text.model import TextModel, TextSpec
from core.text.vocabulary import PAD, read_vocabulary


@dataclass(frozen=True, kw_only=True)
class Mrm(RecipeSpec):
    """Masked record modeling (Zhou et al. 2023, arXiv 2301.13155; UrFound is the same, Yu et al. 2024, arXiv 2408.05618).

    Differs from `mae`: crops come at `target.detail` times the size that the encoder reads and are painted at that
    detail; the mean of the seen tokens is added to every word piece of the report, half of whose words are hidden, and
    the loss of filling them in is added to that of the image.
    Compute: 1.20 with reports of 100 pieces of 30,000, 1.02 without any; computed, not measured.
    Deviations: any rank and bands; images are reduced by block means, since the reference's resizing lets hidden voxels
    bleed into seen patches; words are scored where they were hidden, not everywhere, padding included; a batch may mix
    samples with and without report; the loss of the reports is a mean over all hidden pieces of all ranks; no dropout.

    Measured on EuroSAT (docs/recipes_measured.md, 150 CPU seconds): linear probe .611, below `mae` with raw pixels (.662)
    and below random weights (.632); these chips have no reports, which are half of the method, and patches are normalised
    one by one.

    Attributes:
        encoder: needs the ability `drop`.
        predictor: from visible tokens to the full grid, for the image.
        masker: what is hidden of the image.
        target: the fine pixels.
        text: the network that fills in words; its tokenizer must be named.
        word_ratio: share of words that are hidden, each by its own draw; above 0 and below 1.
        report_weight: of the loss of the words beside that of the image; the paper's is 1.
        resize: `mean`, or `bicubic` as the references do.
        legacy_full_loss: score every piece, hidden or not, padding too, as the references' training code does.
    """

    paper: ClassVar[str] = "Zhou et al. 2023, arXiv 2301.13155"
    cost: ClassVar[float] = 1.2
    needs: ClassVar[frozenset[Ability]] = frozenset({"drop"})

    encoder: EncoderSpec
    predictor: PredictorSpec
    masker: Masker = Random()
    target: FinePixels = FinePixels()
    text: TextSpec = TextSpec()
    word_ratio: float = 0.5
    report_weight: float = 1.0
    resize: Resize = "mean"
    legacy_full_loss: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.word_ratio < 1 or not self.report_weight > 0:
            raise ConfigError(
                f"expected a word ratio above 0 and below 1 and a report weight above 0, got {self.word_ratio} and "
                f"{self.report_weight}; without reports choose the recipe 'mae'."
            )

    @property
    def detail(self) -> int:
        """That of the target."""
        return self.target.detail

    def build(self) -> MrmRecipe:
        """Make it, with fresh weights."""
        return MrmRecipe(self)


class MrmRecipe(Recipe):
    """The module; see `Mrm`.

    Attributes:
        masker: what is hidden of the image.
        weights: of each loss.
        to_text: from what the encoder saw to the width of a word piece.
    """

    special: Tensor
    continues: Tensor

    def __init__(self, spec: Mrm) -> None:
        super().__init__()
        encoder = checked(spec.encoder.build(), "mrm", spec.needs, spec.masker)
        _check(spec, encoder)
        vocabulary = read_vocabulary(spec.text.tokenizer)
        self.encoder, self.spec = encoder, spec
        self.target = suited(spec.target, "mrm", encoder.contract, detail=spec.detail)
        self.masker = hinted(spec.masker, "mrm")
        self.detail, self.mask_piece = spec.target.detail, vocabulary.mask
        self.weights = {"image": 1.0, "report": spec.report_weight}
        self.predictor = predicts_hidden(spec.predictor, "mrm").build(
            encoder, {entry.name: self.target.num_values(entry) for entry in encoder.contract.inputs}
        )
        self.levels = inner_levels(encoder, spec.predictor)
        self.to_text = nn.Linear(encoder.num_features, spec.text.width)
        self.text = TextModel(spec.text, len(vocabulary))
        self.register_buffer("special", torch.tensor(vocabulary.special), persistent=False)
        self.register_buffer("continues", torch.tensor(vocabulary.continues), persistent=False)

    def forward(self, batch: Batch, rng: SampleRng, pictures: bool = False) -> StepOutput:
        """Run one step on crops of `detail` times the encoder's size."""
        fine, entry = self.encoder.prepare(batch)
        batch = reduced(fine, self.detail, self.spec.resize)
        grid = entry.grid(batch.size)

        plan = self.masker(batch, grid, rng, self.guide())
        tokens = self.encoder(batch, plan, levels=self.levels)
        prediction = self.predictor(tokens, plan, batch)
        value, weight = by_group(self.target, fine, grid)
        terms = {
            "image": masked_mean(squared(prediction, value), plan.weigh(weight, "image")),
            "report": self.report(batch, tokens, plan, rng),
        }
        loss = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        shown = None
        if pictures:
            drawn = draw("image", self.target, prediction, value, fine, grid)
            shown = compose(fine, finer(entry, self.detail), plan, drawn)
        return StepOutput(loss, {name: term.detach() for name, term in terms.items()}, shown)

    def report(self, batch: Batch, tokens: Tokens, plan: Plan, rng: SampleRng) -> Tensor:
        """Score the hidden words; samples without a report, or of whose image nothing was seen, have none."""
        ids = self._ids(batch)
        hidden = hidden_words(ids, self.special, self.continues, self.spec.word_ratio, rng)
        told = (ids != PAD).any(dim=1) & plan.see.any(dim=1)
        scored = (torch.ones_like(hidden) if self.spec.legacy_full_loss else hidden) & told[:, None]
        state = self.text(torch.where(hidden, self.mask_piece, ids), self.to_text(_seen_mean(tokens, plan)))
        logits = self.text.logits(state[scored])  # of the scored pieces alone: the output layer is the dearest one
        error = cross_entropy(logits[:, None], ids[scored][:, None, None])
        return masked_mean(error, torch.ones_like(error, dtype=torch.bool))

    def _ids(self, batch: Batch) -> Tensor:
        """Give the batch's texts; one padded piece each where it has none, so that every rank computes the same."""
        if batch.text is None:
            return torch.zeros(len(batch), 1, dtype=torch.int64, device=batch.image.device)
        pieces = len(self.special)
        if bool((batch.text >= pieces).any()) or bool((batch.text < 0).any()):
            raise DataError(
                f"expected texts in the {pieces} pieces of {self.spec.text.tokenizer}, got piece numbers from "
                f"{int(batch.text.min())} to {int(batch.text.max())}: cut the reports with this recipe's tokenizer."
            )
        return batch.text


def _check(spec: Mrm, encoder: Backbone) -> None:
    if spec.resize == "bicubic" and any(entry.ndim != 2 for entry in encoder.contract.inputs):
        raise ConfigError("recipe 'mrm': expected 2D inputs only for resize 'bicubic', got a volume: choose 'mean'.")
    if not spec.text.tokenizer:
        raise ConfigError(
            "recipe 'mrm' needs the tokenizer that cuts its reports: name its file under 'text.tokenizer'; "
            "datasets.reports.train_tokenizer makes one."
        )


def _seen_mean(tokens: Tokens, plan: Plan) -> Tensor:
    """Average what was made of the seen tokens, (B, D); 0 where none was."""
    ok = plan.see if tokens.full_grid else tokens.ok  # what became of hidden places is not read
    if ok is None:
        return tokens.value.sum(dim=1) / max(tokens.value.shape[1], 1)
    weight = ok[..., None].to(tokens.value.dtype)
    return (tokens.value * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
