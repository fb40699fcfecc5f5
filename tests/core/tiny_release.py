"""A release small enough for tests: a card, and the file that goes with it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.contract import Contract, Normalisation
from core.encoders.cards._vit import MAE_LAYOUT, picture
from core.encoders.cards.base import Card, Source
from core.encoders.vit import ViTSpec

BANDS = ("B02", "B03", "B04", "B08")


def spec() -> ViTSpec:
    """Four bands of Sentinel-2 at 10 m, 32 x 32 pixels."""
    space = Normalisation(method="fixed", mean=(0.1, 0.1, 0.1, 0.3), std=(0.05, 0.05, 0.05, 0.1), full_scale=False)
    entry = replace(
        picture(name="scene", size=32, bands=("red", "green", "blue")),
        bands=BANDS,
        normalisation=space,
        sensor="sentinel2_l1c",
        spacing=(10.0, 10.0),
        unit="m",
    )
    return ViTSpec(contract=Contract(inputs=(entry,)), width=16, depth=2, heads=2, tables={"scene": (2, 2)})


CARD = Card(
    name="tiny-s2",
    aliases=("tiny",),
    title="Tiny ViT, four Sentinel-2 bands",
    modality="satellite",
    spec=spec,
    parameters=12_000,
    layout=MAE_LAYOUT,
    source=Source(repo="owner/tiny", revision="v1", file="tiny.pth"),
    licence="Apache-2.0",
    citation="Nobody, Nothing, 2024",
    pool="cls",
)


def released() -> dict[str, Tensor]:
    """The weights as the release calls them, beside a decoder's."""
    torch.manual_seed(5)
    names = {"class_token": "cls_token", "tables.scene": "pos_embed"}
    state = spec().build().state_dict()
    found = {
        names.get(key, key.replace("stems.scene.", "patch_embed.proj.")): torch.randn_like(value) * 0.1
        for key, value in state.items()
        if not key.endswith("nodata")
    }
    return found | {"mask_token": torch.zeros(1, 1, 16), "decoder_pred.weight": torch.zeros(8, 16)}


def write(path: Path) -> Path:
    """Write the release."""
    torch.save({"model": released(), "epoch": 400}, path)
    return path


def publish(monkeypatch: pytest.MonkeyPatch, card: Card = CARD) -> Card:
    """Make it the only card there is."""
    monkeypatch.setattr("core.encoders.cards.cards", partial(dict, {card.name: card}))
    return card
