"""CMU-1-Small-Region: one Aperio slide of OpenSlide's test data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size

_FILE = "CMU-1-Small-Region.svs"


def find(place: Place) -> Found:
    """The slide."""
    place.path(_FILE)
    return [Row(place.name(_FILE), "CMU-1")], []


def example(root: Path) -> Sequence[Row]:
    """A tiled TIFF of that name."""
    mini.slide(root / _FILE)
    return [Row(_FILE, "CMU-1")]


ENTRY = Entry(
    title="OpenSlide test data: CMU-1-Small-Region",
    domain="pathology",
    modality="H&E slide, Aperio SVS, 2220 x 2967 pixels of 0.499 um, one level",
    licence=Licence(name="CC0-1.0", commercial=True),
    citation=Citation(
        authors="Goode, Gilbert, Harkes, Jukic, Satyanarayanan",
        title="OpenSlide: a vendor-neutral software foundation for digital pathology",
        year=2013,
        doi="10.4103/2153-3539.119005",
    ),
    homepage="https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/",
    labels={},
    layout=_FILE,
    size=Size(images=1, groups=1),
    traps=(
        "one level only, no pyramid",
        "a label and a macro image are inside; on real slides they show the patient's name",
    ),
    find=find,
    example=example,
)
