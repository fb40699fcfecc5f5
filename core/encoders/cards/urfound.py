"""UrFound (Yu et al., MICCAI 2024, arXiv 2408.05618): fundus photographs and OCT slices with expert descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.encoders.cards._vit import picture, vit_spec
from core.encoders.cards.base import Card, Source
from core.encoders.cards.mrm import LAYOUT_WITH_TEXT

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec


def urfound_spec() -> ViTSpec:
    """Describe the released encoder: ViT-B/16, 224 x 224 pixels, colours as ImageNet."""
    return vit_spec("base", picture(name="photograph"))


CARDS = (
    Card(
        name="urfound",
        aliases=("urfound-vit-base",),
        title="UrFound, ViT-B/16, fundus photographs and OCT slices with descriptions",
        modality="retina",
        spec=urfound_spec,
        parameters=85_798_656,
        layout=LAYOUT_WITH_TEXT,
        source=Source(file="UrFound.pth", page="https://github.com/yukkai/UrFound (its link to a shared drive)"),
        licence="unknown",
        citation="Yu et al., UrFound: towards universal retinal foundation models via knowledge-guided masked modeling, 2024",
        paper="2408.05618",
        notes=("The code is MIT; of the weights no licence is stated.", "OCT slices are read as colour pictures too."),
    ),
)
