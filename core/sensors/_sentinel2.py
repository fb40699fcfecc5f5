"""The bands of the MultiSpectral Instrument as Sentinel-2A carries it."""

from __future__ import annotations

from core.bands import Band

SOURCE = (
    "ESA, Sentinel-2 MSI User Guide, spatial resolution: central wavelengths and bandwidths of Sentinel-2A; those of "
    "2B and 2C differ by a few nm."
)

_TABLE = (
    ("B01", 442.7, 21, 60),
    ("B02", 492.4, 66, 10),
    ("B03", 559.8, 36, 10),
    ("B04", 664.6, 31, 10),
    ("B05", 704.1, 15, 20),
    ("B06", 740.5, 15, 20),
    ("B07", 782.8, 20, 20),
    ("B08", 832.8, 106, 10),
    ("B8A", 864.7, 21, 20),
    ("B09", 945.1, 20, 60),
    ("B10", 1373.5, 31, 60),
    ("B11", 1613.7, 91, 20),
    ("B12", 2202.4, 175, 20),
)


def msi_bands(*, without: tuple[str, ...] = ()) -> tuple[Band, ...]:
    """Give the bands in the order of the product; `B1` is an alias of `B01`."""
    return tuple(
        Band(
            name=name,
            centre_nm=centre,
            width_nm=width,
            unit="reflectance",
            resolution_m=resolution,
            low=-0.2,
            high=2.0,
            aliases=(name.replace("B0", "B"),) if name.startswith("B0") else (),
        )
        for name, centre, width, resolution in _TABLE
        if name not in without
    )
