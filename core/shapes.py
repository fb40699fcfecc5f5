"""Dimension letters, the token grid, and the two functions between images and patch vectors.

Size letters of the whole house: B batch, C bands, T time, Z Y X space, N tokens, V visible tokens, D width,
P values per patch, K classes, S spatial axes (Y X, or Z Y X). A patch vector is band-major: P = C * prod(patch),
bands first, then the patch's voxels in raster order, which is also the order of a convolution's weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from core.errors import ShapeError


@dataclass(frozen=True)
class Grid:
    """The tokens of an image: how many patches along each axis, and how large a patch is.

    Attributes:
        tokens: patches per axis, in array order (Y X) or (Z Y X).
        patch: voxels per patch and axis, same order.
        groups: bands that share a token, by name; none = every token holds all bands. With G groups each place has G
            tokens, and tokens are ordered group by group.
    """

    tokens: tuple[int, ...]
    patch: tuple[int, ...]
    groups: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, size: tuple[int, ...], patch: tuple[int, ...], groups: tuple[tuple[str, ...], ...] = ()) -> Grid:
        """Lay patches over an image of `size` voxels.

        Raises:
            ShapeError: ranks differ, or an axis is not a positive multiple of its patch.
        """
        if len(size) != len(patch):
            raise ShapeError(f"expected {len(patch)} spatial axes for patch {patch}, got an image of size {size}.")
        if any(s < p or s % p for s, p in zip(size, patch, strict=True)):
            raise ShapeError(
                f"expected an image whose sizes are positive multiples of the patch {patch}, got {size}: "
                "choose a crop size that the patch divides, or pad the image."
            )
        return cls(tuple(s // p for s, p in zip(size, patch, strict=True)), tuple(patch), groups)

    @property
    def ndim(self) -> int:
        """Spatial axes: 2 or 3."""
        return len(self.tokens)

    @property
    def num_places(self) -> int:
        """Patches of the grid, whatever the groups."""
        return math.prod(self.tokens)

    @property
    def num_groups(self) -> int:
        """Tokens at each place."""
        return max(len(self.groups), 1)

    @property
    def num_tokens(self) -> int:
        """N, all tokens of the grid."""
        return self.num_places * self.num_groups

    @property
    def plain(self) -> Grid:
        """The grid of the same places with one token at each."""
        return Grid(self.tokens, self.patch)

    @property
    def voxels(self) -> int:
        """Voxels of one patch in one band."""
        return math.prod(self.patch)

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels of the image along each axis."""
        return tuple(t * p for t, p in zip(self.tokens, self.patch, strict=True))


def patchify(image: Tensor, patch: tuple[int, ...]) -> Tensor:
    """Cut an image (B C *S) into patch vectors (B N P), band-major; the inverse of `unpatchify`.

    Raises:
        ShapeError: the patch does not divide the image.
    """
    batch, bands, *size = image.shape
    grid = Grid.of(tuple(size), patch)
    nd = grid.ndim
    split = [n for pair in zip(grid.tokens, grid.patch, strict=True) for n in pair]
    cut = image.reshape(batch, bands, *split)
    order = [0, *range(2, 2 + 2 * nd, 2), 1, *range(3, 3 + 2 * nd, 2)]  # B, tokens..., C, patch...
    return cut.permute(order).reshape(batch, grid.num_tokens, bands * grid.voxels)


def unpatchify(patches: Tensor, grid: Grid) -> Tensor:
    """Put patch vectors (B N P) back into an image (B C *S); the band count follows from P.

    Raises:
        ShapeError: N is not the grid's, or P is not a multiple of the patch's voxels.
    """
    batch, tokens, values = patches.shape
    if tokens != grid.num_places or values % grid.voxels:
        raise ShapeError(
            f"expected (B, {grid.num_places}, C * {grid.voxels}) patch vectors for {grid}, got {tuple(patches.shape)}."
        )
    bands, nd = values // grid.voxels, grid.ndim
    cut = patches.reshape(batch, *grid.tokens, bands, *grid.patch)
    order = [0, 1 + nd, *(axis for i in range(nd) for axis in (1 + i, 2 + nd + i))]  # B, C, (token, patch) per axis
    return cut.permute(order).reshape(batch, bands, *grid.size)
