"""Normalised-difference indices of optical bands: vegetation, water, built-up land, and their kin."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from core.bands import BandNames
from core.batch import Batch
from core.contract import Contract, Input
from core.errors import ConfigError, nearest
from core.shapes import Grid, patchify, unpatchify
from core.targets._standardise import standardised
from core.targets.base import Target

INDICES = {
    "ndvi": ("nir", "red"),  # vegetation (Rouse et al. 1974)
    "ndwi": ("green", "nir"),  # open water (McFeeters 1996)
    "ndbi": ("swir1", "nir"),  # built-up land (Zha et al. 2003)
    "mndwi": ("green", "swir1"),  # open water beside buildings (Xu 2006); of snow it is the NDSI
    "ndmi": ("nir", "swir1"),  # water in leaves (Gao 1996)
    "nbr": ("nir", "swir2"),  # burnt land (Key and Benson 2006)
}
"""The bands a and b of (a - b) / (a + b)."""

NAMES = {
    "blue": ("blue", "B02"),
    "green": ("green", "B03"),
    "red": ("red", "B04"),
    "nir": ("nir", "B08"),
    "swir1": ("swir1", "B11"),
    "swir2": ("swir2", "B12"),
}
"""What files call these bands: plain words, and Sentinel-2's names. Names that differ between sensors (B4) are not here."""


