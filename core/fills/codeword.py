"""The nearest entry of a codebook: coarse content stays, detail goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from core.batch import Batch
from core.contract import Input
from core.encoders.base import Ability
from core.errors import ConfigError
from core.fills._visible import filled, hidden_voxels
from core.fills.base import Fill
from core.plan import Plan
from core.rng import SampleRng
from core.shapes import Grid
from core.targets.codebook import Codebook


@dataclass(frozen=True, kw_only=True)
class Codeword(Fill):
    """Replace each hidden patch by the codeword nearest to it (CCViT, Yan et al. 2023, arXiv 2303.04664, 3.2).

    By design this lets the encoder see which codeword a hidden patch has, and so its coarse content: it is for methods that
    predict what the codeword lacks. It does not belong where hidden content must not be seen.

    Deviations: nearest over measured voxels only; 2D and 3D; each group of bands has a codebook of its own.

    Attributes:
        codebook: safetensors file that holds what `core.targets.codebook.fit_codebook` gave for plain pixels, so that the
            target `codebook` can predict the very codes that are shown.
    """

    ability: ClassVar[Ability] = "dense"
    codebook: str

    def __post_init__(self) -> None:
        if not self.codebook:
            raise ConfigError("expected the path of a codebook, a safetensors file, got none.")

    def check(self, entry: Input) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read, or has no codebook for the input's bands and patch.
        """
        Codebook(path=self.codebook).num_values(entry)

    def __call__(self, batch: Batch, plan: Plan, grid: Grid, rng: SampleRng) -> Batch:
        """Give the batch with its hidden voxels replaced.

        Raises:
            ConfigError: the file cannot be read, or has no codebook for these bands and this patch.
        """
        codes, value = Codebook(path=self.codebook), torch.empty_like(batch.image)
        for group in grid.groups or (batch.bands,):
            part = batch.aligned(group)
            code, _ = codes(part, grid.plain)
            image = codes.picture(code, part, grid.plain)
            assert image is not None  # prototypes of plain pixels can always be drawn
            value[:, [batch.bands.index(band) for band in group]] = image.to(value.dtype)
        return filled(batch, value, hidden_voxels(batch, plan, grid))
