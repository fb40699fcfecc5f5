"""ViT trained with labels on ImageNet-21k and ImageNet-1k (Steiner et al. 2021, arXiv 2106.10270), as timm hosts it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.contract import Normalisation
from core.encoders.cards._vit import MAE_LAYOUT, Size, picture, vit_spec
from core.encoders.cards.base import Card, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec

_HALVES = Normalisation(method="fixed", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def imagenet_spec(size: Size) -> ViTSpec:
    """Describe a released encoder: patch 16, 224 x 224 pixels, values -1..1."""
    return vit_spec(size, picture(normalisation=_HALVES))


def _card(size: Size, short: str, parameters: int) -> Card:
    return Card(
        name=f"imagenet-vit-{size}",
        aliases=(f"imagenet-{size}", f"imagenet-vit-{short}"),
        title=f"Supervised on ImageNet-21k and -1k, ViT-{short.upper()}/16 (timm, AugReg)",
        modality="natural image",
        spec=partial(imagenet_spec, size),
        parameters=parameters,
        layout=MAE_LAYOUT,
        source=Source(repo=f"timm/vit_{size}_patch16_224.augreg_in21k_ft_in1k", file="model.safetensors"),
        licence="Apache-2.0",
        citation="Steiner et al., How to train your ViT? Data, augmentation, and regularization, TMLR 2022",
        paper="2106.10270",
        notes=("Labels were used: a baseline for self-supervised encoders.",),
        pool="cls",
    )


CARDS = (
    _card("small", "s", 21_665_664),
    _card("base", "b", 85_798_656),
    _card("large", "l", 303_301_632),
)
