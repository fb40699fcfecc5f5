"""The Enhanced Thematic Mapper Plus of Landsat 7; its thermal band is delivered at two gains."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._optical import reflective, thermal

SENSOR = Sensor(
    name="landsat7",
    title="Landsat 7 ETM+, 8 bands",
    bands=(
        reflective("B1", 450, 520, 30, aliases=("SR_B1",)),
        reflective("B2", 520, 600, 30, aliases=("SR_B2",)),
        reflective("B3", 630, 690, 30, aliases=("SR_B3",)),
        reflective("B4", 770, 900, 30, aliases=("SR_B4",)),
        reflective("B5", 1550, 1750, 30, aliases=("SR_B5",)),
        thermal("B6_VCID_1", 10400, 12500, 60, aliases=("B6", "B61")),
        thermal("B6_VCID_2", 10400, 12500, 60, aliases=("B62",)),
        reflective("B7", 2090, 2350, 30, aliases=("SR_B7",)),
        reflective("B8", 520, 900, 15),
    ),
    source="USGS, What are the band designations for the Landsat satellites?: Landsat 7 ETM+.",
)
