"""The Operational Land Imager and Thermal Infrared Sensor of Landsat 8."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._landsat import SOURCE, oli_bands

SENSOR = Sensor(name="landsat8", title="Landsat 8 OLI and TIRS, 11 bands", bands=oli_bands(), source=SOURCE)
