"""Gradients in a plane and sums by orientation, and how an image is cut so that a CPU's cache holds what they need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

# voxels at a time and thread: few enough that what one operation leaves is still in the cache for the next, and that
# its memory is used again (large pieces go back to the kernel, which clears every page anew); many enough to hide calls
_AT_ONCE = 131_072


@dataclass(frozen=True)
class Piece:
    """A part of a batch of images (B, C, *S).

    Attributes:
        samples: which samples,
        bands: which bands,
        tokens: which tokens along the first axis of space,
        own: their voxels there,
        rows: the same with a neighbour on either side where there is one,
        inner: and where in `rows` its own are,
        ends: how many neighbours are missing before and after them.
    """

    samples: slice
    bands: slice
    tokens: slice
    own: slice
    rows: slice
    inner: slice
    ends: tuple[int, int]


def pieces(image: Tensor, patch: int) -> Iterator[Piece]:
    """Cut images (B, C, *S) between tokens of `patch` voxels along the first axis; on a GPU one piece is all of it."""
    samples, bands, length = image.shape[:3]
    most = _AT_ONCE * torch.get_num_threads() if image.device.type == "cpu" else max(image.numel(), 1)
    band = math.prod(image.shape[2:])
    tokens = length // patch
    at_once = max(most * tokens // band, 1) if band > most else tokens
    by_band = min(max(most // band, 1), bands)
    by_sample = max(most // (band * bands), 1)
    for i, c, t in product(range(0, samples, by_sample), range(0, bands, by_band), range(0, tokens, at_once)):
        first, after = t * patch, min(t + at_once, tokens) * patch
        low, high = max(first - 1, 0), min(after + 1, length)
        yield Piece(
            samples=slice(i, i + by_sample),
            bands=slice(c, c + by_band),
            tokens=slice(t, t + at_once),
            own=slice(first, after),
            rows=slice(low, high),
            inner=slice(first - low, after - low),
            ends=(int(first == low), int(after == high)),
        )


def plane_gradient(image: Tensor, spacing: Tensor, axes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Differentiate (B, C, *S) images along the two axes of a plane with integer Sobel weights, within that plane.

    Per voxel of the finest edge of `spacing` (B, ndim), all axes considered; the sign is the references': a slope that
    rises along an axis is negative. Borders are reflected.
    """
    differences = {axis: difference(bordered(image, (1, 1)), axis) for axis in axes}
    return slopes(differences, spacing.amin(1, keepdim=True) / spacing, axes)


def bordered(image: Tensor, ends: tuple[int, int]) -> Tensor:
    """Reflect one voxel at each border, along the first axis as many as `ends` says; one voxel is its own neighbour."""
    sides = [ends, *[(1, 1)] * (image.ndim - 3)]
    padded = image.new_empty(*image.shape[:2], *(n + sum(side) for n, side in zip(image.shape[2:], sides, strict=True)))
    inner = padded  # torch's own reflection of a volume costs as much as all else here that is not the angle
    for axis, ((before, _), size) in enumerate(zip(sides, image.shape[2:], strict=True), start=2):
        inner = inner.narrow(axis, before, size)
    inner.copy_(image)
    for axis, ((before, after), size) in enumerate(zip(sides, image.shape[2:], strict=True), start=2):
        inwards = 2 if size > 1 else 1  # from the border to what it repeats
        if before:  # along all of the other axes: corners come by themselves
            padded.select(axis, 0).copy_(padded.select(axis, inwards))
        if after:
            padded.select(axis, -1).copy_(padded.select(axis, -1 - inwards))
    return padded


def difference(image: Tensor, axis: int) -> Tensor:
    """Subtract from the voxel before the one after along a spatial axis; the two borders of the axis are used up."""
    inner = image.shape[2 + axis] - 2
    return image.narrow(2 + axis, 0, inner) - image.narrow(2 + axis, 2, inner)


