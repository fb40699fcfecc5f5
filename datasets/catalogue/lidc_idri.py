"""LIDC-IDRI: chest CT with lung nodules marked by four readers, as DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size
from datasets.image import Flag

_FEWEST = 10  # slices; the radiographs of the collection have one or two images a series


def find(place: Place) -> Found:
    """One folder per CT series; the chest radiographs that some patients also have are left out."""
    place = place.within("LIDC-IDRI", "manifest-1600709154662/LIDC-IDRI")
    rows, radiographs = [], 0
    for patient in place.files("", "LIDC-IDRI-*"):
        for folder in sorted({path.parent for path in patient.glob("*/*/*.dcm")}):
            if len(list(folder.glob("*.dcm"))) < _FEWEST:
                radiographs += 1
                continue
            notes = sorted(folder.glob("*.xml"))
            labels = {"annotation_file": place.name(notes[0]) if notes else None}
            rows.append(Row(place.name(folder), patient.name, None, labels))
    if not rows:
        raise place.missing(f"LIDC-IDRI-*/<study>/<series>/*.dcm (at least {_FEWEST} slices)")
    if radiographs:
        return rows, [Flag("radiographs", f"{radiographs} series with fewer than {_FEWEST} images: left out.")]
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """Two patients with a CT each; the first also has a radiograph."""
    rows = []
    for patient in ("LIDC-IDRI-0001", "LIDC-IDRI-0002"):
        folder = f"LIDC-IDRI/{patient}/1.3.6.1.1/1.3.6.1.2"
        mini.series(root / folder, slices=_FEWEST)
        mini.text(root / folder / "069.xml", "<LidcReadMessage/>")
        rows.append(Row(folder, patient, None, {"annotation_file": f"{folder}/069.xml"}))
    mini.series(root / "LIDC-IDRI/LIDC-IDRI-0001/1.3.6.1.3/1.3.6.1.4", slices=1, modality="DX")
    return rows


ENTRY = Entry(
    title="LIDC-IDRI (Lung Image Database Consortium)",
    domain="radiology",
    modality="chest CT, DICOM series, about 0.5 to 1 mm pixels, slices 0.6 to 5 mm apart",
    licence=Licence(name="CC-BY-3.0", commercial=True),
    citation=Citation(
        authors="Armato, McLennan, Bidaut, ... Clarke",
        title="The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI): a completed "
        "reference database of lung nodules on CT scans",
        year=2011,
        doi="10.1118/1.3528204",
    ),
    homepage="https://www.cancerimagingarchive.net/collection/lidc-idri/",
    labels={"annotation_file": "XML with the outlines and ratings of four readers"},
    layout="""
        LIDC-IDRI/LIDC-IDRI-0001/<study uid>/<series uid>/1-001.dcm ...
        LIDC-IDRI/LIDC-IDRI-0001/<study uid>/<series uid>/069.xml
    """,
    size=Size(images=1018, groups=1010),
    traps=(
        "some patients have two CT scans: the patient is the group",
        "chest radiographs lie beside the CT series: left out by their number of images",
        "slices must be ordered by position, not by file name; some series have gaps or uneven distances",
        "the four readers of one scan are not those of another: reader 1 is not a person",
    ),
    unverified=("range of pixel sizes",),
    find=find,
    example=example,
)
