"""Sentinel-2 MSI at the top of the atmosphere, all 13 bands."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._sentinel2 import SOURCE, msi_bands

SENSOR = Sensor(name="sentinel2_l1c", title="Sentinel-2 MSI Level-1C, 13 bands", bands=msi_bands(), source=SOURCE)
