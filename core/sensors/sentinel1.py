"""Sentinel-1 synthetic aperture radar at 5.405 GHz, two polarisations in dB."""

from __future__ import annotations

from core.bands import Band, Sensor

# Noise floor of the mode is about -22 dB, so that calm water in VH reads -35 dB at the least; a corner of a city reaches +20.
_RANGE = (-60.0, 40.0)

SENSOR = Sensor(
    name="sentinel1",
    title="Sentinel-1 C-band SAR, ground range detected, VV and VH backscatter in dB",
    bands=tuple(
        Band(
            name=name,
            centre_nm=None,
            width_nm=None,
            unit="dB",
            resolution_m=10,
            low=_RANGE[0],
            high=_RANGE[1],
        )
        for name in ("VV", "VH")
    ),
    source="ESA, Sentinel-1 SAR User Guide: interferometric wide swath, ground range detected high resolution, pixel spacing "
    "10 m, noise equivalent sigma zero -22 dB.",
)
