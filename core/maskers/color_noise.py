"""Noise of one band of spatial frequencies, ranked: the masker of ColorMAE, in 2D and 3D."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.errors import ConfigError
from core.maskers._lengths import token_edges
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Guide, Plan, check_grid, check_ratio, hide_share
from core.rng import SampleRng
from core.shapes import Grid

Color = Literal["red", "green", "blue", "purple"]

FEWEST = 8  # frequencies that must pass; of fewer, all masks would be shifts of one pattern


@dataclass(frozen=True, kw_only=True)
class ColorNoise(Masker):
    """Hide where band-filtered noise is weakest (ColorMAE, Hinojosa et al. 2024, arXiv 2407.13036, 3).

    The spectrum is cut at two wavelengths: red is longer than `longest`, green lies between, blue is shorter than
    `shortest`, purple is all but green. Green hides and shows patches of about half its wavelengths, evenly spread.

    Deviations: noise is made for each sample by a Fourier transform, where the reference cuts windows out of stored
    images; sharp cut-offs in multiples of a token's edge or in mm or m, where the reference takes differences of Gaussians
    of fixed widths; 2D and 3D; the share is of each sample's valid tokens.

    Attributes:
        ratio: hidden share, above 0 and below 1.
        color: the band that passes.
        shortest: wavelength of the cut between green and blue.
        longest: wavelength of the cut between red and green.
        unit: of both: `token` = edges of a token, whatever its shape; `length` = the batch's unit (mm or m), so that
            patterns are as round as the tissue.
    """

    ratio: float = 0.75
    color: Color = "green"
    shortest: float = 2.2
    longest: float = 8.0
    unit: Literal["token", "length"] = "token"

    def __post_init__(self) -> None:
        check_ratio(self.ratio)
        if not 0.0 < self.shortest < self.longest:
            raise ConfigError(f"expected 0 < shortest < longest wavelength, got {self.shortest} and {self.longest}.")

    def check(self, grid: Grid, spacing: tuple[float, ...]) -> None:
        """Refuse a grid of one token, and a band that is empty on this grid."""
        check_grid(grid)
        self._refuse_empty(self._passed(grid, self._edges(torch.tensor([spacing]), grid)), grid)

    def __call__(self, batch: Batch, grid: Grid, rng: SampleRng, guide: Guide = NO_GUIDE) -> Plan:
        """Plan one batch."""
        passed = self._passed(grid, self._edges(batch.spacing, grid))
        if self.unit == "length":  # a sample's spacing may differ from the one that was checked
            self._refuse_empty(passed, grid)
        noise = rng.split("color noise").uniform(*_window(grid)) - 0.5
        return hide_share(weakest_first(filtered(noise, passed, grid)), valid_tokens(batch, grid), self.ratio)

    def _edges(self, spacing: Tensor, grid: Grid) -> Tensor:
        """Measure the edges of tokens in the unit of the wavelengths, (B, ndim) float32; B = 1 where spacing plays no part."""
        return (
            token_edges(spacing, grid) if self.unit == "length" else spacing.new_ones(1, grid.ndim, dtype=torch.float32)
        )

    def _passed(self, grid: Grid, edges: Tensor) -> Tensor:
        """Say which frequencies of the window pass, (B, *window) bool, for tokens of these edges (B, ndim)."""
        squared = torch.zeros(len(edges), *(1 for _ in grid.tokens), device=edges.device)
        for axis, size in enumerate(_window(grid)):
            along = torch.fft.fftfreq(size, device=edges.device) / edges[:, axis, None]
            squared = squared + along.square().reshape(-1, *(size if a == axis else 1 for a in range(grid.ndim)))
        red, blue = squared < self.longest**-2, squared > self.shortest**-2
        passed = {"red": red, "green": ~red & ~blue, "blue": blue, "purple": red | blue}[self.color]
        return passed & (squared > 0.0)

    def _refuse_empty(self, passed: Tensor, grid: Grid) -> None:
        """Refuse a band that hardly any frequency of the grid lies in: all tokens would tie, or all masks be alike."""
        fewest = int(passed.flatten(1).sum(dim=1).min())
        if fewest < FEWEST:
            measure = "token edges" if self.unit == "token" else "mm or m"
            raise ConfigError(
                f"expected at least {FEWEST} frequencies of {self.color} noise, cut at {self.shortest:g} and "
                f"{self.longest:g} {measure}, on a grid of {grid.tokens} tokens, got {fewest}: no wavelength is shorter "
                f"than {2.0 / math.sqrt(grid.ndim):.2g} tokens or longer than the window {_window(grid)}; move the cuts."
            )


def _window(grid: Grid) -> tuple[int, ...]:
    """Give the size on which noise is made: larger than the grid, because it is periodic and the mask must not be."""
    return tuple(count + max(count, 16) for count in grid.tokens)


def filtered(noise: Tensor, passed: Tensor, grid: Grid) -> Tensor:
    """Keep the frequencies that pass of noise (B, *window), and cut out the grid, (B, *tokens)."""
    axes = tuple(range(1, noise.ndim))
    pattern: Tensor = torch.fft.ifftn(torch.fft.fftn(noise, dim=axes) * passed, dim=axes).real
    return pattern[(slice(None), *(slice(0, count) for count in grid.tokens))]


def weakest_first(pattern: Tensor) -> Tensor:
    """Turn a pattern (B, *tokens) into a priority (B, places): as in the reference, what is strong stays visible."""
    return -pattern.flatten(1)
