"""RemoteCLIP (Liu et al. 2023, arXiv 2306.11029): OpenAI's CLIP, trained on with captions of remote-sensing images."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from core.contract import Contract, Input, Normalisation
from core.encoders.cards._vit import SIZES, Size, picture
from core.encoders.cards.base import Card, Layout, Source

if TYPE_CHECKING:
    from core.encoders.resnet import ResNetSpec
    from core.encoders.vit import ViTSpec

_SIZES: dict[str, tuple[Size, int]] = {"b-32": ("base", 32), "l-14": ("large", 14)}


def clip_input(patch: int) -> Input:
    """Describe CLIP's input: 224 x 224 pixels by the statistics of its own pictures, of no known size on the ground."""
    values = Normalisation(
        method="fixed",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )
    return picture(name="scene", patch=patch, normalisation=values)


def clip_spec(size: Literal["b-32", "l-14"]) -> ViTSpec:
    """Describe CLIP's image tower with the activation of OpenAI's weights, which RemoteCLIP began from."""
    from core.encoders.vit import ViTSpec

    name, patch = _SIZES[size]
    width, depth, heads = SIZES[name]
    entry = clip_input(patch)
    return ViTSpec(
        contract=Contract(inputs=(entry,)),
        width=width,
        depth=depth,
        heads=heads,
        tables={entry.name: entry.grid().tokens},
        train_tables=True,
        activation="quick_gelu",
        norm_first=True,
        norm_eps=1e-5,
    )


def clip_resnet_spec() -> ResNetSpec:
    """Describe the image tower of CLIP's RN50."""
    from core.encoders.resnet import ResNetSpec

    return ResNetSpec(contract=Contract(inputs=(clip_input(32),)), width=64, depths=(3, 4, 6, 3), heads=32)


TEXT_TOWER = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "attn_mask",
    "transformer.*",
    "token_embedding.*",
    "ln_final.*",
)
"""Keys beside the image tower."""
_CITATION = "Liu et al., RemoteCLIP: a vision language foundation model for remote sensing, 2023"
_REPORTED = (("RSITMD and RSICD retrieval", "mean recall over the previous best", "+9.14 % and +8.92 %"),)
_LICENCE = "The code is Apache-2.0; the page of the weights states no licence."
_NOTES = (
    "The activation is quick_gelu, as in OpenAI's weights; the authors' first example builds the model with gelu, which loads "
    "as well and gives other features. Not verified against the published files.",
    "Features are those of the class token before the projection to the space of texts; see core.layouts.open_clip.",
    _LICENCE,
)


def _vit(size: Literal["b-32", "l-14"], parameters: int) -> Card:
    return Card(
        name=f"remoteclip-vit-{size}",
        aliases=("remoteclip",) if size == "l-14" else (),
        title=f"RemoteCLIP ViT-{size.upper().replace('-', '/')}, RGB, image tower",
        modality="satellite",
        spec=partial(clip_spec, size),
        parameters=parameters,
        layout=Layout(drop=(*TEXT_TOWER, "visual.proj"), convert="core.layouts.open_clip", given="spec"),
        source=Source(repo="chendelong/RemoteCLIP", file=f"RemoteCLIP-ViT-{size.upper()}.pt"),
        licence="unknown",
        citation=_CITATION,
        paper="2306.11029",
        reported=_REPORTED,
        notes=_NOTES,
        pool="cls",
    )


CARDS = (
    _vit("b-32", 87_456_000),
    _vit("l-14", 303_179_776),
    Card(
        name="remoteclip-rn50",
        title="RemoteCLIP ResNet-50, RGB, image tower",
        modality="satellite",
        spec=clip_resnet_spec,
        parameters=36_218_720,
        layout=Layout(
            drop=(*TEXT_TOWER, "visual.attnpool.c_proj.*", "visual.*.num_batches_tracked"),
            convert="core.layouts.clip_resnet",
            given="spec",
        ),
        source=Source(repo="chendelong/RemoteCLIP", file="RemoteCLIP-RN50.pt"),
        licence="unknown",
        citation=_CITATION,
        paper="2306.11029",
        reported=_REPORTED,
        notes=(
            "Norms keep their stored statistics, also in training.",
            "Features are those of the attention pooling before the projection to the space of texts.",
            _LICENCE,
        ),
        pool="cls",
    ),
)