@dataclass(frozen=True, kw_only=True)
class Indices(Target):
    """Predict indices voxel by voxel (FG-MAE, Wang et al. 2023, arXiv 2310.18653, III-B: NDVI, NDWI and NDBI).

    An index is a ratio of radiances, so the value space of the encoder is undone first: value x std + mean, with the
    numbers of the input's `fixed` normalisation, which `undoing` takes over. Values that were normalised by each image's own
    statistics cannot be brought back. The vector of a token is ordered (index, voxel).

    Deviations: bands by name, and an index whose bands an input lacks is left out; where the sum of the two radiances is
    below `smallest`, or one of them is negative, the index means nothing: value and weight are 0.

    Attributes:
        names: which of `INDICES`, in this order.
        mean: per band, and
        std: per band: radiance = value x std + mean; `undoing` fills them in.
        radiometric: the batch holds radiances as it is (or multiples of them); `mean` and `std` stay empty.
        absent: what an input of which no index can be formed is: `refuse`: an error; `omit`: predicts 0 numbers, such as
            radar beside optical inputs.
        smallest: sum of radiances below which there is no ratio.
        shifted: divide by a + b + 1e-5 wherever both were measured, as FG-MAE's release does.
        standardise: subtract each token's mean and divide by its deviation afterwards, as FG-MAE's release does.
    """

    names: tuple[str, ...] = ("ndvi", "ndwi", "ndbi")
    mean: dict[str, float] = field(default_factory=dict)
    std: dict[str, float] = field(default_factory=dict)
    radiometric: bool = False
    absent: Literal["refuse", "omit"] = "refuse"
    smallest: float = 1e-6
    shifted: bool = False
    standardise: bool = False

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in INDICES:
                raise ConfigError(f"no index is called '{name}': {nearest(name, INDICES)}")
        if not self.names or len(set(self.names)) != len(self.names) or not self.smallest > 0:
            raise ConfigError(f"expected different indices and a `smallest` above 0, got {self}.")
        if self.mean.keys() != self.std.keys() or (self.radiometric and self.mean):
            raise ConfigError(
                "expected mean and std for the same bands, and none where the values are radiometric already, got mean "
                f"{self.mean}, std {self.std}, radiometric {self.radiometric}."
            )

    def undoing(self, contract: Contract) -> Indices:
        """Give this target with what brings back the radiances of every input that is normalised by fixed numbers.

        Raises:
            ConfigError: two inputs give a band different numbers; make a target for each.
        """
        if self.radiometric:
            return self
        mean, std = dict(self.mean), dict(self.std)
        for entry in contract.inputs:
            if entry.normalisation.method != "fixed":
                continue
            for band, m, s in zip(entry.bands, entry.normalisation.mean, entry.normalisation.std, strict=True):
                if (mean.setdefault(band, m), std.setdefault(band, s)) != (m, s):
                    raise ConfigError(
                        f"expected one mean and std for band '{band}', got ({mean[band]}, {std[band]}) and ({m}, {s}): "
                        "call a band that is normalised in two ways by two names."
                    )
        return replace(self, mean=mean, std=std)

    def formed(self, bands: BandNames) -> dict[str, tuple[str, str]]:
        """Say which indices bands allow, and of which of them each is formed."""
        pairs = {}
        for name in self.names:
            found = [next((band for band in NAMES[word] if band in bands), None) for word in INDICES[name]]
            if found[0] is not None and found[1] is not None:
                pairs[name] = (found[0], found[1])
        return pairs

    def num_values(self, entry: Input) -> int:
        """Indices of the group that allows most x voxels of a token.

        Raises:
            ConfigError: no index can be formed and `absent` is `refuse`; or the input's radiances cannot be brought back,
                or are brought back by other numbers than the input's.
        """
        pairs = [self.formed(group) for group in entry.groups or (entry.bands,)]
        count = max(len(pair) for pair in pairs)
        lost = not self.radiometric and entry.normalisation.method == "per_image"
        if self.absent == "omit" and (lost or not count) and not self._possible(entry.bands):
            return 0
        if not count:
            raise ConfigError(
                f"input '{entry.name}': expected the bands of one of {self.names}, got {entry.bands}; each of them needs "
                f"{', '.join(f'{name}: {INDICES[name]}' for name in self.names)}."
            )
        if lost:
            raise ConfigError(
                f"input '{entry.name}': expected values whose radiances can be brought back, but `per_image` normalisation "
                "loses them: normalise it by fixed means and deviations, or leave indices out."
            )
        if not self.radiometric:
            self._check_numbers(entry, {band for pair in pairs for two in pair.values() for band in two})
        return count * entry.grid().voxels

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give the indices, and 1 where both radiances were measured and make a ratio."""
        pairs = self._possible(batch.bands)
        if not pairs:
            nothing = batch.image.new_zeros(len(batch), grid.num_tokens, 0)
            return nothing, nothing.to(torch.bool)
        first, first_valid = self._radiances(batch, tuple(a for a, _ in pairs.values()))
        second, second_valid = self._radiances(batch, tuple(b for _, b in pairs.values()))
        counts, total = first_valid & second_valid, first + second
        if self.shifted:
            index = (first - second) / (total + 1e-5)
        else:
            counts = counts & (first >= 0) & (second >= 0) & (total >= self.smallest)
            index = (first - second) / torch.where(counts, total, 1.0)
        value = patchify(torch.where(counts, index, 0.0), grid.patch)
        weight = patchify(counts, grid.patch)
        return (standardised(value, weight), weight) if self.standardise else (value, weight)

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor | None:
        """Lay the indices out as images, one channel each; None where there are none."""
        return unpatchify(prediction, grid) if prediction.shape[2] else None

    def _possible(self, bands: BandNames) -> dict[str, tuple[str, str]]:
        known = bands if self.radiometric else tuple(band for band in bands if band in self.mean)
        return self.formed(known)

    def _radiances(self, batch: Batch, bands: BandNames) -> tuple[Tensor, Tensor]:
        chosen = [batch.bands.index(band) for band in bands]
        image, valid = batch.image[:, chosen], batch.valid[:, chosen]
        if self.radiometric:
            return image, valid
        shape = (-1, *(1,) * len(batch.size))
        std, mean = (
            image.new_tensor([table[band] for band in bands]).reshape(shape) for table in (self.std, self.mean)
        )
        return image * std + mean, valid

    def _check_numbers(self, entry: Input, bands: set[str]) -> None:
        normalisation = entry.normalisation
        for band, mean, std in zip(entry.bands, normalisation.mean, normalisation.std, strict=True):
            if band in bands and (self.mean.get(band), self.std.get(band)) != (mean, std):
                raise ConfigError(
                    f"input '{entry.name}': expected mean {mean} and std {std} for band '{band}' to bring back its radiance, "
                    f"got {self.mean.get(band)} and {self.std.get(band)}: use `Indices.undoing(contract)`."
                )
