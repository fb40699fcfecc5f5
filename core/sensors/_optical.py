"""How tables of optical bands are written down: name and the edges of the response, in nm."""

from __future__ import annotations

from core.bands import Band, BandNames

# Plausible values, generous on purpose: they are to catch wrong units, not rare scenes. Reflectance is a little below 0 where
# atmospheric correction or noise takes it there, and above 1 over bright clouds under a low sun. Space seen beside the Earth is
# no measured pixel; fires reach 500 K at 4 um.
_REFLECTANCE = (-0.2, 2.0)
_KELVIN = (140.0, 510.0)


def reflective(
    name: str, first_nm: float, last_nm: float, resolution_m: float | None, *, aliases: BandNames = ()
) -> Band:
    """Describe a band whose numbers are reflectance, 0..1."""
    return Band(
        name=name,
        centre_nm=(first_nm + last_nm) / 2,
        width_nm=last_nm - first_nm,
        unit="reflectance",
        resolution_m=resolution_m,
        low=_REFLECTANCE[0],
        high=_REFLECTANCE[1],
        aliases=aliases,
    )


def percent(name: str, first_nm: float, last_nm: float, resolution_m: float | None) -> Band:
    """Describe a band whose numbers are reflectance in percent, 0..100."""
    return Band(
        name=name,
        centre_nm=(first_nm + last_nm) / 2,
        width_nm=last_nm - first_nm,
        unit="percent reflectance",
        resolution_m=resolution_m,
        low=100 * _REFLECTANCE[0],
        high=100 * _REFLECTANCE[1],
    )


def thermal(name: str, first_nm: float, last_nm: float, resolution_m: float | None, *, aliases: BandNames = ()) -> Band:
    """Describe a band whose numbers are brightness temperature in K."""
    return Band(
        name=name,
        centre_nm=(first_nm + last_nm) / 2,
        width_nm=last_nm - first_nm,
        unit="K",
        resolution_m=resolution_m,
        low=_KELVIN[0],
        high=_KELVIN[1],
        aliases=aliases,
    )
