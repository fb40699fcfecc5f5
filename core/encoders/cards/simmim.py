"""SimMIM (Xie et al. 2021, arXiv 2111.09886): Swin and BEiT's ViT pretrained on ImageNet-1k pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.contract import Contract
from core.encoders.cards._vit import SIZES, picture
from core.encoders.cards.base import Card, Layout, Source

if TYPE_CHECKING:
    from core.encoders.relative_vit import RelativeViTSpec
    from core.encoders.swin import SwinSpec


def simmim_swin_spec() -> SwinSpec:
    """Describe Swin-B as SimMIM pretrains it: windows of 6 tokens, patch 4, 192 x 192 pixels."""
    from core.encoders.swin import SwinSpec

    return SwinSpec(
        contract=Contract(inputs=(picture(patch=4, size=192),)),
        width=128,
        depths=(2, 2, 18, 2),
        heads=(4, 8, 16, 32),
        window=(6, 6),
    )


def simmim_vit_spec() -> RelativeViTSpec:
    """Describe ViT-B as SimMIM pretrains it: biases by relative position that all blocks share, no absolute ones."""
    from core.encoders.relative_vit import RelativeViTSpec

    width, depth, heads = SIZES["base"]
    return RelativeViTSpec(
        contract=Contract(inputs=(picture(),)), width=width, depth=depth, heads=heads, extent=(14, 14)
    )


_LAYOUT = Layout(
    prefixes=("encoder.",),
    drop=("decoder.0.weight", "decoder.0.bias", "mask_token", "*.relative_position_index", "*.attn_mask", "head.*"),
    convert="core.layouts.simmim",
    given="spec",
)
_CITATION = "Xie et al., SimMIM: a simple framework for masked image modeling, CVPR 2022"
_PAGE = "https://github.com/microsoft/SimMIM (its table of pre-trained models)"

CARDS = (
    Card(
        name="simmim-swin-base",
        aliases=("simmim-swin",),
        title="SimMIM, Swin-B, 192 px, window 6, ImageNet-1k",
        modality="natural image",
        spec=simmim_swin_spec,
        parameters=86_725_176,
        layout=_LAYOUT,
        source=Source(file="simmim_pretrain__swin_base__img192_window6__800ep.pth", page=_PAGE),
        licence="MIT",
        citation=_CITATION,
        paper="2111.09886",
        reported=(("ImageNet-1k, fine-tuned at 224 px", "top-1", "84.0 %"),),
    ),
    Card(
        name="simmim-vit-base",
        aliases=("simmim-vit",),
        title="SimMIM, ViT-B/16 with relative positions, ImageNet-1k",
        modality="natural image",
        spec=simmim_vit_spec,
        parameters=85_665_360,
        layout=_LAYOUT,
        source=Source(file="simmim_pretrain__vit_base__img224__800ep.pth", page=_PAGE),
        licence="MIT",
        citation=_CITATION,
        paper="2111.09886",
        reported=(("ImageNet-1k, fine-tuned", "top-1", "83.8 %"),),
    ),
)
