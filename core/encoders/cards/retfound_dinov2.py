"""RETFound's DINOv2 models (Zhou et al. 2025, rs-6080254): ViT-L/14 on colour fundus photographs of two cohorts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.contract import Contract
from core.encoders.cards._vit import SIZES, picture
from core.encoders.cards.base import Card, Layout, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec


def retfound_dinov2_spec() -> ViTSpec:
    """Describe ViT-L/14 of DINOv2 without registers, for photographs of 224 x 224 pixels by ImageNet's statistics."""
    from core.encoders.vit import ViTSpec

    entry = picture(name="photograph", patch=14)
    width, depth, heads = SIZES["large"]
    return ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=width,
        depth=depth,
        heads=heads,
        tables={entry.name: entry.grid().tokens},
        train_tables=True,
        layer_scale=1e-5,
    )


def _card(cohort: str, where: str) -> Card:
    name = f"RETFound_dinov2_{cohort}"
    return Card(
        name=f"retfound-dinov2-{cohort}",
        aliases=("retfound-dinov2",) if cohort == "meh" else (),
        title=f"RETFound DINOv2 ViT-L/14, fundus photographs of {where}",
        modality="retina",
        spec=retfound_dinov2_spec,
        parameters=303_227_904,
        layout=Layout(
            outer=("teacher",),
            prefixes=("backbone.",),
            drop=("mask_token", "dino_head.*", "ibot_head.*"),
            convert="core.layouts.dinov2",
        ),
        source=Source(repo=f"YukunZhou/{name}", file=f"{name}.pth"),
        licence="CC-BY-NC-4.0",
        gated=True,
        non_commercial=True,
        citation="Zhou et al., Revealing the impact of pre-training data on medical foundation models, 2025",
        notes=(
            "A position table of another grid than 16 x 16 is resampled bicubically, as the authors' fine-tuning does.",
            "The file holds the averaged teacher; a file with register tokens is refused.",
        ),
        pool="cls",
    )


CARDS = (_card("meh", "Moorfields Eye Hospital"), _card("shanghai", "Shanghai"))
