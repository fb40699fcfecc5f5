"""Reading the reference numbers, and the small parts that replace our randomness by theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.batch import Batch, valid_tokens
from core.contract import Contract, Input, Normalisation
from core.encoders.vit import ViTSpec
from core.layouts.mae import ENCODER_KEYS, PREDICTOR_KEYS, renamed
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Plan, hide_share
from core.predictors.transformer import TransformerSpec
from core.weights import Placement, place, read_weights


class Fixture:
    """One folder of the parity data."""

    def __init__(self, folder: Path) -> None:
        self.meta = json.loads((folder / "meta.json").read_text())
        self.config = self.meta.get("config", {})
        self.io = read_weights(folder / "io.safetensors")
        weights = folder / "weights.safetensors"
        self.weights = read_weights(weights) if weights.exists() else {}

    def close(self, ours: Tensor, theirs: str | Tensor) -> None:
        """Assert equality within the folder's own tolerance."""
        expected = self.io[theirs] if isinstance(theirs, str) else theirs
        torch.testing.assert_close(ours.detach(), expected, **self.meta["suggested_tolerance"])

    def grad_norms(self) -> dict[str, float]:
        """Give the reference's gradient norm of each parameter; NaN = it got none."""
        return dict(zip(self.meta["grad_norms_order"], self.io["out.grad_norms"].tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class FromNoise(Masker):
    """The random masker with the reference's noise in place of ours."""

    noise: Tensor
    ratio: float

    def check(self, grid, spacing) -> None:
        pass

    def __call__(self, batch, grid, rng, guide=NO_GUIDE) -> Plan:
        return hide_share(self.noise, valid_tokens(batch, grid), self.ratio)


def grad_norms(gradient: Tensor) -> float:
    """Give the float64 L2 norm."""
    return float(gradient.double().norm())


def placed(module: nn.Module, weights: Mapping[str, Tensor]) -> Placement:
    """Put renamed weights of a reference into a module of ours: each finds its place, and no place stays empty."""
    placement = place(module, weights, source="the reference")
    assert not placement.missing
    assert not placement.unexpected
    return placement


def vit_spec(config: dict[str, Any], entry: Input, **options: Any) -> ViTSpec:
    """Describe the encoder of MAE's descendants by their configuration, with the stored table of positions."""
    return ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=config["embed_dim"],
        depth=config["depth"],
        heads=config["num_heads"],
        mlp_ratio=config.get("mlp_ratio", 4.0),
        tables={entry.name: entry.grid().tokens},
        **options,
    )


def transformer_spec(config: dict[str, Any], entry: Input) -> TransformerSpec:
    """Describe the decoder that belongs to it."""
    return TransformerSpec(
        width=config["decoder_embed_dim"],
        depth=config["decoder_depth"],
        heads=config["decoder_num_heads"],
        mlp_ratio=config.get("mlp_ratio", 4.0),
        tables={entry.name: entry.grid().tokens},
    )


def mae_name(key: str, entry: Input, predictor: str) -> str | None:
    """Give our name of one of MAE's parameters; None = it is none of them."""
    found = [f"encoder.{name}" for name in renamed({key: key}, ENCODER_KEYS, name=entry.name)]
    found += [f"{predictor}.{name}" for name in renamed({key: key}, PREDICTOR_KEYS, name=entry.name)]
    return found[0] if found else None


def in_raster(theirs: Tensor, noise: Tensor) -> Tensor:
    """Put the tokens (B, V, D) that a reference kept, lowest noise first, in the order of the image."""
    raster = noise.argsort(1)[:, : theirs.shape[1]].argsort(1)
    return theirs.gather(1, raster[..., None].expand_as(theirs))


def make_input(name: str, bands: int, patch: tuple[int, ...], size: tuple[int, ...]) -> Input:
    """Describe an input of already normalised values."""
    return Input(
        name=name,
        bands=tuple(f"band{i}" for i in range(bands)),
        patch=patch,
        size=size,
        spacing=(1.0,) * len(patch),
        unit="px",
        normalisation=Normalisation(method="per_image"),
    )


def make_batch(image: Tensor, entry: Input) -> Batch:
    """Wrap normalised images, all valid."""
    count, bands = image.shape[:2]
    return Batch(
        image=image,
        valid=torch.ones_like(image, dtype=torch.bool),
        bands=entry.bands,
        spacing=torch.ones(count, entry.ndim),
        unit="px",
        offset=torch.zeros(count, bands),
        scale=torch.ones(count, bands),
        key=torch.arange(count),
        index=torch.arange(count),
        row=torch.arange(count),
    )
