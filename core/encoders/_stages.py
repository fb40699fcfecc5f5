"""What hierarchical transformers share: the stem, merging of neighbouring tokens, and the way through the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.batch import Batch, valid_tokens
from core.contract import Contract, Input
from core.encoders._relative import axis_offsets, relative_spacing
from core.encoders._windows import cut_windows
from core.encoders.base import Tokens
from core.errors import ConfigError
from core.patch_embed import PatchEmbed
from core.plan import Plan
from core.shapes import Grid


class Staged(Protocol):
    """What `encode` reads of an encoder."""

    spec: Any  # its `depths` and `window`

    @property
    def contract(self) -> Contract:
        """The inputs it reads."""

    @property
    def stems(self) -> nn.ModuleDict:
        """One per input, by its name."""

    @property
    def blocks(self) -> nn.ModuleList:
        """Of all stages, called with (tokens, windows, positions)."""

    @property
    def merges(self) -> nn.ModuleDict:
        """By the number of the block that they follow, called with (children, ndim)."""

    @property
    def norm(self) -> nn.Module:
        """Of the tokens that leave the last stage."""

    def positions(self, stage: int, entry: Input, offsets: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Prepare what all blocks of a stage need to know of the offsets in a window."""


class Stem(nn.Module):
    """Embed the patches of one input and norm them."""

    def __init__(self, entry: Input, width: int) -> None:
        super().__init__()
        self.embed = PatchEmbed(len(entry.bands), entry.patch, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, batch: Batch) -> Tensor:
        """Embed all tokens, (B, N, D)."""
        tokens: Tensor = self.norm(self.embed(batch))
        return tokens


