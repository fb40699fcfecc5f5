"""SatVision-TOA (Spradlin et al. 2024, arXiv 2411.17000): Swin V2 trained by SimMIM on 14 MODIS bands at 1 km."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from core.contract import Contract, Input, Normalisation
from core.encoders.cards.base import Card, Layout, Source

if TYPE_CHECKING:
    from core.encoders.swinv2 import SwinV2Spec

Size = Literal["giant", "huge", "base"]

BANDS = ("B01", "B02", "B03", "B06", "B07", "B21", "B26", "B27", "B28", "B29", "B30", "B31", "B32", "B33")
COLDEST = {
    "B21": 223.1222,
    "B27": 178.9174,
    "B28": 204.3739,
    "B29": 204.7677,
    "B30": 194.8686,
    "B31": 202.1759,
    "B32": 201.3823,
    "B33": 203.3537,
}
"""Brightness temperature in K that becomes 0; what is colder becomes negative, nothing is clipped."""
HOTTEST = {
    "B21": 352.7182,
    "B27": 261.2920,
    "B28": 282.5529,
    "B29": 319.0373,
    "B30": 295.0209,
    "B31": 324.0677,
    "B32": 321.5254,
    "B33": 285.9848,
}
"""Brightness temperature in K that becomes 1."""

_SIZES = {
    "giant": (512, 42, (16, 32, 64, 128)),
    "huge": (352, 18, (4, 8, 16, 32)),
    "base": (128, 18, (4, 8, 16, 32)),
}


def satvision_input() -> Input:
    """Describe its input: percent reflectance and brightness temperature in K, 128 x 128 pixels of 1 km, patch 4."""
    low = tuple(COLDEST.get(band, 0.0) for band in BANDS)
    high = tuple(HOTTEST.get(band, 100.0) for band in BANDS)
    return Input(
        name="toa",
        bands=BANDS,
        patch=(4, 4),
        size=(128, 128),
        spacing=(1000.0, 1000.0),
        unit="m",
        normalisation=Normalisation(
            method="fixed", mean=low, std=tuple(h - c for h, c in zip(high, low, strict=True)), full_scale=False
        ),
        sensor="modis_toa14",
    )


def satvision_spec(size: Size, contract: Contract | None = None, *, drop_path: float = 0.1) -> SwinV2Spec:
    """Describe an encoder of these sizes.

    Args:
        size: `giant`, 2.6 billion parameters, and `huge`, 0.65 billion, are released; `base` has the numbers of Swin V2-B
            (Liu et al. 2021, arXiv 2111.09883), 87 million, and no released weights.
        contract: what it reads; none = what the released ones read.
        drop_path: stochastic depth of the last block; 0.1 in pretraining.
    """
    from core.encoders.swinv2 import SwinV2Spec

    width, third_stage, heads = _SIZES[size]
    return SwinV2Spec(
        contract=contract or Contract(inputs=(satvision_input(),)),
        width=width,
        depths=(2, 2, third_stage, 2),
        heads=heads,
        window=(8, 8),
        drop_path=drop_path,
        extra_norm_period=6,
    )


_LAYOUT = Layout(
    prefixes=("encoder.",),
    drop=(
        "decoder.0.weight",
        "decoder.0.bias",
        "mask_token",
        "*.relative_position_index",
        "*.relative_coords_table",
        "*.attn_mask",
    ),
    convert="core.layouts.simmim",
    given="spec",
)
_CITATION = "Spradlin et al., SatVision-TOA: a geospatial foundation model for coarse-resolution all-sky imagery, 2024"
_OWNER = "nasa-cisto-data-science-group"
_NOTES = (
    "'patch8' in the released name is the masked cell; the patch of the embedding is 4.",
    "Norms after every sixth block of a stage belong to the weights; the authors' fine-tuning code loses them.",
    "Bands 1, 2, 3, 6, 7, 26 are percent reflectance (not 0..1), the others brightness temperature in K.",
)

CARDS = (
    Card(
        name="satvision-toa-giant",
        aliases=("satvision", "satvision-giant"),
        title="SatVision-TOA giant, Swin V2, 14 MODIS bands at 1 km",
        modality="satellite",
        spec=partial(satvision_spec, "giant"),
        parameters=2_595_048_416,
        layout=_LAYOUT,
        source=Source(
            repo=f"{_OWNER}/satvision-toa-giant-patch8-window8-128",
            revision="85a86d788028f0cf23b737c4a042143585a385fc",
            file="mp_rank_00_model_states.pt",
        ),
        licence="Apache-2.0",
        citation=_CITATION,
        paper="2411.17000",
        reported=(("3-D cloud mask", "mIoU", "0.46 (fully convolutional baseline 0.22)"),),
        notes=(*_NOTES, "The file holds the decoder too, 5.31 GB in bfloat16."),
    ),
    Card(
        name="satvision-toa-huge",
        aliases=("satvision-huge",),
        title="SatVision-TOA huge, Swin V2, 14 MODIS bands at 1 km",
        modality="satellite",
        spec=partial(satvision_spec, "huge"),
        parameters=654_944_120,
        layout=_LAYOUT,
        source=Source(repo=f"{_OWNER}/satvision-toa-huge-patch8-window8-128", file="mp_rank_00_model_states.pt"),
        licence="Apache-2.0",
        citation=_CITATION,
        paper="2411.17000",
        notes=(*_NOTES, "The authors' notebook names this repository; it may ask for an account."),
    ),
)
