"""The pictures of a step, for people: original, what the encoder saw, what each branch predicted."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from core.bands import BandNames
from core.batch import Batch
from core.contract import Input
from core.plan import Plan
from core.shapes import patchify, unpatchify


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What a step looked at; all images (B, C, *S) float32 in the encoder's value space.

    Attributes:
        original: the images.
        valid: bool, measured data.
        seen: the images with 0 in patches that the encoder was not shown.
        mask: (B, *tokens) bool, True = hidden.
        reconstructions: per branch, predictions on hidden patches, the truth elsewhere.
        targets: per branch other than `image`, the truth.
        bands: names of the channels.
        input: name of the input.
        patch: voxels per token.
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


def compose(batch: Batch, entry: Input, plan: Plan, branches: dict[str, tuple[Tensor, Tensor]]) -> Pictures:
    """Lay out one step.

    Args:
        batch: the prepared batch.
        entry: its input.
        plan: what was hidden.
        branches: per branch the predicted and the true image, (B, C, *S) each; `image` is the pixels' branch.
    """
    grid = entry.grid(batch.size)
    see, hide = plan.see, plan.hide
    if grid.groups:  # one picture for all groups: shown where every group is seen, hidden where any is hidden
        see = see.unflatten(1, (grid.num_groups, -1)).all(1)
        hide = hide.unflatten(1, (grid.num_groups, -1)).any(1)
    grid = grid.plain

    def patched(where: Tensor, image: Tensor, elsewhere: Tensor) -> Tensor:
        chosen = torch.where(where[..., None], patchify(image, grid.patch), patchify(elsewhere, grid.patch))
        return unpatchify(chosen, grid)

    return Pictures(
        original=batch.image,
        valid=batch.valid,
        seen=patched(see, batch.image, torch.zeros_like(batch.image)),
        mask=hide.reshape(len(batch), *grid.tokens),
        reconstructions={n: patched(hide, predicted.float(), true) for n, (predicted, true) in branches.items()},
        targets={name: true for name, (_, true) in branches.items() if name != "image"},
        bands=batch.bands,
        input=entry.name,
        patch=entry.patch,
    )
