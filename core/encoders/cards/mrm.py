"""MRM (Zhou et al., ICLR 2023, arXiv 2301.13155): chest radiographs and their reports, masked together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from core.contract import Normalisation
from core.encoders.cards._vit import MAE_LAYOUT, picture, vit_spec
from core.encoders.cards.base import Card, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec

LAYOUT_WITH_TEXT = replace(MAE_LAYOUT, drop=(*MAE_LAYOUT.drop, "bert_encoder.*", "bert_mlp.*"))
"""MAE's beside a text branch, which an encoder of images has no use for; UrFound's too."""
_SPACE = Normalisation(method="fixed", mean=(0.4978,) * 3, std=(0.2449,) * 3)


def mrm_spec() -> ViTSpec:
    """Describe the released encoder: ViT-B/16, 224 x 224 pixels, one gray image in all three bands."""
    return vit_spec("base", picture(name="radiograph", normalisation=_SPACE))


CARDS = (
    Card(
        name="mrm",
        aliases=("mrm-vit-base",),
        title="MRM, ViT-B/16, chest radiographs with reports (MIMIC-CXR)",
        modality="chest x-ray",
        spec=mrm_spec,
        parameters=85_798_656,
        layout=LAYOUT_WITH_TEXT,
        source=Source(file="MRM.pth", page="https://github.com/RL4M/MRM-pytorch (its link to a shared drive)"),
        licence="unknown",
        citation="Zhou et al., Advancing radiograph representation learning with masked record modeling, ICLR 2023",
        paper="2301.13155",
        reported=(("CheXpert, 1 % of labels", "mean AUC", "88.5"),),
        notes=("Trained on MIMIC-CXR, whose terms of use may bind what is derived from it.",),
    ),
)
