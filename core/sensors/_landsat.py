"""The bands that Landsat 8 and 9 share."""

from __future__ import annotations

from core.bands import Band
from core.sensors._optical import reflective, thermal

SOURCE = "USGS, What are the band designations for the Landsat satellites?: Landsat 8-9 OLI and TIRS."


def oli_bands() -> tuple[Band, ...]:
    """Give the bands of both instruments by the numbers of their files; `SR_B4` is the surface's B4, of Level-2 files."""
    return (
        reflective("B1", 430, 450, 30, aliases=("SR_B1",)),
        reflective("B2", 450, 510, 30, aliases=("SR_B2",)),
        reflective("B3", 530, 590, 30, aliases=("SR_B3",)),
        reflective("B4", 640, 670, 30, aliases=("SR_B4",)),
        reflective("B5", 850, 880, 30, aliases=("SR_B5",)),
        reflective("B6", 1570, 1650, 30, aliases=("SR_B6",)),
        reflective("B7", 2110, 2290, 30, aliases=("SR_B7",)),
        reflective("B8", 500, 680, 15),
        reflective("B9", 1360, 1380, 30),
        thermal("B10", 10600, 11190, 100),
        thermal("B11", 11500, 12510, 100),
    )
