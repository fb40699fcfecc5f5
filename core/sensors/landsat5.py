"""The Thematic Mapper of Landsat 4 and 5."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._optical import reflective, thermal

SENSOR = Sensor(
    name="landsat5",
    title="Landsat 5 TM, 7 bands",
    bands=(
        reflective("B1", 450, 520, 30, aliases=("SR_B1",)),
        reflective("B2", 520, 600, 30, aliases=("SR_B2",)),
        reflective("B3", 630, 690, 30, aliases=("SR_B3",)),
        reflective("B4", 760, 900, 30, aliases=("SR_B4",)),
        reflective("B5", 1550, 1750, 30, aliases=("SR_B5",)),
        thermal("B6", 10400, 12500, 120),
        reflective("B7", 2080, 2350, 30, aliases=("SR_B7",)),
    ),
    source="USGS, What are the band designations for the Landsat satellites?: Landsat 4-5 TM.",
)
