"""FG-MAE (Wang et al. 2023, arXiv 2310.18653): ViT trained on SSL4EO-S12 to predict gradients and indices, not pixels."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from core.contract import Input, Normalisation
from core.encoders.cards._vit import MAE_LAYOUT, Size, vit_spec
from core.encoders.cards.base import Card, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec

Sensor = Literal["s1", "s2"]

MSI_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
SAR_BANDS = ("VV", "VH")
SAR_MEAN = (-12.54847273, -20.19237134)
"""Of the training scenes in dB."""
SAR_STD = (5.25697717, 5.91150917)


def fgmae_input(sensor: Sensor, patch: int) -> Input:
    """Describe its input at 10 m, 224 x 224 pixels.

    `s2`: reflectance at the top of the atmosphere, cut off at 0 and 1 as the authors' bytes are. `s1`: backscatter in dB;
    two standard deviations to both sides of the mean are 0..1, cut off there.
    """
    low = tuple(m - 2 * s for m, s in zip(SAR_MEAN, SAR_STD, strict=True))
    spaces = {
        "s2": Normalisation(
            method="fixed", mean=(0.0,) * 13, std=(1.0,) * 13, clip=((0.0, 1.0),) * 13, full_scale=False
        ),
        "s1": Normalisation(
            method="fixed",
            mean=low,
            std=tuple(4 * s for s in SAR_STD),
            clip=tuple((m - 2 * s, m + 2 * s) for m, s in zip(SAR_MEAN, SAR_STD, strict=True)),
            full_scale=False,
        ),
    }
    return Input(
        name={"s2": "multispectral", "s1": "radar"}[sensor],
        bands={"s2": MSI_BANDS, "s1": SAR_BANDS}[sensor],
        patch=(patch, patch),
        size=(224, 224),
        spacing=(10.0, 10.0),
        unit="m",
        normalisation=spaces[sensor],
        sensor={"s2": "sentinel2_l1c", "s1": "sentinel1"}[sensor],
    )


def fgmae_spec(sensor: Sensor, size: Size) -> ViTSpec:
    """Describe a released encoder: `small`, `base`, `large` with patch 16, `huge` with patch 14."""
    return vit_spec(size, fgmae_input(sensor, 14 if size == "huge" else 16))


_LAYOUT = replace(MAE_LAYOUT, drop=(*MAE_LAYOUT.drop, "hog.*"))
_BANDS = {"s2": "13 Sentinel-2 L1C bands", "s1": "Sentinel-1 VV and VH"}
_NOTES = {
    "s2": ("Values are reflectance 0..1: digital numbers over 10000; products since 2022 subtract 1000 first.",),
    "s1": (
        "Values are dB, not linear power.",
        "The authors cut off at quantiles of mixed bands; here at mean +- 2 std.",
    ),
}


def _card(sensor: Sensor, size: Size, parameters: int) -> Card:
    short, patch = size[0], 14 if size == "huge" else 16
    stem = f"{'B13' if sensor == 's2' else 'B2'}_vit{short}{patch}_fgmae_ep{'399' if size == 'huge' else '99'}"
    return Card(
        name=f"fgmae-{sensor}-vit{short}{patch}",
        aliases=(f"fgmae-{sensor}-{size}",) + ((f"fgmae-{sensor}",) if size == "base" else ()),
        title=f"FG-MAE, ViT-{short.upper()}/{patch}, {_BANDS[sensor]} at 10 m",
        modality="satellite",
        spec=partial(fgmae_spec, sensor, size),
        parameters=parameters,
        layout=_LAYOUT,
        source=Source(repo="wangyi111/FGMAE", file=f"{stem}.pth" if size == "small" else f"{stem}_enc.pth"),
        licence="CC-BY-4.0",
        citation="Wang et al., Feature guided masked autoencoder for self-supervised learning in remote sensing, JSTARS 2025",
        paper="2310.18653",
        reported=(("EuroSAT-SAR, over MAE", "accuracy", "up to +5 points"),) if sensor == "s1" else (),
        notes=_NOTES[sensor],
    )


CARDS = (
    _card("s1", "small", 21_567_360),
    _card("s1", "base", 85_602_048),
    _card("s1", "large", 303_039_488),
    _card("s1", "huge", 630_513_920),
    _card("s2", "small", 22_648_704),
    _card("s2", "base", 87_764_736),
    _card("s2", "large", 305_923_072),
    _card("s2", "huge", 633_273_600),
)
