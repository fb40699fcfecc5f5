"""Planck's law for the thermal channels of MODIS and ABI, both ways, and the constants of both instruments.

A channel's radiance is that of one wavenumber at a temperature that a straight line corrects for the width of its filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Satellite = Literal["terra", "aqua"]

_PLANCK, _LIGHT, _BOLTZMANN = 6.62607015e-34, 2.99792458e8, 1.380649e-23
_C1 = 2 * _PLANCK * _LIGHT**2  # W m2 sr-1
_C2 = _PLANCK * _LIGHT / _BOLTZMANN  # m K


@dataclass(frozen=True, kw_only=True)
class Planck:
    """A channel's Planck function: of one wavenumber, with a straight line that makes up for the width of its filter.

    Attributes:
        wavenumber: effective centre, cm-1.
        slope: temperature of the one wavenumber = slope x brightness temperature + intercept.
        intercept: in K.
    """

    wavenumber: float
    slope: float
    intercept: float


@dataclass(frozen=True, kw_only=True)
class AbiPlanck:
    """A thermal ABI channel, by the names of the variables `planck_*` that every Level-1b file carries.

    Attributes:
        fk1: mW m-2 sr-1 (cm-1)-1.
        fk2: K.
        bc1: K, intercept of the line that makes up for the width of the filter.
        bc2: its slope.
    """

    fk1: float
    fk2: float
    bc1: float
    bc2: float


MODIS_PLANCK: dict[Satellite, dict[str, Planck]] = {
    "terra": {
        "B21": Planck(wavenumber=2505.277, slope=0.9998646, intercept=0.09262664),
        "B27": Planck(wavenumber=1477.967, slope=0.9994877, intercept=0.2204921),
        "B28": Planck(wavenumber=1362.737, slope=0.9994918, intercept=0.2046087),
        "B29": Planck(wavenumber=1173.190, slope=0.9995495, intercept=0.1599191),
        "B30": Planck(wavenumber=1027.715, slope=0.9997398, intercept=0.08253401),
        "B31": Planck(wavenumber=908.0884, slope=0.9995608, intercept=0.1302699),
        "B32": Planck(wavenumber=831.5399, slope=0.9997256, intercept=0.07181833),
        "B33": Planck(wavenumber=748.3394, slope=0.9999160, intercept=0.01972608),
    },
    "aqua": {
        "B21": Planck(wavenumber=2511.760, slope=0.9998626, intercept=0.09426663),
        "B27": Planck(wavenumber=1474.262, slope=0.9995694, intercept=0.1848769),
        "B28": Planck(wavenumber=1361.626, slope=0.9994867, intercept=0.2064384),
        "B29": Planck(wavenumber=1169.626, slope=0.9995270, intercept=0.1674982),
        "B30": Planck(wavenumber=1028.740, slope=0.9997382, intercept=0.08304364),
        "B31": Planck(wavenumber=907.6813, slope=0.9995270, intercept=0.1343433),
        "B32": Planck(wavenumber=830.8411, slope=0.9997271, intercept=0.07135051),
        "B33": Planck(wavenumber=748.2978, slope=0.9999173, intercept=0.01948513),
    },
}
"""Fits over 180 to 320 K to the band-averaged response of each instrument (Gumley, CIMSS/SSEC Madison, `modis_bright`)."""

GOES16_PLANCK: dict[str, AbiPlanck] = {
    "C07": AbiPlanck(fk1=202263.0, fk2=3698.19, bc1=0.43361, bc2=0.99939),
    "C08": AbiPlanck(fk1=50687.1, fk2=2331.58, bc1=1.55228, bc2=0.99667),
    "C09": AbiPlanck(fk1=35828.3, fk2=2076.95, bc1=0.34427, bc2=0.99918),
    "C10": AbiPlanck(fk1=30174.0, fk2=1961.38, bc1=0.05651, bc2=0.99986),
    "C11": AbiPlanck(fk1=19779.9, fk2=1703.83, bc1=0.18733, bc2=0.99948),
    "C12": AbiPlanck(fk1=13432.1, fk2=1497.61, bc1=0.09102, bc2=0.99971),
    "C13": AbiPlanck(fk1=10803.3, fk2=1392.74, bc1=0.0755, bc2=0.99975),
    "C14": AbiPlanck(fk1=8510.22, fk2=1286.27, bc1=0.22516, bc2=0.9992),
    "C15": AbiPlanck(fk1=6454.62, fk2=1173.03, bc1=0.21702, bc2=0.99916),
    "C16": AbiPlanck(fk1=5101.27, fk2=1084.53, bc1=0.06266, bc2=0.99974),
}
"""Of GOES-16, as its Level-1b files carry them; those of other satellites differ by tenths of a K, so pass the file's."""

GOES16_SUN = {"C01": 2017.1648, "C02": 1631.3351, "C03": 957.0699, "C04": 360.90176, "C05": 242.54037, "C06": 76.8999}
"""Solar irradiance in W m-2 um-1 at one astronomical unit, `esun` of the same files."""


def modis_kelvin(radiance: np.ndarray, planck: Planck) -> np.ndarray:
    """Turn radiance in W m-2 sr-1 um-1 into brightness temperature in K; NaN where it is not above 0."""
    wavelength = 0.01 / planck.wavenumber
    per_metre = 1e6 * _positive(radiance)
    temperature = _C2 / (wavelength * np.log1p(_C1 / (wavelength**5 * per_metre)))
    kelvin: np.ndarray = (temperature - planck.intercept) / planck.slope
    return kelvin


def modis_radiance(kelvin: np.ndarray, planck: Planck) -> np.ndarray:
    """Undo `modis_kelvin`."""
    wavelength = 0.01 / planck.wavenumber
    temperature = planck.slope * np.asarray(kelvin, np.float64) + planck.intercept
    radiance: np.ndarray = 1e-6 * _C1 / (wavelength**5 * np.expm1(_C2 / (wavelength * temperature)))
    return radiance


def abi_kelvin(radiance: np.ndarray, planck: AbiPlanck) -> np.ndarray:
    """Turn radiance in mW m-2 sr-1 (cm-1)-1 into brightness temperature in K; NaN where it is not above 0."""
    kelvin: np.ndarray = (planck.fk2 / np.log1p(planck.fk1 / _positive(radiance)) - planck.bc1) / planck.bc2
    return kelvin


def abi_radiance(kelvin: np.ndarray, planck: AbiPlanck) -> np.ndarray:
    """Undo `abi_kelvin`."""
    temperature = planck.bc2 * np.asarray(kelvin, np.float64) + planck.bc1
    radiance: np.ndarray = planck.fk1 / np.expm1(planck.fk2 / temperature)
    return radiance


def _positive(radiance: np.ndarray) -> np.ndarray:
    values = np.asarray(radiance, dtype=np.float64)
    return np.where(values > 0, values, np.nan)
