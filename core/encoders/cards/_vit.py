"""What cards of plain vision transformers share: the usual sizes, the space of ImageNet pictures, MAE's file layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from core.bands import RGB, BandNames
from core.contract import Contract, Input, Normalisation
from core.encoders.cards.base import Layout

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec

Size = Literal["small", "base", "large", "huge"]
SIZES: dict[Size, tuple[int, int, int]] = {
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
"""Width, depth and heads; the patch of `huge` is 14, of the others 16."""

IMAGENET = Normalisation(method="fixed", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's red, green and blue, of values 0..1."""

MAE_LAYOUT = Layout(drop=("decoder_*", "mask_token", "head.*"), convert="core.layouts.mae")
"""Of facebookresearch/mae: the encoder alone, with its decoder, or fine-tuned with a classifier."""


def picture(
    *,
    name: str = "picture",
    patch: int = 16,
    size: int = 224,
    normalisation: Normalisation = IMAGENET,
    bands: BandNames = RGB,
    background: Literal["none", "dark"] = "none",
) -> Input:
    """Describe colour pictures of no known spacing, values 0..1 before they are normalised.

    A black surround, as of fundus photographs, counts as data for releases that have seen it: `none`.
    """
    return Input(
        name=name,
        bands=bands,
        patch=(patch, patch),
        size=(size, size),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=normalisation,
        background=background,
        sensor="rgb",
    )


def vit_spec(size: Size, entry: Input) -> ViTSpec:
    """Describe a ViT of a usual size with one input and a stored table for that input's own grid."""
    from core.encoders.vit import ViTSpec

    width, depth, heads = SIZES[size]
    return ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=width,
        depth=depth,
        heads=heads,
        tables={entry.name: entry.grid().tokens},
    )
