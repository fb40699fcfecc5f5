"""MAE (He et al. 2021, arXiv 2111.06377): plain ViT pretrained on ImageNet-1k pictures, the baseline of everything here."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.encoders.cards._vit import MAE_LAYOUT, Size, picture, vit_spec
from core.encoders.cards.base import Card, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec


def mae_spec(size: Size) -> ViTSpec:
    """Describe a released encoder: `base` and `large` with patch 16, `huge` with patch 14, 224 x 224 pixels."""
    return vit_spec(size, picture(patch=14 if size == "huge" else 16))


def _card(size: Size, short: str, patch: int, parameters: int, accuracy: str) -> Card:
    file = f"mae_pretrain_vit_{size}.pth"
    return Card(
        name=f"mae-vit-{size}",
        aliases=(f"mae-{size}", f"mae-vit-{short}"),
        title=f"MAE, ViT-{short.upper()}/{patch}, ImageNet-1k",
        modality="natural image",
        spec=partial(mae_spec, size),
        parameters=parameters,
        layout=MAE_LAYOUT,
        source=Source(url=f"https://dl.fbaipublicfiles.com/mae/pretrain/{file}", file=file),
        licence="CC-BY-NC-4.0",
        non_commercial=True,
        citation="He et al., Masked autoencoders are scalable vision learners, CVPR 2022",
        paper="2111.06377",
        reported=(("ImageNet-1k, fine-tuned", "top-1", accuracy),),
        notes=("Natural pictures: a baseline for other worlds, not an encoder of them.",),
    )


CARDS = (
    _card("base", "b", 16, 85_798_656, "83.6 %"),
    _card("large", "l", 16, 303_301_632, "85.9 %"),
    _card("huge", "h", 14, 630_764_800, "86.9 %"),
)
