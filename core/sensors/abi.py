"""The Advanced Baseline Imager of GOES-16 to 19, 16 bands: six reflective, ten thermal."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._optical import percent, thermal

SENSOR = Sensor(
    name="abi",
    title="GOES-R ABI Level-1b or cloud and moisture imagery, 16 bands",
    bands=(
        percent("C01", 450, 490, 1000),
        percent("C02", 590, 690, 500),
        percent("C03", 846, 885, 1000),
        percent("C04", 1371, 1386, 2000),
        percent("C05", 1580, 1640, 1000),
        percent("C06", 2225, 2275, 2000),
        thermal("C07", 3800, 4000, 2000),
        thermal("C08", 5770, 6600, 2000),
        thermal("C09", 6750, 7150, 2000),
        thermal("C10", 7240, 7440, 2000),
        thermal("C11", 8300, 8700, 2000),
        thermal("C12", 9420, 9800, 2000),
        thermal("C13", 10100, 10600, 2000),
        thermal("C14", 10800, 11600, 2000),
        thermal("C15", 11800, 12800, 2000),
        thermal("C16", 13000, 13600, 2000),
    ),
    source="Schmit et al. 2017, A Closer Look at the ABI on the GOES-R Series, Bull. Amer. Meteor. Soc. 98, table 1: "
    "wavelength ranges and sub-satellite sampling.",
)
