"""The pictures of a step, for people: original, what the encoder saw, what each branch predicted.

Band groups are masked apart: a place may be hidden in one group and seen in another. `Pictures.of_groups` gives the
pictures of some of them, with what was hidden there and no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from core.bands import BandNames
from core.batch import Batch
from core.contract import Input
from core.plan import Plan
from core.shapes import Grid, patchify, unpatchify


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a step looked at; all images (B, C, *S) float32 in the encoder's value space.

    Attributes:
        original: the images.
        valid: bool, measured data.
        seen: the images with 0 in patches that the encoder was not shown; of several band groups, not shown in all.
        mask: (B, *tokens) bool, True = hidden; of several band groups, in any.
        reconstructions: per branch, predictions on hidden patches, the truth elsewhere; each band by its own group's.
        targets: per branch other than `image`, the truth.
        bands: names of the channels.
        input: name of the input.
        patch: voxels per token.
        groups: bands that share a token; none = all do.
        shown_by_group: with groups, (B, G, *tokens) bool, True = the encoder was shown this group's token.
        hidden_by_group: with groups, (B, G, *tokens) bool, True = hidden.
    """

    original: Tensor
    valid: Tensor
    seen: Tensor
    mask: Tensor
    reconstructions: dict[str, Tensor]
    targets: dict[str, Tensor] = field(default_factory=dict)
    bands: BandNames
    input: str
    patch: tuple[int, ...]
    groups: tuple[BandNames, ...] = ()
    shown_by_group: Tensor | None = None
    hidden_by_group: Tensor | None = None

    def of_groups(self, bands: BandNames) -> Pictures:
        """Give the pictures of those groups alone that hold any of `bands`: their bands, and what was hidden of them.

        Without groups everything is of one, and nothing changes.
        """
        if self.shown_by_group is None or self.hidden_by_group is None:
            return self
        kept = [number for number, group in enumerate(self.groups) if set(group) & set(bands)]
        groups = tuple(self.groups[number] for number in kept)
        names = tuple(band for band in self.bands if any(band in group for group in groups))
        order = [self.bands.index(band) for band in names]
        shown, hidden = self.shown_by_group[:, kept], self.hidden_by_group[:, kept]
        original = self.original[:, order]
        return replace(
            self,
            original=original,
            valid=self.valid[:, order],
            seen=_where(shown.all(1).flatten(1), original, torch.zeros_like(original), self.patch),
            mask=hidden.any(1),
            reconstructions={name: image[:, order] for name, image in self.reconstructions.items()},
            targets={name: image[:, order] for name, image in self.targets.items()},
            bands=names,
            groups=groups,
            shown_by_group=shown,
            hidden_by_group=hidden,
        )


def compose(batch: Batch, entry: Input, plan: Plan, branches: dict[str, tuple[Tensor, Tensor]]) -> Pictures:
    """Lay out one step.

    Args:
        batch: the prepared batch.
        entry: its input.
        plan: what was hidden.
        branches: per branch the predicted and the true image, (B, C, *S) each; `image` is the pixels' branch.
    """
    grid = entry.grid(batch.size)
    apart = (len(batch), grid.num_groups, *grid.tokens)
    shown, hidden = plan.see.reshape(apart), plan.hide.reshape(apart)

    def painted(predicted: Tensor, true: Tensor) -> Tensor:
        if not grid.groups:
            return _where(plan.hide, predicted, true, grid.patch)
        image = true.clone()
        for group, hide in zip(grid.groups, hidden.flatten(2).unbind(1), strict=True):
            order = [batch.bands.index(band) for band in group]
            image[:, order] = _where(hide, predicted[:, order], true[:, order], grid.patch)
        return image

    return Pictures(
        original=batch.image,
        valid=batch.valid,
        seen=_where(shown.all(1).flatten(1), batch.image, torch.zeros_like(batch.image), grid.patch),
        mask=hidden.any(1),
        reconstructions={name: painted(predicted.float(), true) for name, (predicted, true) in branches.items()},
        targets={name: true for name, (_, true) in branches.items() if name != "image"},
        bands=batch.bands,
        input=entry.name,
        patch=entry.patch,
        groups=grid.groups,
        shown_by_group=shown if grid.groups else None,
        hidden_by_group=hidden if grid.groups else None,
    )


def _where(tokens: Tensor, image: Tensor, elsewhere: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Take the patches of an image (B, C, *S) at some places (B, N), and those of another image elsewhere."""
    chosen = torch.where(tokens[..., None], patchify(image, patch), patchify(elsewhere, patch))
    return unpatchify(chosen, Grid.of(tuple(image.shape[2:]), patch))
