"""What encoders do before they compute: find the input that fits, order bands by name, normalise, choose what to read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.contract import Contract, Input
from core.errors import DataError
from core.plan import Plan
from core.preprocess import clip_bounds
from core.shapes import Grid


def prepared(contract: Contract, batch: Batch) -> tuple[Batch, Input]:
    """Normalise, order bands by name, and name the input.

    Raises:
        BandError: no input has this rank and these bands.
        DataError: spacing comes in another unit than the input's.
    """
    entry = contract.input_for(len(batch.size), batch.bands)
    if batch.unit != entry.unit:
        raise DataError(
            f"input '{entry.name}': expected spacing in {entry.unit}, got {batch.unit}: "
            "declare the spacing of the files, or use an encoder trained without it."
        )
    if batch.bands != entry.bands:
        batch = replace(batch, bands=entry.named(batch.bands)).aligned(entry.bands)
    return _clipped(batch.normalised(), entry), entry


def _clipped(batch: Batch, entry: Input) -> Batch:
    """Cut off what the input's normalisation says, in the value space; what is not valid stays 0."""
    bounds = clip_bounds(entry.normalisation)
    if bounds is None:
        return batch
    ones = (1,) * entry.ndim
    low, high = (torch.from_numpy(bound).to(batch.image.device).reshape(-1, *ones) for bound in bounds)
    return replace(batch, image=batch.image.clamp(low, high).masked_fill_(~batch.valid, 0.0))


@dataclass(frozen=True, eq=False)
class Reading:
    """Which of its N tokens an encoder that keeps one grid reads, and which it replaces.

    Attributes:
        index: (B, V) where those are that are read, as `visible_index`; None = every one, V = N.
        ok: (B, V) bool, True = a real, valid token; None = all are.
        hidden: (B, N) bool, those that the mask token replaces; None = none.
        mask_token: (1, 1, D); None = nothing is replaced.
        stage: level after which it is.
    """

    index: Tensor | None
    ok: Tensor | None
    hidden: Tensor | None
    mask_token: Tensor | None
    stage: int

    def replaced(self, tokens: Tensor, prefix: int, *, level: int) -> Tensor:
        """Put the mask token at hidden places of tokens (B, prefix + N, D), if this is the level to do so after."""
        if self.hidden is None or self.mask_token is None or level != self.stage:
            return tokens
        patches = torch.where(self.hidden[..., None], self.mask_token.to(tokens.dtype), tokens[:, prefix:])
        return torch.cat([tokens[:, :prefix], patches], dim=1)


def reading(batch: Batch, grid: Grid, plan: Plan | None, mask_token: Tensor | None, stage: int) -> Reading:
    """Choose what is read: every valid token; those that a plan lets see; or, with a mask token, those and hidden ones."""
    if plan is None:
        ok = valid_tokens(batch, grid)
        return Reading(None, None if bool(ok.all()) else ok, None, None, stage)
    if mask_token is None:
        index, ok = plan.seen_index
        return Reading(index, None if bool(ok.all()) else ok, None, None, stage)
    return Reading(None, None if plan.complete else plan.see | plan.hide, plan.hide, mask_token, stage)
