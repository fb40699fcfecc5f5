"""Sentinel-2 MSI at the surface: 12 bands, since the cirrus band B10 sees no surface and is not delivered."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._sentinel2 import SOURCE, msi_bands

SENSOR = Sensor(
    name="sentinel2_l2a",
    title="Sentinel-2 MSI Level-2A, 12 bands",
    bands=msi_bands(without=("B10",)),
    source=SOURCE,
)
