"""Aerial photographs of the National Agriculture Imagery Program, four bands of 8 bit."""

from __future__ import annotations

from core.bands import Band, Sensor

SENSOR = Sensor(
    name="naip",
    title="NAIP aerial photographs, red, green, blue and near infrared",
    bands=tuple(
        Band(
            name=name,
            centre_nm=(first + last) / 2,
            width_nm=last - first,
            unit="full scale",
            resolution_m=1,
            low=0.0,
            high=1.0,
        )
        for name, first, last in (
            ("red", 619, 651),
            ("green", 525, 585),
            ("blue", 435, 495),
            ("nir", 808, 882),
        )
    ),
    source="USDA, NAIP Information Sheet: bands and 1 m sampling (0.6 m since 2018); wavelengths of the Leica ADS100 camera, "
    "others are flown too.",
)
