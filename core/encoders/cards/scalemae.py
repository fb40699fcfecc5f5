"""Scale-MAE (Reed et al. 2022, arXiv 2212.14532): MAE whose positions are distances on the ground in metres."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.bands import RGB
from core.contract import Contract, Input
from core.encoders.cards._vit import IMAGENET, SIZES
from core.encoders.cards.base import Card, Layout, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec


def scalemae_spec() -> ViTSpec:
    """Describe ViT-L/16 for red, green, blue in 0..1 by ImageNet's statistics, at any ground sampling distance."""
    from core.encoders.vit import ViTSpec
    from core.pos_embed import PositionRule

    entry = Input(
        name="scene",
        bands=RGB,
        sensor="rgb",
        patch=(16, 16),
        size=(224, 224),
        spacing=(2.5, 2.5),
        unit="m",
        normalisation=IMAGENET,
    )
    width, depth, heads = SIZES["large"]
    return ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=width,
        depth=depth,
        heads=heads,
        positions=PositionRule(count="crop", unit=1.0),
    )


CARDS = (
    Card(
        name="scalemae-large",
        aliases=("scalemae", "scale-mae"),
        title="Scale-MAE ViT-L/16, RGB at any ground sampling distance (fMoW)",
        modality="satellite",
        spec=scalemae_spec,
        parameters=303_099_904,
        layout=Layout(
            outer=("model",),
            drop=(
                "pos_embed",
                "mask_token",
                "mask_token_decoder",
                "decoder_*",
                "fpn.*",
                "fcn_high.*",
                "fcn_low.*",
                "head.*",
            ),
            convert="core.layouts.mae",
        ),
        source=Source(
            url="https://github.com/bair-climate-initiative/scale-mae/releases/download/base-800/scalemae-vitlarge-800.pth",
            file="scalemae-vitlarge-800.pth",
        ),
        licence="CC-BY-NC-4.0",
        non_commercial=True,
        citation="Reed et al., Scale-MAE: a scale-aware masked autoencoder for multiscale geospatial representation "
        "learning, 2022",
        paper="2212.14532",
        notes=(
            "Positions are read from the spacing in metres; an array without one counts as 2.5 m, its reference in training.",
            "A user measured k-NN on EuroSAT of 0.954 with a spacing of 1 m and 0.876 with the true 10 m: try both.",
            "The stored position table belongs to training at one scale and is not used, nor does the release.",
        ),
    ),
)
