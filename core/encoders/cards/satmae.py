"""SatMAE (Cong et al. 2022, arXiv 2207.08051): MAE on Sentinel-2 with a token per band group, on RGB of fMoW, on dated RGB."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from core.bands import RGB
from core.contract import Contract, Input, Normalisation
from core.encoders.cards._vit import MAE_LAYOUT, SIZES, picture, vit_spec
from core.encoders.cards.base import Card, Layout, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec

GROUPS = (("B02", "B03", "B04", "B08"), ("B05", "B06", "B07", "B8A"), ("B11", "B12"))
"""Bands that share a token, by resolution and place in the spectrum; the file's own order is that of the product."""
BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_MEAN = (1184.382, 1120.771, 1136.260, 1263.739, 1645.403, 1846.870, 1762.595, 1972.624, 1732.164, 1247.919)
_STD = (650.284, 712.125, 965.231, 948.982, 1108.067, 1258.364, 1233.149, 1364.387, 1310.370, 1087.602)
"""Of fMoW-Sentinel, in counts of 1/10000 reflectance."""
_FMOW = Normalisation(method="fixed", mean=(0.4182, 0.4215, 0.3991), std=(0.2877, 0.2754, 0.2764))
"""Of fMoW's RGB, in 0..1."""


def sentinel2_input() -> Input:
    """Describe the input of the models with band groups: reflectance of 96 x 96 pixels of 10 m.

    The range mean - 2 std to mean + 2 std becomes 0..1, and what lies beyond is cut off. Deviations: the release rounds to
    256 levels in between.
    """
    low = tuple((mean - 2 * std) / 10000 for mean, std in zip(_MEAN, _STD, strict=True))
    width = tuple(4 * std / 10000 for std in _STD)
    return Input(
        name="sentinel2",
        bands=BANDS,
        sensor="sentinel2_l1c",
        groups=GROUPS,
        patch=(8, 8),
        size=(96, 96),
        spacing=(10.0, 10.0),
        unit="m",
        normalisation=Normalisation(
            method="fixed",
            mean=low,
            std=width,
            clip=tuple((least, least + wide) for least, wide in zip(low, width, strict=True)),
            full_scale=False,
        ),
    )


def rgb_spec() -> ViTSpec:
    """Describe the RGB encoder: 224 x 224 pixels of fMoW in 0..1, of no particular size on the ground."""
    return vit_spec("large", picture(name="scene", normalisation=_FMOW))


def temporal_spec() -> ViTSpec:
    """Describe the encoder of three dated RGB frames of 224 x 224 pixels, a patch of 16 x 16 of one frame each."""
    from core.encoders.vit import ViTSpec
    from core.pos_embed import PositionRule

    width, depth, heads = SIZES["large"]
    series = Input(
        name="series",
        bands=RGB,
        sensor="rgb",
        patch=(1, 16, 16),
        size=(3, 224, 224),
        spacing=(1.0, 1.0, 1.0),
        unit="px",
        normalisation=_FMOW,
    )
    return ViTSpec(
        contract=Contract(inputs=(series,)),
        width=width,
        depth=depth,
        heads=heads,
        positions=PositionRule(count="index", shares=(5, 5, 6), frames="time"),
    )


def _sentinel(size: Literal["base", "large"], parameters: int, accuracy: str) -> tuple[Card, Card]:
    """Give the cards of one size: pretrained, and fine-tuned on fMoW-Sentinel."""
    common: dict[str, Any] = {
        "modality": "satellite",
        "spec": partial(vit_spec, size, sentinel2_input()),
        "layout": Layout(outer=("model",), drop=("decoder_*", "mask_token", "head.*"), convert="core.layouts.satmae"),
        "licence": "CC-BY-NC-4.0",
        "non_commercial": True,
        "citation": _CITATION,
        "paper": "2207.08051",
    }
    letter = size[0].upper()
    return (
        Card(
            name=f"satmae-{size}",
            aliases=("satmae",) if size == "large" else (),
            title=f"SatMAE ViT-{letter}/8, 10 Sentinel-2 bands in 3 groups, pretrained",
            parameters=parameters,
            source=_zenodo(7338613, f"pretrain-vit-{size}-e199.pth"),
            reported=(("fMoW-Sentinel after fine-tuning", "top-1", accuracy),),
            notes=(*_NOTES, "The file holds the decoder too."),
            **common,
        ),
        Card(
            name=f"satmae-{size}-finetuned",
            title=f"SatMAE ViT-{letter}/8, 10 Sentinel-2 bands in 3 groups, fine-tuned on fMoW-Sentinel",
            parameters=parameters + 256,  # the class token's code
            source=_zenodo(7338613, f"finetune-vit-{size}-e7.pth"),
            reported=(("fMoW-Sentinel", "top-1", accuracy),),
            notes=_NOTES,
            pool="mean_then_norm",
            **common,
        ),
    )


def _zenodo(record: int, file: str) -> Source:
    return Source(url=f"https://zenodo.org/record/{record}/files/{file}", file=file)


_CITATION = "Cong et al., SatMAE: pre-training transformers for temporal and multi-spectral satellite imagery, 2022"
_NOTES = (
    "Bands B01, B09 and B10 are not read; a group whose bands are all missing is left out, the others are encoded.",
    "The loss of the release compares predictions ordered by group with bands in file order; the encoder is as trained.",
)

CARDS = (
    *_sentinel("base", 85_625_600, "62.65 %"),
    *_sentinel("large", 303_083_008, "63.84 %"),
    Card(
        name="satmae-rgb-large",
        aliases=("satmae-rgb",),
        title="SatMAE ViT-L/16, RGB of fMoW, pretrained",
        modality="satellite",
        spec=rgb_spec,
        parameters=303_301_632,
        layout=MAE_LAYOUT,
        source=_zenodo(7369797, "fmow_pretrain.pth"),
        licence="CC-BY-NC-4.0",
        non_commercial=True,
        citation=_CITATION,
        paper="2207.08051",
        reported=(("fMoW-RGB after fine-tuning", "top-1", "77.78 %"),),
        notes=("An ordinary MAE, 800 epochs; its positions do not depend on the spacing.",),
    ),
    Card(
        name="satmae-temporal-large",
        aliases=("satmae-temporal",),
        title="SatMAE ViT-L/16, series of dated RGB frames of fMoW, pretrained",
        modality="satellite",
        spec=temporal_spec,
        parameters=303_225_984,
        layout=Layout(outer=("model",), drop=("decoder_*", "mask_token"), convert="core.layouts.satmae"),
        source=_zenodo(7369797, "pretrain_fmow_temporal.pth"),
        licence="CC-BY-NC-4.0",
        non_commercial=True,
        citation=_CITATION,
        paper="2207.08051",
        reported=(("fMoW-RGB, temporal, after fine-tuning", "top-1", "79.99 %"),),
        notes=(
            "Every frame needs its time: give the batch its `times`, (B, frames, 3), year, month and hour in UTC.",
            "Frames may lie anyhow far apart, in any order; training had three, for 50 epochs.",
            "The file holds the decoder too; a fine-tuned one, whose positions were trained, is refused.",
        ),
    ),
)
