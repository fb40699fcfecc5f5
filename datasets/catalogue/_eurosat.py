"""What both versions of EuroSAT share: classes, terms, and one chip per file in a folder per class."""

from __future__ import annotations

from datasets.catalogue.base import Citation, Found, Licence, Place, Row

CLASSES = (
    "AnnualCrop",
    "Forest",
    "HerbaceousVegetation",
    "Highway",
    "Industrial",
    "Pasture",
    "PermanentCrop",
    "Residential",
    "River",
    "SeaLake",
)
LICENCE = Licence(name="MIT", commercial=True)
CITATION = Citation(
    authors="Helber, Bischke, Dengel, Borth",
    title="EuroSAT: a novel dataset and deep learning benchmark for land use and land cover classification",
    year=2019,
    doi="10.1109/JSTARS.2019.2918242",
    arxiv="1709.00029",
)
HOMEPAGE = "https://github.com/phelber/EuroSAT"
TRAP = "neighbouring chips come from one scene and no scene is published: a random split leaks"


def find(place: Place, suffix: str) -> Found:
    """Every chip of every class folder; each is a group of its own, as no scene is known."""
    rows = []
    for name in CLASSES:
        chips = place.files(name, f"*{suffix}")
        rows += [Row(place.name(path), path.stem, None, {"class": name}) for path in chips]
    return rows, []
