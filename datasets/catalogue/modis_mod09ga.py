"""One tile of MODIS daily surface reflectance (MOD09GA), HDF4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_FILE = "MOD09GA.A2008296.h14v17.006.2015181011753.hdf"


def find(place: Place) -> Found:
    """Any MOD09GA tiles; the tile of the sinusoidal grid is the group."""
    return [
        Row(place.name(path), path.name.split(".")[2], None, {"date": path.name.split(".")[1]})
        for path in place.files("", "MOD09GA.*.hdf")
    ], []


def example(root: Path) -> Sequence[Row]:
    """An HDF4 file with one reflectance band."""
    import numpy as np
    from pyhdf.SD import SD, SDC

    root.mkdir(parents=True, exist_ok=True)
    file = SD(str(root / _FILE), SDC.WRITE | SDC.CREATE)
    band = file.create("sur_refl_b01_1", SDC.INT16, (8, 8))
    band[:] = np.arange(64, dtype=np.int16).reshape(8, 8)
    band.endaccess()
    file.end()
    return [Row(_FILE, "h14v17", None, {"date": "A2008296"})]


ENTRY = Entry(
    title="MODIS MOD09GA, one tile",
    domain="satellite",
    modality="MODIS/Terra surface reflectance, 7 bands, 2400 x 2400 int16, 463 m, sinusoidal grid, HDF4",
    licence=Licence(name="NASA open data", commercial=True, registration="a NASA Earthdata login for other tiles"),
    citation=Citation(
        authors="Vermote, Wolfe",
        title="MOD09GA MODIS/Terra surface reflectance daily L2G global 1 km and 500 m SIN grid V006",
        year=2015,
        doi="10.5067/MODIS/MOD09GA.006",
    ),
    homepage="https://lpdaac.usgs.gov/products/mod09gav006/",
    labels={"date": "of the acquisition, year and day of year"},
    layout=_FILE,
    size=Size(images=1, groups=1),
    traps=(
        "only 0.25 % of the pixels of this tile are filled, the rest is -28672",
        "HDF4: GDAL of common wheels cannot open it, pyhdf can",
        "scale 0.0001 in the file's attributes; 1 km and 500 m grids in one file",
    ),
    find=find,
    example=example,
)