def check_stages(contract: Contract, width: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> None:
    """Refuse what no hierarchical transformer can be built from.

    Raises:
        ConfigError: sizes that do not go together, or an input whose bands share tokens by group.
    """
    if not depths or len(heads) != len(depths) or min((*depths, *heads)) < 1:
        raise ConfigError(
            f"expected blocks and heads for each stage, got depths {depths} and heads {heads}: give as many of each, as in "
            "--recipe.encoder.depths=2,2,6,2 --recipe.encoder.heads=3,6,12,24."
        )
    if any((width << stage) % count for stage, count in enumerate(heads)):
        raise ConfigError(
            f"expected heads that divide the widths {width} x 1, 2, 4, ..., got {heads}: change --recipe.encoder.heads or "
            "--recipe.encoder.width."
        )
    for entry in contract.inputs:
        if entry.groups:
            raise ConfigError(
                f"input '{entry.name}': expected no band groups, because windows hold one token at each place: "
                "drop the groups, or choose the encoder 'vit'."
            )


def check_window(contract: Contract, window: tuple[int, ...], *, stages: int = 0) -> None:
    """Refuse a window that does not say its size along each axis.

    Args:
        contract: the inputs.
        window: tokens along each axis.
        stages: how many have such a window of their own, the pretrained one; 0 = it is the window of all.

    Raises:
        ConfigError: another number of axes than the inputs', or no token.
    """
    rank = top_rank(contract)
    if len(window) != rank or min(window) < 1:
        whole = tuple(max(size, 1) for size in ((window[-1:] or (7,)) * rank + window)[-rank:])
        option = f"window={listed(whole)}"
        if stages:
            option = f"pretrained_windows=[{listed((f'[{listed(whole)}]',) * stages)}]"
        raise ConfigError(
            f"expected a window of {rank} axes for these inputs, at least 1 token each, got {window}: set "
            f"--recipe.encoder.{option} for example."
        )


def listed(entries: tuple[object, ...]) -> str:
    """Write a list as it is typed: `7,7`."""
    return ",".join(map(str, entries))


def top_rank(contract: Contract) -> int:
    """Give the most axes that an input has."""
    return max(entry.ndim for entry in contract.inputs)


def merged_grid(grid: Grid) -> Grid:
    """Lay out tokens after two along each axis became one; an axis of one token stays as it is."""
    tokens = tuple(-(-t // 2) for t in grid.tokens)
    patch = tuple(p if t == 1 else 2 * p for t, p in zip(grid.tokens, grid.patch, strict=True))
    return Grid(tokens, patch)


def children(tokens: Tensor, grid: Grid) -> Tensor:
    """Lay the 2**ndim tokens (B, N, D) that become one side by side, (B, M, 2**ndim * D), the first axis fastest.

    Where the grid is odd the missing ones hold zeros.
    """
    batch, nd, width = tokens.shape[0], grid.ndim, tokens.shape[2]
    pads = [pad for t in reversed(grid.tokens) for pad in (0, t % 2)]
    padded = functional.pad(tokens.reshape(batch, *grid.tokens, width), [0, 0, *pads])
    merged = [-(-t // 2) for t in grid.tokens]
    apart = padded.reshape(batch, *(n for t in merged for n in (t, 2)), width)
    order = [0, *range(1, 1 + 2 * nd, 2), *reversed(range(2, 2 + 2 * nd, 2)), 1 + 2 * nd]
    return apart.permute(order).reshape(batch, -1, width << nd)


def make_stages(
    spec: Any, block: Callable[[int, int, int, float], nn.Module], merge: Callable[[int], nn.Module]
) -> tuple[nn.ModuleList, nn.ModuleDict]:
    """Make the blocks of all stages, and what merges tokens between two, by the number of the block that it follows.

    Args:
        spec: has `width`, `depths`, `heads` and `drop_path`.
        block: makes one of D, heads, its number within its stage, and its share of stochastic depth.
        merge: makes one from D to 2 D.
    """
    blocks, merges, depth = nn.ModuleList(), nn.ModuleDict(), sum(spec.depths)
    for stage, (first, end) in enumerate(stage_bounds(spec.depths)):
        width = stage_width(spec.width, stage + 1)
        for number in range(first, end):
            drop = spec.drop_path * number / max(depth - 1, 1)
            blocks.append(block(width, spec.heads[stage], number - first, drop))
        if end < depth:
            merges[str(end - 1)] = merge(width)
    return blocks, merges


def stage_width(width: int, level: int) -> int:
    """D of the tokens of a level, `width` at levels 0 and 1, doubled by each merging."""
    return width << max(level - 1, 0)


def stage_grid(grid: Grid, level: int) -> Grid:
    """Lay out the tokens of a level: half along each axis from one stage to the next, odd counts rounded up."""
    return stage_grids(grid, max(level, 1))[-1]


def stage_bounds(depths: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Give the first block of each stage and the one after its last."""
    start = 0
    for depth in depths:
        yield start, start + depth
        start += depth


def stage_grids(grid: Grid, stages: int) -> list[Grid]:
    """Lay out the tokens within each stage."""
    grids = [grid]
    for _ in range(stages - 1):
        grids.append(merged_grid(grids[-1]))
    return grids


def encode(
    encoder: Staged,
    batch: Batch,
    plan: Plan | None,
    *,
    mask_token: Tensor | None,
    stage: int,
    levels: tuple[int, ...],
    attention: bool,
) -> Tokens:
    """Encode a prepared batch. Invalid tokens are no keys and hold zeros, at every level.

    A merged token is valid where one of its own is, and hidden where no valid one is seen.

    Raises:
        ConfigError: a plan without a mask token, because windows cannot leave tokens out; or attention of a class token.
    """
    if attention:
        raise ConfigError(
            f"expected an encoder with a class token for attention, got {type(encoder).__name__}: choose 'vit'."
        )
    if plan is not None and mask_token is None:
        raise ConfigError(
            f"expected a mask token for what the plan hides, because {type(encoder).__name__} cannot leave tokens out: "
            "choose a recipe that replaces hidden tokens, or the encoder 'vit'."
        )
    entry = encoder.contract.input_for(len(batch.size), batch.bands)
    grid, scale = entry.grid(batch.size), relative_spacing(batch, entry)
    window: tuple[int, ...] = encoder.spec.window[-entry.ndim :]
    ok = valid_tokens(batch, grid) if plan is None else plan.see | plan.hide
    see = ok if plan is None else plan.see
    whole = bool(ok.all()) if plan is None else plan.complete

    tokens = encoder.stems[entry.name](batch)
    inner: dict[int, Tokens] = {}
    for level, (first, end) in enumerate(((0, 0), *stage_bounds(encoder.spec.depths))):
        if level > 1:
            merge = encoder.merges[str(first - 1)]
            tokens = merge(children(tokens, grid), grid.ndim)
            ok, see = (children(which[..., None], grid).any(dim=-1) for which in (ok, see))
            grid = merged_grid(grid)
        if level > 0:
            kinds = [cut_windows(grid.tokens, window, s, None if whole else ok, tokens.device) for s in (False, True)]
            positions = encoder.positions(level - 1, entry, axis_offsets(kinds[0].window, scale))
            for number in range(first, end):
                tokens = encoder.blocks[number](tokens, kinds[(number - first) % 2], positions)
        if mask_token is not None and stage == level:
            tokens = torch.where((ok & ~see)[..., None], mask_token.to(tokens.dtype), tokens)
        if not whole:
            tokens = torch.where(ok[..., None], tokens, 0.0)
        if level in levels:
            inner[level] = Tokens(tokens, None if whole else ok, tokens[:, :0], grid, True)
    normed: Tensor = encoder.norm(tokens)
    if not whole:
        normed = torch.where(ok[..., None], normed, 0.0)
    return Tokens(normed, None if whole else ok, normed[:, :0], grid, True, inner)
