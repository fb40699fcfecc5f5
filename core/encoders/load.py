"""Loading a pretrained encoder, with the contract of its input, as one object that people use."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from core.bands import RGB, BandNames
from core.batch import Batch
from core.contract import Contract, Input
from core.encoders._adapt import Method
from core.encoders._sources import Acceptance, folder_of, for_bands, published, stored
from core.encoders.base import Backbone, Pool
from core.encoders.cards import get_card
from core.errors import BandError, ConfigError, GeometryError, ShapeError
from core.preprocess import prepare
from core.weights import Placement, build_with


class Encoder(nn.Module):
    """A pretrained encoder.

    Attributes:
        backbone: the network.
        pool: how tokens become one vector; see `load_encoder`.
        report: which weights found their place, what was left out and what was changed.
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
        self,
        image: Any,
        *,
        bands: BandNames | None = None,
        spacing: tuple[float, ...] | None = None,
        check: bool = True,
    ) -> Batch:
        """Make a whole image ready: bands by name, content found, fitted to the training size, value space applied.

        The same function prepares the images of `evaluate` and `embed`.

        Args:
            image: raw values (C, *S) as a numpy array, or an opened image that has `read()` (or `read_valid()`), `bands`,
                `spacing` and perhaps `scaling`.
            bands: names of the channels of an array. None is right for colour pictures, red first, and where the contract
                does not say what its bands mean.
            spacing: per axis of an array, in the input's unit; default the nominal one.
            check: refuse values that are in another unit than the contract's; False for scenes without daylight.

        Returns:
            a batch of one, on the encoder's device.

        Raises:
            BandError: bands without a name, lacking, or in another unit.
            GeometryError: an opened image says no size of its pixels, or in another unit, and the contract needs it.
        """
        given, mask = (image, None) if isinstance(image, np.ndarray) else _read(image)
        names = bands or (None if isinstance(image, np.ndarray) else image.bands)
        entry = self._entry(given, names)
        if names is None and entry.sensor and entry.bands != RGB:
            raise BandError(
                f"expected the names of the {len(entry.bands)} channels, for their order decides nothing: pass "
                f"bands=('{entry.bands[0]}', ...), of {', '.join(entry.bands)}."
            )
        if spacing is None:
            spacing = entry.spacing if isinstance(image, np.ndarray) else _spacing_of(image, entry)
        scaling = getattr(image, "scaling", None)
        ready = prepare(given, names or entry.bands, entry, mask=mask, scaling=scaling, check=check)
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


def _spacing_of(image: Any, entry: Input) -> tuple[float, ...]:
    """Give what an opened image says of its pixels' size, in the input's unit; where that is pixels, anything will do."""
    values: tuple[float, ...] = image.spacing.values
    if entry.unit not in ("px", image.spacing.unit):
        example = ", ".join(f"{size:g}" for size in entry.spacing)
        raise GeometryError(
            f"expected spacing in {entry.unit}, got an image that knows it in {image.spacing.unit}: pass "
            f"spacing=({example}), what one pixel measures."
        )
    return values


def load_encoder(
    name_or_run: str | Path,
    *,
    weights: str | Path | None = "hub",
    bands: BandNames | None = None,
    adapt: Method | None = None,
    sensor: str = "",
    accept: Collection[Acceptance] = (),
    pool: Pool | None = None,
    device: str | torch.device = "cpu",
) -> Encoder:
    """Load a published encoder, or what a run has stored, in evaluation mode.

    The weights are float32 whatever the file holds; `.report` says which keys found their place, which a rule left out,
    what was adapted, and of which bytes.

    Args:
        name_or_run: name or alias of a card (`list_encoders`); or a run folder, or its `encoder` folder. A folder of that
            name that holds an encoder goes before a card.
        weights: of a card: `hub` = fetch the released file once, or a path to it; None = fresh random ones, for a look at
            the structure or a comparison. A run has its own.
        bands: names of the bands that images will have, in any order; none = those of its contract. Others than those need
            an adapter.
        adapt: how it is fitted to other bands: `subset`, `nearest`, `wavelength`, `mean` or `groups`
            (`core.encoders._adapt`).
        sensor: what the names of `bands` mean, a name of `core.sensors`; none = the encoder's own sensor.
        accept: terms that you agree to: `non_commercial`, without which such weights are not fetched.
        pool: how tokens become one vector (`core.encoders.base.Pool`); none = as its authors do, for a run `mean`,
            for a file whose last norm follows the mean (`fc_norm`) `mean_then_norm`.
        device: where to put it; `meta` with fresh weights takes neither memory nor time, whatever the size.

    Raises:
        ConfigError: no such card or pool, terms that were not accepted, or options that do not go together.
        MissingDataError: there is no encoder at that path, or the file cannot be fetched; it says how to get it by hand.
        UnsafeError: the file holds objects that could run code.
        CheckpointError: the weights do not fill the encoder, or are not those that were written.
        BandError: other bands than the contract's and no adapter, or one that cannot serve them.
    """
    if pool not in (None, *get_args(Pool)):
        raise ConfigError(f"expected pool {', '.join(map(repr, get_args(Pool)))}, got {pool!r}.")
    device = torch.device(device)
    folder = folder_of(name_or_run)
    if folder is not None:
        if weights != "hub" or accept:
            raise ConfigError(f"{name_or_run}: expected no weights or accept for a run, which has its own weights.")
        loaded = stored(folder)
    else:
        card = get_card(str(name_or_run))
        loaded = published(card, weights, accept, described_only=device.type == "meta")
    if bands is not None or adapt is not None or sensor:
        loaded = for_bands(loaded, bands, adapt, sensor)
    backbone, report = build_with(loaded.spec.build, loaded.weights, source=loaded.source)
    report = replace(loaded.report, placed=report.placed)
    return Encoder(backbone, pool=pool or loaded.pool, report=report).to(device).eval()
