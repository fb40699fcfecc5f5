"""Putting a reference's weights into a file as it was published, and reading them back as people do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from core.encoders.base import Backbone, EncoderSpec
from core.encoders.cards import get_card
from core.foreign import read_encoder
from core.weights import place


def from_file(
    spec: EncoderSpec, weights: Mapping[str, Tensor], folder: Path, card: str, *, outer: str | None = "model"
) -> Backbone:
    """Build an encoder from a file of original keys, by the layout of a card: each key has its place or is dropped by name."""
    path = folder / "released.pth"
    own = {key: value.clone() for key, value in weights.items()}
    torch.save(own if outer is None else {outer: own, "epoch": 799}, path)
    read = read_encoder(path, spec, get_card(card).layout)
    assert {*read.placed, *read.dropped} == set(weights)
    assert not set(read.placed) & set(read.dropped)
    encoder = spec.build()
    place(encoder, read.weights, source=str(path), allow_missing=())
    return encoder
