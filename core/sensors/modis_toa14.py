"""MODIS at the top of the atmosphere, the 14 bands of SatVision-TOA at 1 km, in its order."""

from __future__ import annotations

from core.bands import Sensor
from core.sensors._optical import percent, thermal

SENSOR = Sensor(
    name="modis_toa14",
    title="MODIS Level-1B calibrated (MOD021KM, MYD021KM), 14 bands",
    bands=(
        percent("B01", 620, 670, 1000),
        percent("B02", 841, 876, 1000),
        percent("B03", 459, 479, 1000),
        percent("B06", 1628, 1652, 1000),
        percent("B07", 2105, 2155, 1000),
        thermal("B21", 3929, 3989, 1000),
        percent("B26", 1360, 1390, 1000),
        thermal("B27", 6535, 6895, 1000),
        thermal("B28", 7175, 7475, 1000),
        thermal("B29", 8400, 8700, 1000),
        thermal("B30", 9580, 9880, 1000),
        thermal("B31", 10780, 11280, 1000),
        thermal("B32", 11770, 12270, 1000),
        thermal("B33", 13185, 13485, 1000),
    ),
    source="NASA, MODIS Specifications (modis.gsfc.nasa.gov/about/specifications.php): bandwidths; bands 1-7 as aggregated "
    "to 1 km. Choice and order: Spradlin et al. 2024, arXiv 2411.17000.",
)
