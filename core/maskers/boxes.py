"""Boxes of random size and shape, the masker of BEiT, iBOT, MaskFeat and CAE; and the reference's own rule."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._lengths import token_edges
from core.maskers._rank import either_way
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hidden_count, hide_number
from core.rng import SampleRng
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class Boxes(Masker):
    """Hide boxes (block-wise masking: BEiT, Bao et al. 2021, arXiv 2106.08254, 2.3; iBOT, Zhou et al. 2021, 2111.07832).

    Each sample draws a row of boxes, large ones first, and hides what the first of them cover until the count is reached.

    Deviations: 2D and 3D, shapes measured in mm or m; all boxes are drawn at once, so that no sample needs a loop; the
    share is of each sample's valid tokens and exact, where the reference may fall short of it: the last box is trimmed,
    and tokens that no box covers come last, in random order. `beit_boxes` is the reference's rule for one image. iBOT's
    masks are `ratio=0.3, ratio_spread=0.2, unmasked_share=0.5`.

    Attributes:
        ratio: hidden share, above 0 and below 1; of the samples that are masked.
        ratio_spread: each sample's own share is drawn within this distance of `ratio`.
        unmasked_share: share of the samples of which nothing is hidden.
        smallest: tokens of the smallest box; none = a twelfth of the grid, which is BEiT's 16 of 196, and 4 at least.
        aspect: shortest edge over longest, of the most elongated box; 0.3 as in the references.
    """

    ratio: float = 0.4
    ratio_spread: float = 0.0
    unmasked_share: float = 0.0
    smallest: int | None = None
    aspect: float = 0.3

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0.0 <= self.ratio_spread < min(self.ratio, 1.0 - self.ratio):
            raise ConfigError(
                f"expected a spread that keeps the ratio {self.ratio} above 0 and below 1, got {self.ratio_spread}."
            )
        if not (0.0 <= self.unmasked_share < 1.0 and 0.0 < self.aspect <= 1.0):
            raise ConfigError(
                f"expected an unmasked share from 0 to below 1 and an aspect above 0 up to 1, got {self.unmasked_share} "
                f"and {self.aspect}."
            )

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token, boxes that shrink to single tokens, and boxes larger than all that is hidden."""
        check_grid(grid)
        smallest, hidden = self._smallest(grid), math.ceil(self.ratio * grid.num_places)
        shortest = (smallest * self.aspect ** (grid.ndim - 1)) ** (1.0 / grid.ndim)
        if smallest < 2 or shortest < 0.5:
            raise ConfigError(
                f"expected boxes no smaller than a token, got {smallest} tokens with edges down to {shortest:.2f} of a "
                "token's: choose a larger `smallest`, an `aspect` nearer to 1, or masker 'random'."
            )
        if smallest > hidden:
            raise ConfigError(
                f"expected boxes of at most the {hidden} tokens that are hidden of {grid.num_places}, got {smallest}: "
                "choose a smaller `smallest`, a smaller patch or a larger crop."
            )

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        valid = valid_tokens(batch, grid)
        rng = rng.split("boxes")
        ratio = self.ratio + self.ratio_spread * (2.0 * rng.split("ratio").uniform() - 1.0)
        hidden = hidden_count(valid, torch.where(rng.split("whole").uniform() < self.unmasked_share, 0.0, ratio))
        first = first_box(*self._draw(ratio, batch, grid, rng), grid)
        count, rest = self._count(grid), rng.split("rest").uniform(grid.num_places)
        priority = torch.where(first < count, -first.to(rest.dtype), -count - rest)
        return hide_number(either_way(priority, rng), valid, hidden)

    def _smallest(self, grid: Grid) -> int:
        return max(4, grid.num_places // 12) if self.smallest is None else self.smallest

    def _count(self, grid: Grid) -> int:
        """How many boxes to draw: three times as many as the smallest ones would need to cover what is hidden."""
        share = min(self._smallest(grid) / grid.num_places, 0.5)
        return 4 + math.ceil(3.0 * math.log1p(-self.ratio - self.ratio_spread) / math.log1p(-share))

    def _draw(self, ratio: Tensor, batch: Batch, grid: Grid, rng: SampleRng) -> tuple[Tensor, Tensor]:
        """Draw first token and edges of each box, (B, K, ndim) int64 both."""
        count, nd = self._count(grid), grid.ndim
        tokens = torch.tensor(grid.tokens, device=ratio.device)
        smallest = self._smallest(grid)
        uniform = rng.split("size").uniform(count)
        # as in the reference a box takes at most what the ones before it left, here without regard to overlap
        left = (1.0 - uniform).cumprod(dim=1) / (1.0 - uniform)
        most = (ratio[:, None] * grid.num_places - smallest).clamp(min=0.0)
        area = smallest + most * left * uniform
        # one axis, drawn at random, is longer or shorter than the others
        log_aspect = math.log(self.aspect) * (2.0 * rng.split("aspect").uniform(count) - 1.0)
        odd = (rng.split("axis").uniform(count) * nd).to(torch.int64)
        shape = torch.where(torch.arange(nd, device=odd.device) == odd[..., None], (nd - 1) / nd, -1 / nd)
        shape = (shape * log_aspect[..., None]).exp() / token_edges(batch.spacing, grid)[:, None]
        edges = _fitted(shape, area, tokens)
        start = rng.split("place").uniform(count, nd) * (tokens - edges + 1)
        return start.to(torch.int64), edges


def _fitted(shape: Tensor, area: Tensor, tokens: Tensor) -> Tensor:
    """Scale edges of a given shape (B, K, ndim) to a box of `area` tokens that fits the grid, in whole tokens."""
    limit, nd = tokens.to(shape.dtype), shape.shape[-1]
    edges = shape * (area / shape.prod(dim=-1))[..., None] ** (1.0 / nd)
    for _ in range(nd - 1):  # what an axis of few tokens cannot take, the others do
        edges = torch.minimum(edges, limit)
        free = edges < limit
        missing = (area / edges.prod(dim=-1)).clamp(min=1.0) ** (1.0 / free.sum(dim=-1).clamp(min=1))
        edges = torch.where(free, edges * missing[..., None], edges)
    return torch.minimum(edges.round().clamp(min=1.0), limit).to(torch.int64)


def first_box(start: Tensor, edges: Tensor, grid: Grid) -> Tensor:
    """Find the first of the K boxes that covers each place, (B, places) int64; K where none does."""
    batch, count, nd = start.shape
    covered = torch.ones(batch, count, *(1 for _ in grid.tokens), dtype=torch.bool, device=start.device)
    for axis, tokens in enumerate(grid.tokens):
        index = torch.arange(tokens, device=start.device)
        first = start[..., axis, None]
        within = (index >= first) & (index < first + edges[..., axis, None])
        covered = covered & within.reshape(batch, count, *(tokens if other == axis else 1 for other in range(nd)))
    number = torch.arange(count, device=start.device)[:, None]
    return torch.where(covered.reshape(batch, count, -1), number, count).amin(dim=1)


def beit_boxes(
    tokens: tuple[int, int], hidden: float, smallest: float, rng: random.Random, aspect: float = 0.3
) -> np.ndarray:
    """Draw one image's mask by the rule that BEiT and iBOT publish, (Y, X) bool; may fall short of `hidden`.

    Boxes are drawn one after another; one counts if it covers something new and no more than what is left. After ten
    that do not, the mask is as it is. A box never spans a whole axis.

    Args:
        tokens: the grid.
        hidden: tokens to hide at most; a fraction counts as iBOT counts it.
        smallest: tokens of the smallest box: 16 in BEiT, (shorter axis // 3) squared in iBOT.
        rng: Python's generator; draws come in the order of the references.
        aspect: shortest edge over longest.
    """
    mask = np.zeros(tokens, dtype=bool)
    done = 0
    while done < hidden:
        box = _next_box(mask, hidden - done, smallest, math.log(aspect), rng)
        if box is None:
            break
        mask[box] = True
        done = int(mask.sum())
    return mask


def _next_box(
    mask: np.ndarray, left: float, smallest: float, log_aspect: float, rng: random.Random
) -> tuple[slice, slice] | None:
    for _ in range(10):
        area = rng.uniform(smallest, left)
        aspect = math.exp(rng.uniform(log_aspect, -log_aspect))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= mask.shape[0] or width >= mask.shape[1]:
            continue
        top = rng.randint(0, mask.shape[0] - height)
        side = rng.randint(0, mask.shape[1] - width)
        box = slice(top, top + height), slice(side, side + width)
        if 0 < height * width - int(mask[box].sum()) <= left:
            return box
    return None


def ibot_ratio(choices: tuple[tuple[float, float], ...], rng: random.Random) -> float:
    """Draw one image's hidden share as iBOT does: uniform within each (centre, spread), then one of them."""
    drawn = [rng.uniform(centre - spread, centre + spread) if spread > 0 else centre for centre, spread in choices]
    return drawn[0] if len(drawn) == 1 else rng.choice(drawn)
