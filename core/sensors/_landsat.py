"""The bands that Landsat 8 and 9 share."""

from __future__ import annotations

from core.bands import Band
from core.sensors._optical import reflective, thermal

SOURCE = "USGS, What are the band designations for the Landsat satellites?: Landsat 8-9 OLI and TIRS."


def oli_bands() -> tuple[Band, ...]:
    """Give the bands of both instruments by the numbers of their files."""
    return (
        reflective("B1", 430, 450, 30),
        reflective("B2", 450, 510, 30),
        reflective("B3", 530, 590, 30),
        reflective("B4", 640, 670, 30),
        reflective("B5", 850, 880, 30),
        reflective("B6", 1570, 1650, 30),
        reflective("B7", 2110, 2290, 30),
        reflective("B8", 500, 680, 15),
        reflective("B9", 1360, 1380, 30),
        thermal("B10", 10600, 11190, 100),
        thermal("B11", 11500, 12510, 100),
    )
