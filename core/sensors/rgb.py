"""Colour photographs and pictures that were made of scenes: red, green, blue."""

from __future__ import annotations

from core.bands import Band, Sensor

SENSOR = Sensor(
    name="rgb",
    title="Colour pictures",
    bands=tuple(
        Band(
            name=name,
            centre_nm=centre,
            width_nm=100.0,
            unit="full scale",
            resolution_m=None,
            low=0.0,
            high=1.0,
        )
        for name, centre in (("red", 650.0), ("green", 550.0), ("blue", 470.0))
    ),
    source="Convention: about where the red, green and blue bands of imagers lie; no camera is meant.",
)
