"""Where a token is: sine-cosine positions of any 2D or 3D grid at any spacing, and resampling of stored tables.

Positions are computed, never stored, unless a foreign checkpoint brings a table of its own. One unit of position is one
patch at the input's nominal spacing, so one encoder serves several spacings and an image at the nominal one sees MAE's table.
Released encoders count otherwise; `PositionRule` says how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from core.batch import Batch
from core.contract import Input
from core.errors import ConfigError, DataError, ShapeError
from core.shapes import Grid


@dataclass(frozen=True, kw_only=True)
class PositionRule:
    """How an encoder counts places.

    Attributes:
        count: `image`: lengths from the corner of the whole image; `crop`: lengths from the corner of the crop (Scale-MAE,
            Reed et al. 2022, arXiv 2212.14532, 3.1); `index`: patches from the corner of the crop, whatever the spacing
            (MAE, He et al. 2021, arXiv 2111.06377).
        unit: spacing, in the input's unit, whose patch is one unit of length; none = the input's nominal spacing. Scale-MAE
            counts patches of 1 m pixels.
        shares: how the channels are shared among x, y, z; none = alike. With more shares than axes an image lies at 0 of
            those that it lacks: a single scene among the encoder's time series.
        group_channels: of D, the last ones, which say where a token's band group stands in the row of groups, beside the
            position in the others (SatMAE, Cong et al. 2022, arXiv 2207.08051, 3.3: 256 of 768 or 1024); 0 = none do, and
            the learned vectors of the patch embedding alone tell groups apart.
        frames: how the frames of a series, its z, are told apart: `number`: as `count` says; `time`: by year, month and hour,
            which share z's channels (SatMAE for series), so that frames may lie anyhow far apart, in any order.
    """

    count: Literal["image", "crop", "index"] = "image"
    unit: float | None = None
    shares: tuple[int, ...] = ()
    group_channels: int = 0
    frames: Literal["number", "time"] = "number"

    def __post_init__(self) -> None:
        if self.unit is not None and (self.unit <= 0 or self.count == "index"):
            raise ConfigError(
                f"expected a positive unit of length, and none where patches are counted, got {self.unit} with count "
                f"'{self.count}'."
            )
        if self.shares and (len(self.shares) not in (2, 3) or min(self.shares) < 1):
            raise ConfigError(f"expected a positive share for each of x, y and perhaps z, got {self.shares}.")
        if self.group_channels < 0 or self.group_channels % 2:
            raise ConfigError(f"expected an even number of channels for the band groups, got {self.group_channels}.")
        if self.frames == "time" and len(self.shares) == 2:
            raise ConfigError(f"expected a share for x, y and time, or none of them, got {self.shares}.")

    def check(self, width: int, entry: Input) -> None:
        """Refuse an input whose places D channels cannot hold.

        Raises:
            ConfigError: frames are told apart by time, but a patch holds several.
            ShapeError: the width does not suit.
        """
        if self.frames == "number":
            axis_widths(width, entry.ndim, self.shares)
            return
        axis_widths(axis_widths(width, 3, self.shares)[2], 3)
        if entry.ndim == 3 and entry.patch[0] != 1:
            raise ConfigError(
                f"input '{entry.name}': expected patches of one frame, for each frame has its own time, got {entry.patch}."
            )


OURS = PositionRule()
DATED = PositionRule(frames="time")
_EARLIEST = (2002.0, 1.0, 0.0)
"""Year, month and hour that SatMAE counts from."""


def axis_widths(width: int, ndim: int, shares: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Share D channels among the axes, in the order x, y(, z): equal even parts, the last takes what is left.

    Given `shares`, by those: 1024 channels by (6, 6, 4) are 384, 384 and 256.

    Raises:
        ShapeError: the width is too small, or the shares do not make even parts of it.
    """
    if shares:
        parts = tuple(width * share // sum(shares) for share in shares)
        if len(shares) < ndim or width % sum(shares) or any(part % 2 for part in parts):
            raise ShapeError(f"expected a width that {shares} shares out evenly to {ndim} axes, got {width}.")
        return parts
    if width % 2 or width < 2 * ndim:
        raise ShapeError(f"expected an even width of at least {2 * ndim} for {ndim}D positions, got {width}.")
    part = width // (2 * ndim) * 2
    return (*(part for _ in range(ndim - 1)), width - part * (ndim - 1))


def sincos(position: Tensor, width: int) -> Tensor:
    """Encode positions (...) of one axis as (..., width): all sines, then all cosines (Vaswani 2017, 1706.03762, 3.5)."""
    half = width // 2
    omega = 10000.0 ** (-torch.arange(half, dtype=position.dtype, device=position.device) / half)
    angle = position[..., None] * omega
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def grid_positions(
    grid: Grid,
    width: int,
    scale: Tensor | None = None,
    origin: Tensor | None = None,
    shares: tuple[int, ...] = (),
) -> Tensor:
    """Encode every token's place, (1 or B, N, D) float32.

    Source: He et al. 2021, arXiv 2111.06377 (2D tables). Deviations: any rank; a third axis appends its own channels,
    so that the x and y channels of a 3D position equal a 2D position of that width; spacing.

    Args:
        grid: the tokens.
        width: D, even.
        scale: (B, ndim) spacing of each sample divided by the nominal one, array order; None = nominal.
        origin: (B, ndim) place of the first token, in patches at the nominal spacing; None = 0.
        shares: as in `PositionRule`.
    """
    precise = torch.float32 if scale is not None and scale.device.type == "mps" else torch.float64
    factor = torch.ones(1, grid.ndim, dtype=precise) if scale is None else scale.to(precise)
    batch, widths = factor.shape[0], axis_widths(width, grid.ndim, shares)
    parts = []
    for channels, axis in zip(widths[: grid.ndim], reversed(range(grid.ndim)), strict=True):  # x is the last array axis
        steps = torch.arange(grid.tokens[axis], dtype=precise, device=factor.device)
        place = steps[None] * factor[:, axis, None]
        if origin is not None:
            place = place + origin[:, axis, None].to(precise)
        code = sincos(place, channels).to(torch.float32)
        shape = [batch, *(1 for _ in grid.tokens), channels]
        shape[1 + axis] = grid.tokens[axis]
        parts.append(code.reshape(shape).expand(batch, *grid.tokens, channels))
    for channels in widths[grid.ndim :]:
        code = sincos(torch.zeros(1, dtype=precise, device=factor.device), channels).to(torch.float32)
        parts.append(code.expand(batch, *grid.tokens, channels))
    return torch.cat(parts, dim=-1).reshape(batch, grid.num_places, width)


def time_codes(times: Tensor, width: int) -> Tensor:
    """Encode times (B, T, 3), year, month and hour, side by side as (B, T, D) float32.

    Source: Cong et al. 2022, arXiv 2207.08051. Deviations: any width; the hour takes what does not share out evenly.
    """
    precise = torch.float32 if times.device.type == "mps" else torch.float64
    since = times.to(precise) - torch.tensor(_EARLIEST, dtype=precise, device=times.device)
    parts = zip(since.unbind(2), axis_widths(width, 3), strict=True)
    return torch.cat([sincos(part, channels) for part, channels in parts], dim=2).to(torch.float32)


def batch_positions(batch: Batch, entry: Input, grid: Grid, width: int, rule: PositionRule | None = None) -> Tensor:
    """Encode the places of a batch, (1 or B, places, D).

    Args:
        batch: says how far apart voxels are, where a crop lies, and when frames were taken.
        entry: the input that it is.
        grid: its tokens.
        width: D.
        rule: what is counted; none, as of a predictor, which only learns beside an encoder: `OURS`, by places in the whole
            image, and where each frame brings its time `DATED`.

    Raises:
        DataError: the rule asks for times, and the batch has none.
    """
    if rule is None:
        dated = batch.times is not None and grid.ndim == 3 and grid.patch[0] == 1
        rule = DATED if dated else OURS
    scale, origin = _lengths(batch, entry, rule)
    if rule.frames == "number":
        return grid_positions(grid, width, scale, origin, rule.shares)
    if batch.times is None:
        raise DataError(
            f"input '{entry.name}': expected the year, month and hour of each frame, for this encoder tells frames apart by "
            "time, got none: give the batch its `times`, (B, T, 3)."
        )
    widths = axis_widths(width, 3, rule.shares)
    plane = Grid(grid.tokens[-2:], grid.patch[-2:])
    here = None if origin is None else origin[:, -2:]
    places = grid_positions(plane, sum(widths[:2]), scale[:, -2:], here, rule.shares[:2])
    codes = time_codes(batch.times, widths[2])
    size = (*codes.shape[:2], plane.num_places, -1)
    return torch.cat([places[:, None].expand(size), codes[:, :, None].expand(size)], dim=3).flatten(1, 2)


def _lengths(batch: Batch, entry: Input, rule: PositionRule) -> tuple[Tensor, Tensor | None]:
    """Spacing over the unit of length, (1 or B, ndim), and where the first token lies, in patches of that unit."""
    if rule.count == "index":
        return torch.ones_like(batch.spacing[:1]), None
    unit = torch.tensor(entry.spacing, device=batch.spacing.device)
    if rule.unit is not None:
        unit = torch.full_like(unit, rule.unit)
    if rule.count == "crop" or batch.origin is None:
        return batch.spacing / unit, None
    return batch.spacing / unit, batch.origin / (unit * torch.tensor(entry.patch, device=unit.device))


def by_groups(places: Tensor, num_groups: int, channels: int = 0) -> Tensor:
    """Lay out the codes of places (B, places, D) for every band group, (B, groups * places, D + channels), group by group.

    Given `channels`, the number of each token's group is encoded in them.
    """
    everywhere = places.repeat(1, num_groups, 1)
    if not channels:
        return everywhere
    number = torch.arange(num_groups, dtype=torch.float32, device=places.device)
    codes = sincos(number, channels).to(places.dtype).repeat_interleave(places.shape[1], dim=0)
    return torch.cat([everywhere, codes.expand(len(places), -1, -1)], dim=2)


def resample_table(table: Tensor, have: tuple[int, ...], want: tuple[int, ...]) -> Tensor:
    """Resample a stored table (1, R + N, D) from one token grid to another; the R leading rows stay as they are.

    2D: bicubic, corners not aligned, no antialiasing, as in the MAE fine-tuning code; 3D: trilinear.
    """
    if have == want:
        return table
    count = Grid(have, have).num_places
    prefix, body = table[:, : table.shape[1] - count], table[:, table.shape[1] - count :]
    if body.shape[1] != count or len(have) != len(want):
        raise ShapeError(f"expected a table for {have} tokens to be resampled to {want}, got {tuple(table.shape)}.")
    image = body.reshape(1, *have, -1).movedim(-1, 1)
    mode = "bicubic" if len(have) == 2 else "trilinear"
    image = functional.interpolate(image, size=want, mode=mode, align_corners=False)
    return torch.cat([prefix, image.flatten(2).transpose(1, 2)], dim=1)
