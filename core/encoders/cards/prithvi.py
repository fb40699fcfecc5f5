"""Prithvi-EO 1.0 (Jakubik et al. 2023, arXiv 2310.18660) and 2.0 (Szwarcman et al. 2024, arXiv 2412.02732): MAE on HLS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core.contract import Contract, Input, Normalisation
from core.encoders.cards.base import Card, Layout, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec

BANDS = ("blue", "green", "red", "nir_narrow", "swir1", "swir2")
_STATISTICS = {
    1: (
        (775.229, 1080.993, 1228.586, 2497.202, 2204.214, 1610.832),
        (1281.526, 1270.030, 1399.480, 1368.345, 1291.676, 1154.506),
    ),
    2: ((1087.0, 1342.0, 1433.0, 2734.0, 1958.0, 1363.0), (2248.0, 2179.0, 2178.0, 1850.0, 1242.0, 1049.0)),
}
"""Mean and standard deviation of each version, in counts of 1/10000 reflectance."""
_SIZES = {
    "tiny": (192, 12, 3, 16),
    "100m": (768, 12, 12, 16),
    "300m": (1024, 24, 16, 16),
    "600m": (1280, 32, 16, 14),
}


def hls_inputs(version: int, patch: int, frames: int) -> tuple[Input, Input]:
    """Describe its inputs: a series of scenes (frames, Y, X), and one scene alone, both as reflectance in 0..1."""
    mean, std = (tuple(number / 10000 for number in numbers) for numbers in _STATISTICS[version])
    values = Normalisation(method="fixed", mean=mean, std=std, full_scale=False)
    scene = Input(
        name="scene",
        bands=BANDS,
        sensor="hls",
        patch=(patch, patch),
        size=(224, 224),
        spacing=(30.0, 30.0),
        unit="m",
        normalisation=values,
    )
    series = Input(
        name="series",
        bands=BANDS,
        sensor="hls",
        patch=(1, patch, patch),
        size=(frames, 224, 224),
        spacing=(1.0, 30.0, 30.0),
        unit="m",
        normalisation=values,
    )
    return scene, series


def prithvi_spec(version: int, size: str) -> ViTSpec:
    """Describe an encoder; positions count frames and patches, whatever their number and the spacing."""
    from core.encoders.vit import ViTSpec
    from core.pos_embed import PositionRule

    width, depth, heads, patch = _SIZES[size]
    return ViTSpec(
        contract=Contract(inputs=hls_inputs(version, patch, frames=3 if version == 1 else 4)),
        width=width,
        depth=depth,
        heads=heads,
        positions=PositionRule(count="index", shares=(6, 6, 4)),
    )


_NOTES = (
    "A file of 2 axes is read as one scene, one of 3 axes as a series of (frames, Y, X) of any length; training had {} frames.",
    "Landsat and Sentinel-2 number the bands of HLS otherwise: name them blue, green, red, nir_narrow, swir1, swir2.",
)
_DATES = "The codes of date and place of the TL models are left out, as the release does where neither is given."


def _second(size: str, parameters: int, *, with_dates: bool) -> Card:
    """Give a card of version 2."""
    written = "tiny" if size == "tiny" else size.upper()
    repo = f"Prithvi-EO-2.0-{written}" + ("-TL" if with_dates else "")
    return Card(
        name=f"prithvi-eo-2.0-{size}" + ("-tl" if with_dates else ""),
        aliases=("prithvi", "prithvi-eo-2.0") if size == "300m" and not with_dates else (),
        title=f"Prithvi-EO 2.0 {written}{' TL' if with_dates else ''}, HLS in 6 bands, series or scenes",
        modality="satellite",
        spec=partial(prithvi_spec, 2, size),
        parameters=parameters,
        layout=Layout(
            outer=("model",),
            prefixes=("encoder.",),
            drop=("pos_embed", "temporal_embed_enc.*", "location_embed_enc.*", "decoder.*"),
            convert="core.layouts.prithvi",
            given="spec",
        ),
        source=Source(
            repo=f"ibm-nasa-geospatial/{repo}",
            file=f"Prithvi_EO_V2_{written}{'_TL' if with_dates else ''}.pt",
        ),
        licence="Apache-2.0",
        citation="Szwarcman et al., Prithvi-EO-2.0: a versatile multi-temporal foundation model for Earth observation "
        "applications, 2024",
        paper="2412.02732",
        notes=(_NOTES[0].format(4), _NOTES[1], *((_DATES,) if with_dates else ())),
    )


CARDS = (
    Card(
        name="prithvi-eo-1.0-100m",
        aliases=("prithvi-eo-1.0",),
        title="Prithvi-EO 1.0 100M, HLS in 6 bands, series or scenes",
        modality="satellite",
        spec=partial(prithvi_spec, 1, "100m"),
        parameters=86_237_184,
        layout=Layout(
            outer=("model",),
            prefixes=("encoder.",),
            drop=("pos_embed", "mask_token", "decoder_*", "decoder.*"),
            convert="core.layouts.prithvi",
            given="spec",
        ),
        source=Source(repo="ibm-nasa-geospatial/Prithvi-EO-1.0-100M", file="Prithvi_EO_V1_100M.pt"),
        licence="Apache-2.0",
        citation="Jakubik et al., Foundation models for generalist geospatial artificial intelligence, 2023",
        paper="2310.18660",
        notes=(_NOTES[0].format(3), _NOTES[1]),
    ),
    _second("tiny", 5_634_048, with_dates=True),
    _second("100m", 86_237_184, with_dates=True),
    _second("300m", 303_886_336, with_dates=False),
    _second("300m", 303_886_336, with_dates=True),
    _second("600m", 631_188_480, with_dates=False),
    _second("600m", 631_188_480, with_dates=True),
)
