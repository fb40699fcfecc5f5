"""Organ-shaped masks: regions that follow edges and that their surroundings do not explain are hidden whole."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.mask_bank import FULL, Bank, token_shares
from core.maskers._jitter import jittered
from core.maskers._superpixels import RegionCut, cut, missing_library
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hide_share
from core.rng import SampleRng, numpy_rng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class ShapeAware(Masker):
    """Hide regions of the image until the ratio is reached (Yeganeh et al. 2022, arXiv 2207.05787).

    The paper's abstract says: superpixels and an off-the-shelf inpainting model give many organ-shaped masks. The rest is
    ours: superpixels are joined where they are alike; each region is painted shut from its surroundings by Laplace's equation
    and kept if that fails (`RegionCut`). Kept regions come first, in random order, the image's other regions after them. A
    token is hidden when regions cover at least `threshold` of it; the last region is cut to the exact count, and where
    regions run out (a constant image has none) tokens are hidden by how far they are covered, and then by chance.

    Without a bank each image is cut into regions when it is masked, on the CPU: about 0.1 s for 224 x 224 x 3. A bank, made once
    by `core.mask_bank.build_bank`, lends the regions of other images of the collection, in the place that they had
    there, and costs little more than a random mask.

    Attributes:
        ratio: hidden share of the valid tokens, above 0 and below 1.
        threshold: covered share from which a token counts as covered.
        regions: how images are cut.
        bank: folder that `build_bank` wrote; none = from the image itself.
    """

    ratio: float = 0.6
    threshold: float = 0.5
    regions: RegionCut = RegionCut()
    bank: str | None = None

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0.0 < self.threshold <= 1.0:
            raise ConfigError(f"expected a threshold above 0 and at most 1, got {self.threshold}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token, a missing library, and a bank that is missing, stale or of another grid."""
        check_grid(grid)
        if self.bank is not None:
            Bank.open(self.bank, grid, self.regions)
        elif importlib.util.find_spec("skimage") is None:
            raise missing_library()
        elif self.regions.algorithm == "felzenszwalb" and grid.ndim != 2:
            raise ConfigError("expected the algorithm 'slic' for volumes, got 'felzenszwalb', which is 2D only.")

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch.

        Raises:
            ConfigError: the bank is missing or stale, or scikit-image is not installed.
        """
        streams = rng.split("shape aware")
        if self.bank is None:
            shares = self._from_images(batch, grid.plain, streams)
        else:
            shares = Bank.open(self.bank, grid, self.regions).draw(streams, self.ratio)
        noise = streams.split("noise").uniform(grid.num_places)
        return hide_share(self._priority(shares, noise), valid_tokens(batch, grid), self.ratio)

    def _priority(self, shares: Tensor, noise: Tensor) -> Tensor:
        """Score places (B, places) by the first of the drawn regions, shares (B, K, places) uint8, that covers them."""
        if shares.shape[1] == 0:
            return noise
        covered = shares.cumsum(dim=1, dtype=torch.int32).clamp(max=FULL)
        turn = (covered < round(self.threshold * FULL)).sum(dim=1)  # that covers a place; their number where none does
        among = (covered[:, -1] + noise).argsort(dim=1).argsort(dim=1)  # of one turn: by share, then by chance
        return among - turn * noise.shape[1]  # whole numbers, so that padding with empty regions changes no order

    def _from_images(self, batch: Batch, grid: Grid, rng: SampleRng) -> Tensor:
        """Cut every image into regions and shuffle them, kept ones first: shares (B, K, places) uint8."""
        found = []
        images, valid = batch.image.detach().cpu().numpy(), batch.valid.cpu().numpy()
        for sample, stream in enumerate(rng.keys.tolist()):
            draws = numpy_rng(stream)
            spacing = tuple(batch.spacing[sample].tolist())
            regions = cut(images[sample], valid[sample], spacing, grid.patch, self.regions)
            groups = [draws.permutation(regions.masks(kept=kept)) for kept in (True, False)]
            masks = jittered(np.concatenate(groups), draws, grid.patch, self.regions)
            found.append(token_shares(masks, grid))
        shares = torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
        return shares.to(batch.image.device)
