"""Reading the reference numbers, and the small parts that replace our randomness by theirs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.batch import Batch, valid_tokens
from core.contract import Input, Normalisation
from core.maskers.base import Masker
from core.plan import NO_GUIDE, Plan, hide_share
from core.weights import read_weights


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

    def check(self, grid) -> None:
        pass

    def __call__(self, batch, grid, rng, guide=NO_GUIDE) -> Plan:
        return hide_share(self.noise, valid_tokens(batch, grid), self.ratio)


def grad_norms(gradient: Tensor) -> float:
    """Give the float64 L2 norm."""
    return float(gradient.double().norm())


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
