"""Codes: which of K prototypes a patch is nearest to, from a codebook that was fitted beforehand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from core.bands import BandNames
from core.batch import Batch
from core.config import digest
from core.contract import Input
from core.errors import CheckpointError, ConfigError
from core.shapes import Grid
from core.targets._kmeans import Vectors, kmeans, nearest_centroid
from core.targets.base import Target
from core.targets.pixels import Pixels
from core.weights import read_weights


@dataclass(frozen=True, kw_only=True)
class Codebook(Target):
    """Predict a patch's k-means code (CCViT, Yan et al. 2023, arXiv 2303.04664; the tokenizer has no weights).

    The value is one code per token, (B, N, 1), and a predictor gives K logits, which `num_values` counts: the error of its
    term is `core.losses.cross_entropy`. Nearest in the measured values of a patch.

    Deviations: any rank, bands and groups; what is clustered is any target; missing values take no part.

    Attributes:
        path: of a safetensors file that holds what `fit_codebook` gave; read once per process.
        of: the vectors that were clustered; the file must have been fitted on the same.
        least: share of a vector that must be known for its code to count.
    """

    is_code: ClassVar[bool] = True

    path: str
    of: Target = Pixels(normalise="none")
    least: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 < self.least <= 1.0:
            raise ConfigError(f"expected a share above 0 and at most 1, got {self.least}.")

    @property
    def detail(self) -> int:
        """That of the vectors."""
        return self.of.detail

    def num_values(self, entry: Input) -> int:
        """K, the number of logits: the codes of the largest book of the input's band groups.

        Raises:
            ConfigError: there is no such file, it was fitted on other vectors, or not for these bands and this patch.
        """
        return max(len(self._centroids(group, entry.patch)) for group in entry.groups or (entry.bands,))

    def __call__(self, batch: Batch, grid: Grid) -> tuple[Tensor, Tensor]:
        """Give each token's code as a whole float32, (B, N, 1), and 1 where enough of it is known."""
        value, weight = self.of(batch, grid)
        known = weight > 0
        centroids = self._centroids(batch.bands, grid.patch, str(value.device))
        code = nearest_centroid(value.flatten(0, 1), known.flatten(0, 1), centroids)
        share = known.sum(-1, keepdim=True)
        return code.reshape(*value.shape[:2], 1).to(torch.float32), share >= max(self.least * value.shape[2], 1.0)

    def picture(self, prediction: Tensor, batch: Batch, grid: Grid) -> Tensor | None:
        """Draw the prototype of the likeliest code; of codes (B, N, 1), their own."""
        codes = prediction[..., 0].to(torch.int64) if prediction.shape[2] == 1 else prediction.argmax(-1)
        centroids = self._centroids(batch.bands, grid.patch, str(prediction.device))
        return self.of.picture(centroids[codes.clamp(max=len(centroids) - 1)], batch, grid)

    def _centroids(self, bands: BandNames, patch: tuple[int, ...], device: str = "cpu") -> Tensor:
        return _read(self.path, _key(bands, patch, self.of), device)


def fit_codebook(
    batches: Iterable[Batch],
    entry: Input,
    *,
    size: int,
    seed: int,
    of: Target = Codebook.of,
    passes: int = 20,
    pool: int = 65_536,
    least: float = 0.5,
) -> dict[str, Tensor]:
    """Cluster the patches of an input into `size` codes, one book for each band group.

    What it gives is the content of a codebook file, to be written with `safetensors.torch.save_file`; the books of several
    inputs may share one.

    Args:
        batches: as they leave the loader, and the same each time they are iterated: a list, or an object that begins anew.
            They are read `passes` + 1 times for each group, one batch at a time.
        entry: the input.
        size: K.
        seed: decides every choice.
        of: what to cluster.
        passes: of Lloyd's algorithm.
        pool: vectors kept in memory to seed from; at least several times `size`.
        least: share of a vector that must be known for it to take part.

    Raises:
        ConfigError: fewer than two codes, or fewer different patches than codes.
    """
    if size < 2 or passes < 1 or pool < size:
        raise ConfigError(
            f"expected two codes or more, a pass and a pool of at least the codes, got {size}, {passes}, {pool}."
        )
    books = {}
    for group in entry.groups or (entry.bands,):

        def stream(bands: BandNames = group) -> Vectors:
            for batch in batches:
                prepared = batch.aligned(bands).normalised()
                value, weight = of(prepared, prepared.grid(entry.patch))
                value, known = value.flatten(0, 1).cpu(), (weight > 0).flatten(0, 1).cpu()
                rows = known.sum(1) >= max(least * value.shape[1], 1.0)
                yield value[rows], known[rows]

        try:
            draw = torch.Generator().manual_seed(seed)
            books[_key(group, entry.patch, of)] = kmeans(stream, size, passes=passes, draw=draw, pool=pool)
        except ValueError as error:
            raise ConfigError(f"input '{entry.name}': {error} Give more images or ask for fewer codes.") from None
    return books


def _key(bands: BandNames, patch: tuple[int, ...], of: Target) -> str:
    """Name a book by all that its vectors depend on, so that another book is never taken for it."""
    return f"{digest(of)} {','.join(bands)} {'x'.join(map(str, patch))}"


@lru_cache(maxsize=64)
def _read(path: str, key: str, device: str) -> Tensor:
    if not Path(path).is_file():
        raise ConfigError(f"expected a codebook that `fit_codebook` made, got '{path}', which is no file.")
    try:
        books = read_weights(Path(path))
    except CheckpointError as error:
        raise ConfigError(f"expected a codebook that `fit_codebook` made, but {error}") from error
    if key not in books:
        raise ConfigError(
            f"{path}: expected a codebook of '{key}' (vectors, bands, patch), got {sorted(books)}: fit one for this input."
        )
    return books[key].to(device)
