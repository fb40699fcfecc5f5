"""From voxels to tokens: one linear map per kind of input, 2D or 3D, all into the width that the blocks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.bands import BandNames
from core.batch import Batch, valid_share
from core.contract import Input
from core.shapes import patchify


class PatchEmbed(nn.Module):
    """Embed the patches of one input.

    The weight has the shape of a convolution of the same patch and stride, so foreign weights fit, but is applied to cut
    patches: hidden ones are never multiplied. A patch that is partly missing adds that share of a learned vector, so that
    missing data is not mistaken for the value 0; a full patch adds nothing.
    """

    def __init__(self, num_bands: int, patch: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.empty(width, num_bands, *patch))
        self.bias = nn.Parameter(torch.zeros(width))
        self.nodata = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.weight.view(width, -1))

    def forward(self, batch: Batch, index: Tensor | None = None) -> Tensor:
        """Embed all tokens (B, N, D), or only those of `index` (B, V), as (B, V, D)."""
        grid = batch.grid(self.patch)
        patches, share = patchify(batch.image, self.patch), valid_share(batch, grid)
        if index is not None:
            patches = patches.gather(1, index[..., None].expand(-1, -1, patches.shape[2]))
            share = share.gather(1, index)
        tokens = functional.linear(patches, self.weight.flatten(1), self.bias)
        return tokens + (1.0 - share)[..., None] * self.nodata


class GroupEmbed(nn.Module):
    """Embed the patches of each band group by a map of its own, and add a learned vector that says which group it is.

    Source: the modality adapters of MultiMAE (Bachmann et al. 2022, arXiv 2204.01678) and the group embedding of SatMAE
    (Cong et al. 2022, arXiv 2207.08051). Deviations: the vector is added, not appended to the position.
    """

    def __init__(self, groups: tuple[BandNames, ...], patch: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.groups = groups
        self.embeddings = nn.ModuleList(PatchEmbed(len(group), patch, width) for group in groups)
        self.group = nn.Parameter(torch.randn(len(groups), width) * 0.02)

    def forward(self, batch: Batch, index: Tensor | None = None) -> Tensor:
        """Embed all tokens (B, G * places, D), group by group, or only those of `index` (B, V)."""
        parts = [
            embed(batch.aligned(group)) + vector
            for group, embed, vector in zip(self.groups, self.embeddings, self.group, strict=True)
        ]
        tokens = torch.cat(parts, dim=1)
        if index is None:
            return tokens
        return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


def patch_embed(entry: Input, width: int) -> PatchEmbed | GroupEmbed:
    """Make the embedding of an input, by band groups where it has any."""
    if entry.groups:
        return GroupEmbed(entry.groups, entry.patch, width)
    return PatchEmbed(len(entry.bands), entry.patch, width)
