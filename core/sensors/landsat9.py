"""The Operational Land Imager 2 and Thermal Infrared Sensor 2 of Landsat 9."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._landsat import SOURCE, oli_bands

SENSOR = Sensor(name="landsat9", title="Landsat 9 OLI-2 and TIRS-2, 11 bands", bands=oli_bands(), source=SOURCE)
