"""Batch: the one record that crosses from data to method. Every part that reads `image` reads `valid` too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from core.bands import BandNames, align
from core.errors import ShapeError
from core.geometry import Unit
from core.rng import SampleRng
from core.shapes import Grid, patchify


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Images of one rank, size and band set.

    Attributes:
        image: (B, C, *S), any real dtype as it left the loader; `normalised` makes it float32.
        valid: (B, C, *S) bool, True = measured data. What `image` holds elsewhere is never used.
        bands: the C band names, in the order of the channels.
        spacing: (B, ndim) float32, array order, in `unit` per voxel.
        unit: mm, m or px.
        offset: (B, C) float32, and
        scale: (B, C) float32: value space of the encoder = (image - offset) * scale.
        key: (B,) int64, each sample's randomness key (`core.rng.key(seed, epoch, index)`).
        index: (B,) int64, position of each sample in the endless counter order of its source.
        row: (B,) int64, row of the manifest that each sample came from.
        origin: (B, ndim) float32, where each sample begins in its whole image, in `unit`; None = at 0, as whole images do.
        prior: (B, 1, *S) float32, how much each voxel matters, 0 to 1, from knowledge of the anatomy or the scene.
        text: (B, T) int64 word pieces of each sample's report, 0 = padding.
        times: (B, T, 3) float32, when each of T frames was taken: calendar year, month from 1, hour of the day in UTC.
            Frames are the first spatial axis of a series (T Y X); a single scene is one frame.
    """

    image: Tensor
    valid: Tensor
    bands: BandNames
    spacing: Tensor
    unit: Unit
    offset: Tensor
    scale: Tensor
    key: Tensor
    index: Tensor
    row: Tensor
    origin: Tensor | None = None
    prior: Tensor | None = None
    text: Tensor | None = None
    times: Tensor | None = None

    def __post_init__(self) -> None:
        if self.image.shape != self.valid.shape or self.image.shape[1] != len(self.bands):
            raise ShapeError(
                f"expected image and valid of one shape (B, {len(self.bands)}, ...) for bands {self.bands}, "
                f"got {tuple(self.image.shape)} and {tuple(self.valid.shape)}."
            )
        frames = self.size[0] if len(self.size) == 3 else 1
        if self.times is not None and self.times.shape != (len(self), frames, 3):
            raise ShapeError(
                f"expected times ({len(self)}, {frames}, 3), year, month and hour of each frame, got "
                f"{tuple(self.times.shape)}."
            )

    def __len__(self) -> int:
        return self.image.shape[0]

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return tuple(self.image.shape[2:])

    @property
    def rng(self) -> SampleRng:
        """The samples' own random streams."""
        return SampleRng(self.key)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Batch:
        """Move every tensor; integers travel as integers."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def take(self, rows: Sequence[int] | slice) -> Batch:
        """Pick samples."""
        return self._each(lambda tensor: tensor[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        given: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {name: change(value) for name, value in given.items() if isinstance(value, Tensor)}
        return self._as_complete(Batch(**(given | changed)))

    def _as_complete(self, part: Batch) -> Batch:
        """Pass on that every voxel is measured, where that is known, to a batch with no other voxels than these."""
        if self.__dict__.get("complete"):
            part.__dict__["complete"] = True
        return part

    @cached_property
    def complete(self) -> bool:
        """True where every voxel is measured data, the common case that parts may take a shorter way for."""
        return bool(self.valid.all())

    def normalised(self) -> Batch:
        """Cast to float32 in the encoder's value space; what is not valid or not finite becomes 0 and not valid.

        Applying it twice changes nothing.
        """
        ones = (1,) * len(self.size)
        offset, scale = (t.reshape(*t.shape, *ones) for t in (self.offset, self.scale))
        image = (self.image.to(torch.float32) - offset).mul_(scale)
        finite = not self.image.is_floating_point()
        valid = self.valid if finite else self.valid & torch.isfinite(image)
        batch = replace(
            self,
            image=image.masked_fill_(~valid, 0.0),
            valid=valid,
            offset=torch.zeros_like(self.offset),
            scale=torch.ones_like(self.scale),
        )
        return self._as_complete(batch) if finite else batch

    def aligned(self, bands: BandNames) -> Batch:
        """Reorder (or select) the channels by band name.

        Raises:
            BandError: a wanted band is missing.
        """
        order = align(self.bands, bands)
        if order is None:
            return self
        batch = replace(
            self,
            bands=bands,
            image=self.image[:, order],
            valid=self.valid[:, order],
            offset=self.offset[:, order],
            scale=self.scale[:, order],
        )
        return self._as_complete(batch)

    def grid(self, patch: tuple[int, ...]) -> Grid:
        """Lay patches over the images."""
        return Grid.of(self.size, patch)


def valid_share(batch: Batch, grid: Grid) -> Tensor:
    """Measure how much of each token is data: (B, N) float32 in [0, 1] over its voxels and bands."""
    if grid.groups and not batch.complete:
        return torch.cat([valid_share(batch.aligned(group), grid.plain) for group in grid.groups], dim=1)
    if batch.complete:
        return torch.ones(len(batch), grid.num_tokens, device=batch.valid.device)
    return patchify(batch.valid, grid.patch).to(torch.float32).mean(-1)


def valid_tokens(batch: Batch, grid: Grid) -> Tensor:
    """Say which tokens count, (B, N) bool: at least half of their voxels and bands are measured data."""
    return valid_share(batch, grid) >= 0.5
