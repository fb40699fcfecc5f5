"""The Visible Infrared Imaging Radiometer Suite of Suomi NPP and NOAA-20 on, its 16 moderate bands."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._optical import reflective, thermal

SENSOR = Sensor(
    name="viirs_m",
    title="VIIRS moderate resolution bands",
    bands=(
        reflective("M01", 402, 422, 750, aliases=("M1",)),
        reflective("M02", 436, 454, 750, aliases=("M2",)),
        reflective("M03", 478, 498, 750, aliases=("M3",)),
        reflective("M04", 545, 565, 750, aliases=("M4",)),
        reflective("M05", 662, 682, 750, aliases=("M5",)),
        reflective("M06", 739, 754, 750, aliases=("M6",)),
        reflective("M07", 846, 885, 750, aliases=("M7",)),
        reflective("M08", 1230, 1250, 750, aliases=("M8",)),
        reflective("M09", 1371, 1386, 750, aliases=("M9",)),
        reflective("M10", 1580, 1640, 750),
        reflective("M11", 2225, 2275, 750),
        thermal("M12", 3610, 3790, 750),
        thermal("M13", 3973, 4128, 750),
        thermal("M14", 8400, 8700, 750),
        thermal("M15", 10263, 11263, 750),
        thermal("M16", 11538, 12488, 750),
    ),
    source="NOAA, VIIRS Sensor Data Record User's Guide (NESDIS Technical Report 142), table of VIIRS bands: centre and width.",
)
