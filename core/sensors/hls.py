"""Harmonized Landsat Sentinel-2: the six bands that both satellites have and that Prithvi reads."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._optical import reflective

SENSOR = Sensor(
    name="hls",
    title="Harmonized Landsat Sentinel-2 surface reflectance, 6 bands",
    bands=(
        reflective("blue", 450, 510, 30, aliases=("B02", "BLUE")),
        reflective("green", 530, 590, 30, aliases=("B03", "GREEN")),
        reflective("red", 640, 670, 30, aliases=("B04", "RED")),
        # L30 calls these three B05 B06 B07, S30 B8A B11 B12; S30's own B05 to B07 are red edge and no aliases here.
        reflective("nir_narrow", 850, 880, 30, aliases=("B8A", "NIR_NARROW")),
        reflective("swir1", 1570, 1650, 30, aliases=("B11", "SWIR_1")),
        reflective("swir2", 2110, 2290, 30, aliases=("B12", "SWIR_2")),
    ),
    source="NASA, Harmonized Landsat Sentinel-2 Product User Guide v2.0, table of spectral bands: OLI wavelengths.",
)