def slopes(differences: Mapping[int, Tensor], share: Tensor | None, axes: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Smooth each axis' `difference` along the other, and multiply by the axis' share (B, ndim); None = all are 1."""
    found = []
    for along, across in (axes, axes[::-1]):
        part = differences[along]
        for axis in range(part.ndim - 2):
            if axis not in axes:  # the borders of the other axes serve other planes
                part = part.narrow(2 + axis, 1, part.shape[2 + axis] - 2)
        inner, axis = part.shape[2 + across] - 2, 2 + across
        slope = torch.add(part.narrow(axis, 0, inner), part.narrow(axis, 1, inner), alpha=2)
        slope += part.narrow(axis, 2, inner)
        if share is not None:
            slope *= share[:, along].reshape(-1, *(1,) * (slope.ndim - 1)).to(slope)
        found.append(slope)
    return found[0], found[1]


def orientations(first: Tensor, second: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Give the length of each gradient and the whole number of its angle's bin, -bins / 2 to bins / 2; uses up `first`.

    Both ends are the same orientation, at right angles to the first axis. Within a half turn the quotient says all, in
    half the time of `atan2`; `remainder` would cost as much again.
    """
    quotient = second.div(first).nan_to_num_()  # where there is no gradient, in whichever bin nothing is
    number = quotient.atan_().mul_(1 / math.pi).mul_(bins).floor_()  # exact at 45 and 90 degrees, bins / pi is not
    return first.square_().addcmul_(second, second).sqrt_(), number


def binned(magnitude: Tensor, number: Tensor, edges: tuple[int, ...], bins: int, places: Tensor) -> Tensor:
    """Add up magnitudes (B, C, *S) by cell and bin, (B, C, *cells of the first axis, bins, *other cells).

    Repeatable bit by bit, and the same however many threads there are. On a GPU each bin is summed by itself: scattered
    additions, several times faster on a CPU, have no fixed order there.

    Args:
        magnitude: of the gradients.
        number: as `orientations` gives it.
        edges: voxels of a cell.
        bins: within a half turn.
        places: `places_of` the edges and bins.
    """
    if magnitude.device.type != "cpu":
        return bin_by_bin(magnitude, number, edges, bins)
    cells = [size // edge for size, edge in zip(magnitude.shape[2:], edges, strict=True)]
    across = math.prod(cells[1:])
    index = torch.add(places, number.reshape(-1, len(places)), alpha=across)  # in the order of voxels: nothing is moved
    add = counted if torch.get_num_threads() == 1 else scattered
    sums: Tensor = add(magnitude.reshape(index.shape), index, (bins + 1) * across).unflatten(1, (bins + 1, across))
    sums[:, -1] += sums[:, 0]  # the two ends
    return sums[:, 1:].roll(1 - _below(bins), 1).reshape(*magnitude.shape[:2], cells[0], bins, *cells[1:])


def counted(magnitude: Tensor, index: Tensor, width: int) -> Tensor:
    """Add rows of magnitudes up by their index within the row, (rows, width); the fastest on one thread."""
    whole = index.to(torch.int32)
    if len(index) > 1:
        whole += torch.arange(0, len(index) * width, width, dtype=torch.int32)[:, None]
    sums: Tensor = torch.bincount(whole.flatten(), magnitude.flatten(), minlength=len(index) * width)
    return sums.reshape(-1, width)


def scattered(magnitude: Tensor, index: Tensor, width: int) -> Tensor:
    """Add as `counted` does; threads share the rows."""
    return magnitude.new_zeros(len(index), width).scatter_add_(1, index.to(torch.int64), magnitude)


def bin_by_bin(magnitude: Tensor, number: Tensor, edges: tuple[int, ...], bins: int) -> Tensor:
    """Add in a pass for each bin."""
    own = by_cell(number, edges).remainder(bins).to(torch.uint8)
    magnitude = by_cell(magnitude, edges)
    return torch.stack([torch.where(own == b, magnitude, 0.0).sum(-1) for b in range(bins)], dim=3)


def by_cell(image: Tensor, edges: tuple[int, ...]) -> Tensor:
    """Cut images (B, C, *S) into cells, (B, C, *cells, voxels)."""
    ndim = len(edges)
    split = [n for size, edge in zip(image.shape[2:], edges, strict=True) for n in (size // edge, edge)]
    order = [0, 1, *range(2, 2 + 2 * ndim, 2), *range(3, 3 + 2 * ndim, 2)]
    return image.reshape(*image.shape[:2], *split).permute(order).flatten(2 + ndim)


def places_of(edges: tuple[int, ...], size: tuple[int, ...], bins: int, device: torch.device) -> Tensor:
    """Say for each voxel of one row of cells along the first axis where its cell's sum of bin 0 stands, float32.

    The sums of a row are ordered (number of the bin, cell), from the least number on; `size` is an image's.
    """
    size = size[1:]
    number = torch.zeros((1,) * len(edges), device=device)
    for axis, (length, edge) in enumerate(zip(size, edges[1:], strict=True), start=1):
        along = torch.arange(length // edge, device=device, dtype=torch.float32).repeat_interleave(edge)
        number = number * (length // edge) + along.reshape([-1 if i == axis else 1 for i in range(len(edges))])
    across = math.prod(length // edge for length, edge in zip(size, edges[1:], strict=True))
    return (number + _below(bins) * across).expand(edges[0], *size).flatten()


def _below(bins: int) -> int:
    """Say how far below 0 the number of a bin may be."""
    return -(-bins // 2)
