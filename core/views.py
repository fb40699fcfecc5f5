"""Views: randomly zoomed, mirrored and re-toned copies of a prepared batch, for methods that compare two of them.

They are made on the device from the crop that the loader gave, by counter-based draws of each sample alone. The crop is
the house's own job (`datasets.tiles`): a view never shows anything that lies outside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from core.batch import Batch
from core.contract import Contract, Input
from core.errors import ConfigError
from core.rng import SampleRng


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a view differs from the image it is made of.

    Source: the multi-crop of DINO (Caron et al. 2021, arXiv 2104.14294, appendix) and iBOT (Zhou et al. 2021,
    arXiv 2111.07832, appendix B). Deviations: any rank; mirrored only along declared axes; instead of brightness,
    contrast, saturation, hue, grey, blur and solarisation, which mean something for photographs alone, an affine change
    of each band; linear instead of bicubic interpolation, over measured voxels only.

    Attributes:
        scale: smallest and largest share of the area, or volume, that a view shows, log-uniform; enlarged to full size.
        aspect: largest ratio of two axes' shares.
        flips: per input name and axis (array order), whether a mirror image is as legal as the original; an input that is
            absent is never mirrored.
        gain: each band is multiplied by 1 +- this at most, and
        shift: this at most is added to it or taken away, in the value space of the encoder.
    """

    scale: tuple[float, float] = (0.14, 1.0)
    aspect: float = 4.0 / 3.0
    flips: dict[str, tuple[bool, ...]] = field(default_factory=dict)
    gain: float = 0.2
    shift: float = 0.2

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0.0 < low <= high <= 1.0:
            raise ConfigError(f"expected a view's smallest and largest share of the image, 0 to 1, got {self.scale}.")
        if self.aspect < 1.0 or not 0.0 <= self.gain < 1.0 or self.shift < 0.0:
            raise ConfigError(
                "expected an aspect of 1 or more, a gain of 0 or more and below 1, and a shift of 0 or more, "
                f"got {self.aspect}, {self.gain} and {self.shift}."
            )

    def check(self, contract: Contract) -> None:
        """Refuse mirror axes of inputs that there are none of.

        Raises:
            ConfigError: names what is wrong.
        """
        ranks = {entry.name: entry.ndim for entry in contract.inputs}
        wrong = [name for name, axes in self.flips.items() if ranks.get(name) != len(axes)]
        if wrong:
            raise ConfigError(
                f"expected flips with one truth per axis of the inputs {ranks}, got {self.flips}: mend {wrong}."
            )


def make_view(batch: Batch, entry: Input, how: Augment, rng: SampleRng) -> Batch:
    """Make one view of a prepared batch: same size, same keys; its own image, validity, prior, spacing and origin.

    A voxel is valid where at least half of what it is interpolated from is, and its value is that of the valid part
    alone, so that what stands at invalid voxels never enters. Where lengths are known (mm, m) spacing shrinks with the
    share that is shown and the origin moves, so that positions stay true; a mirrored view counts its positions from its
    own first voxel. Where they are not (px) both stay: a pixel has no size that could change.

    Args:
        batch: from an encoder's `prepare`.
        entry: its input.
        how: the changes.
        rng: another stream for each view.

    Raises:
        ConfigError: the batch holds several dated frames, which are neither cropped nor mirrored in time.
    """
    if batch.times is not None and batch.times.shape[1] > 1:
        raise ConfigError(
            f"input '{entry.name}': expected images without dates for a recipe of two views, which crop and mirror along "
            "every axis, got a dated series: choose a recipe of one view, such as mae."
        )
    start, step = _box(batch, how, rng.split("crop"))
    legal = how.flips.get(entry.name, (False,) * entry.ndim)
    mirrored = (rng.split("flip").uniform(entry.ndim) < 0.5) & torch.tensor(legal, device=start.device)
    image, valid = _measured(batch, start, step, mirrored)
    image = torch.where(valid, _toned(image, how, rng.split("tone")), 0.0)
    prior = None if batch.prior is None else _resampled(batch.prior, start, step, mirrored)
    view = replace(batch, image=image, valid=valid, prior=prior)
    if batch.unit == "px":
        return view
    origin = 0.0 if batch.origin is None else batch.origin
    return replace(view, spacing=batch.spacing * step, origin=origin + start * batch.spacing)


def _box(batch: Batch, how: Augment, rng: SampleRng) -> tuple[Tensor, Tensor]:
    """Draw where each view begins and how far apart its voxels lie, both (B, ndim), in voxels of the batch."""
    ndim = len(batch.size)
    draws = rng.uniform(1 + 2 * ndim)
    low, high = (math.log(share) for share in how.scale)
    share = low + (high - low) * draws[:, :1]  # log of the area or volume
    aspect = (draws[:, 1 : 1 + ndim] - 0.5) * math.log(how.aspect)
    aspect = aspect - aspect.mean(dim=1, keepdim=True)
    size = torch.tensor(batch.size, dtype=torch.float32, device=draws.device)
    step = torch.exp(share / ndim + aspect).clamp(max=1.0).maximum(1.0 / size)  # no axis shows less than a voxel
    return draws[:, 1 + ndim :] * size * (1.0 - step), step


def _measured(batch: Batch, start: Tensor, step: Tensor, mirrored: Tensor) -> tuple[Tensor, Tensor]:
    """Interpolate values over measured voxels alone, and say where there were enough of them."""
    image = _resampled(torch.where(batch.valid, batch.image, 0.0), start, step, mirrored)
    if batch.complete:
        return image, batch.valid
    share = _resampled(batch.valid.to(torch.float32), start, step, mirrored)
    return image / share.clamp(min=0.5), share >= 0.5


def _resampled(values: Tensor, start: Tensor, step: Tensor, mirrored: Tensor) -> Tensor:
    """Interpolate (B, C, *S) linearly, axis by axis, at voxel centres `start + (i + 0.5) * step`; constants stay exact.

    Gathering keeps a sample's numbers the same to the bit whatever its batch mates are, which a matrix product does not.
    """
    for axis, count in enumerate(values.shape[2:]):
        place = torch.arange(count, device=values.device, dtype=torch.float32)[None]
        place = torch.where(mirrored[:, axis, None], count - 1 - place, place)
        place = (start[:, axis, None] + (place + 0.5) * step[:, axis, None] - 0.5).clamp(0.0, count - 1.0)
        below = place.floor()
        share = (place - below).reshape(len(place), *_apart(values, axis, count))
        low = below.to(torch.int64).reshape(share.shape)
        first = values.take_along_dim(low, dim=2 + axis)
        last = values.take_along_dim((low + 1).clamp(max=count - 1), dim=2 + axis)
        values = torch.lerp(first, last, share)
    return values


def _apart(values: Tensor, axis: int, count: int) -> list[int]:
    shape = [1] * (values.ndim - 1)
    shape[1 + axis] = count
    return shape


def _toned(image: Tensor, how: Augment, rng: SampleRng) -> Tensor:
    """Change each band of each sample by an affine map of the value space."""
    draws = rng.uniform(2, image.shape[1]).reshape(len(image), 2, image.shape[1], *(1,) * (image.ndim - 2)) * 2.0 - 1.0
    return image * (1.0 + how.gain * draws[:, 0]) + how.shift * draws[:, 1]
