"""Uni4Eye (Cai et al. 2022, arXiv 2203.04614): one ViT for ophthalmic images of both ranks, as its sequel was released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.contract import Normalisation
from core.encoders.cards._vit import picture, vit_spec
from core.encoders.cards.base import Card, Layout, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec

_SPACE = Normalisation(method="fixed", mean=(0.0,) * 3, std=(1.0,) * 3)


def uni4eye_spec() -> ViTSpec:
    """Describe the part for photographs: ViT-L/16, 224 x 224 pixels, values 0..1, blue first as OpenCV reads them."""
    entry = picture(name="photograph", bands=("blue", "green", "red"), normalisation=_SPACE)
    return vit_spec("large", entry)


CARDS = (
    Card(
        name="uni4eye",
        aliases=("uni4eye-vit-large",),
        title="Uni4Eye++, ViT-L/16, ophthalmic photographs (its 2D part)",
        modality="retina",
        spec=uni4eye_spec,
        parameters=303_301_632,
        layout=Layout(
            drop=(
                "patch_embed.proj3.*",
                "pos_embed3",
                "mask_token*",
                "decoder_*",
                "controller.*",
                "mlp.*",
                "head.*",
            ),
            convert="core.layouts.uni4eye",
        ),
        source=Source(file="uni4eye.pth", page="https://github.com/Davidczy/Uni4Eye_pp (its link to a shared drive)"),
        licence="unknown",
        citation="Cai et al., Uni4Eye: unified 2D and 3D self-supervised pre-training via masked image modeling, MICCAI 2022",
        paper="2203.04614",
        notes=(
            "The part for volumes is left out: the released code gives it constant positions and never trains it.",
            "Neither code nor weights come with a licence.",
        ),
    ),
)
