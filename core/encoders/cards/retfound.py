"""RETFound (Zhou et al. 2023, Nature 622): MAE continued from ImageNet on retinal photographs or OCT slices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from core.encoders.cards._vit import MAE_LAYOUT, picture, vit_spec
from core.encoders.cards.base import Card, Source

if TYPE_CHECKING:
    from core.encoders.vit import ViTSpec

Kind = Literal["photograph", "oct"]


def retfound_spec(kind: Kind) -> ViTSpec:
    """Describe a released encoder: ViT-L/16, 224 x 224 pixels, colours as ImageNet; OCT slices are gray, three times."""
    return vit_spec("large", picture(name=kind))


def _card(name: str, file: str, kind: Kind, about: str, *, aliases: tuple[str, ...] = (), note: str = "") -> Card:
    return Card(
        name=name,
        aliases=aliases,
        title=f"RETFound, ViT-L/16, {about}",
        modality="retina",
        spec=partial(retfound_spec, kind),
        parameters=303_301_632,
        layout=MAE_LAYOUT,
        source=Source(repo=f"YukunZhou/{file}", file=f"{file}.pth"),
        licence="CC-BY-NC-4.0",
        gated=True,
        non_commercial=True,
        citation="Zhou et al., A foundation model for generalizable disease detection from retinal images, Nature 2023",
        notes=(
            "The file holds decoder and optimiser too, about 4 GB.",
            "Its maintainers advise at least a linear probe: raw features hardly separate classes.",
            *((note,) if note else ()),
        ),
    )


CARDS = (
    _card("retfound-cfp", "RETFound_mae_natureCFP", "photograph", "colour fundus photographs", aliases=("retfound",)),
    _card("retfound-oct", "RETFound_mae_natureOCT", "oct", "OCT slices"),
    _card(
        "retfound-meh",
        "RETFound_mae_meh",
        "photograph",
        "photographs of Moorfields Eye Hospital",
        note="The authors' task checkpoints were fine-tuned from this one.",
    ),
    _card("retfound-shanghai", "RETFound_mae_shanghai", "photograph", "photographs of Shanghai"),
)
