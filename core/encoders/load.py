"""Loading a pretrained encoder, with the contract of its input, as one object that people use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.bands import BandNames
from core.batch import Batch
from core.config import from_dict
from core.contract import Contract, Input
from core.encoders.base import Backbone, EncoderSpec, Pool
from core.errors import BandError, CheckpointError, MissingDataError, ShapeError
from core.preprocess import prepare
from core.weights import FORMAT, Placement, place, read_weights


class Encoder(nn.Module):
    """A pretrained encoder.

    Attributes:
        backbone: the network.
        pool: how tokens become one vector; see `load_encoder`.
        report: which weights found their place.
        contract: bands, value space, normalisation, patch and spacing of each input.
        num_features: width of its vectors.
    """

    def __init__(self, backbone: Backbone, *, pool: Pool, report: Placement) -> None:
        super().__init__()
        self.backbone, self.pool, self.report = backbone, pool, report

    @property
    def contract(self) -> Contract:
        """What it expects of its input."""
        return self.backbone.contract

    @property
    def num_features(self) -> int:
        """Width of the vectors that `forward` gives: D, twice that for the pool `mean_std`."""
        return self.backbone.num_features * (2 if self.pool == "mean_std" else 1)

    def forward(self, images: Tensor | Batch) -> Tensor:
        """Embed (B, C, *S) images as (B, num_features).

        Args:
            images: a batch, or a float tensor that already is in the encoder's value space with the channels in the
                contract's order at its nominal spacing (`preprocess` makes either); NaN marks missing data.

        Raises:
            BandError: no input of the contract has this rank and number of bands.
            ShapeError: sizes that the patch does not divide.
        """
        batch, _ = self.backbone.prepare(self._batch(images))
        return self.backbone.features(batch, self.pool)

    def tokens(self, images: Tensor | Batch) -> Tensor:
        """Give every patch token, (B, N, D) in raster order; tokens without data are 0."""
        batch, _ = self.backbone.prepare(self._batch(images))
        tokens = self.backbone(batch)
        return tokens.value if tokens.ok is None else torch.where(tokens.ok[..., None], tokens.value, 0.0)

    def feature_map(self, images: Tensor | Batch) -> Tensor:
        """Give the patch tokens as a map, (B, D, Y, X) or (B, D, Z, Y, X); several band groups are averaged."""
        batch = self._batch(images)
        entry = self.contract.input_for(len(batch.size), batch.bands)
        grid = self.backbone.level_grid(self.backbone.num_levels, entry.grid(batch.size))
        tokens = self.tokens(batch).unflatten(1, (grid.num_groups, grid.num_places)).mean(1)
        feature_map: Tensor = tokens.transpose(1, 2).unflatten(2, grid.tokens)
        return feature_map

    def preprocess(
        self, image: Any, *, bands: BandNames | None = None, spacing: tuple[float, ...] | None = None
    ) -> Batch:
        """Make a whole image ready: bands by name, content found, fitted to the training size, value space applied.

        The same function prepares the images of `evaluate` and `embed`.

        Args:
            image: raw values (C, *S) as a numpy array, or an opened image that has `read()` (or `read_valid()`), `bands`,
                `spacing` and perhaps `scaling`.
            bands: names of the channels of an array; default the contract's.
            spacing: per axis of an array, in the input's unit; default the nominal one.

        Returns:
            a batch of one, on the encoder's device.
        """
        given, mask = (image, None) if isinstance(image, np.ndarray) else _read(image)
        names = bands or (None if isinstance(image, np.ndarray) else image.bands)
        entry = self._entry(given, names)
        if spacing is None:
            spacing = entry.spacing if isinstance(image, np.ndarray) else image.spacing.values
        ready = prepare(given, names or entry.bands, entry, mask=mask, scaling=getattr(image, "scaling", None))
        device = next(self.parameters()).device
        zero = torch.zeros(1, dtype=torch.int64)
        batch = Batch(
            image=torch.from_numpy(ready.image)[None],
            valid=torch.from_numpy(ready.valid)[None],
            bands=entry.bands,
            spacing=torch.tensor([spacing], dtype=torch.float32),
            unit=entry.unit,
            offset=torch.from_numpy(ready.offset)[None],
            scale=torch.from_numpy(ready.scale)[None],
            key=zero,
            index=zero,
            row=zero,
        )
        return batch.to(device).normalised()

    def _entry(self, image: np.ndarray, bands: BandNames | None) -> Input:
        if bands is not None:
            return self.contract.input_for(image.ndim - 1, bands)
        return self._by_count(image.ndim - 1, image.shape[0])

    def _by_count(self, ndim: int, channels: int) -> Input:
        fitting = [e for e in self.contract.inputs if e.ndim == ndim and len(e.bands) == channels]
        if len(fitting) != 1:
            reads = "; ".join(f"{e.ndim}D {e.bands}" for e in self.contract.inputs)
            raise BandError(
                f"expected an image that this encoder reads ({reads}), got {ndim}D with {channels} channels."
            )
        return fitting[0]

    def _batch(self, images: Tensor | Batch) -> Batch:
        if isinstance(images, Batch):
            return images
        if images.ndim not in (4, 5):
            raise ShapeError(f"expected images (B, C, Y, X) or (B, C, Z, Y, X), got {tuple(images.shape)}.")
        entry = self._by_count(images.ndim - 2, images.shape[1])
        count, device = len(images), images.device
        plain = torch.zeros(count, len(entry.bands), device=device)
        zero = torch.zeros(count, dtype=torch.int64, device=device)
        return Batch(
            image=images,
            valid=torch.isfinite(images),
            bands=entry.bands,
            spacing=torch.tensor(entry.spacing, device=device).expand(count, -1),
            unit=entry.unit,
            offset=plain,
            scale=plain + 1.0,
            key=zero,
            index=zero,
            row=zero,
        )


def _read(image: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Read an opened image whole, and what of it is measured where it can say."""
    found: tuple[np.ndarray, np.ndarray | None] = (
        image.read_valid() if hasattr(image, "read_valid") else (image.read(), None)
    )
    return found


def load_encoder(path_or_run: str | Path, *, pool: Pool = "mean", device: str | torch.device = "cpu") -> Encoder:
    """Load what a run has stored, in evaluation mode.

    Args:
        path_or_run: a run folder, or its `encoder` folder.
        pool: how tokens become one vector: `mean`, `mean_std`, `cls` or `mean_then_norm` (`core.encoders.base.Pool`).
        device: where to put it.

    Raises:
        MissingDataError: there is no encoder at that path.
        CheckpointError: the folder's format is unknown, or its weights do not fit its description.
    """
    folder = Path(path_or_run)
    folder = folder / "encoder" if (folder / "encoder").is_dir() else folder
    description = folder / "config.json"
    if not description.is_file():
        raise MissingDataError(
            f"{folder}: expected a run folder, or an encoder folder with config.json; pretrain one first."
        )
    try:
        stored = json.loads(description.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{description}: expected JSON, got: {error}.") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise CheckpointError(
            f"{description}: expected an encoder of format {FORMAT}; it was written by another version."
        )
    backbone = from_dict(EncoderSpec, stored["spec"]).build()  # type: ignore[type-abstract]
    weights = folder / "model.safetensors"
    digest = stored.get("digests", {}).get(weights.name)
    report = place(backbone, read_weights(weights, digest=digest), source=str(weights))
    return Encoder(backbone, pool=pool, report=report).to(device).eval()
