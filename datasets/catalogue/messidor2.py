"""Messidor-2: pairs of fundus photographs, with the adjudicated grades that were published separately."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size


def find(place: Place) -> Found:
    """Photographs with an adjudicated grade, grouped by examination with the pairs of messidor-2.csv."""
    place = place.within("messidor-2", "messidor2")
    grades = ("adjudicated_dr_grade", "adjudicated_dme", "adjudicated_gradable")
    lines = place.table("messidor_data.csv", "image_id", *grades)
    pairs = place.table("messidor-2.csv", "left", "right", delimiter=";")
    known = {_stem(line[side]): f"exam {number}" for number, line in enumerate(pairs, 1) for side in ("left", "right")}
    there = {_stem(path.name): path for path in place.files("IMAGES", "*.*")}
    gone = [line["image_id"] for line in lines if _stem(line["image_id"]) not in there]
    if gone:
        raise place.missing(f"IMAGES/{gone[0]} ({len(gone)} of {len(lines)} images that messidor_data.csv names)")
    rows = []
    for line in lines:
        stem = _stem(line["image_id"])
        labels = {name: line[name] or None for name in grades}
        rows.append(Row(place.name(there[stem]), known.get(stem, stem), None, labels))
    return rows, []


def _stem(name: str) -> str:
    """The grades and the images do not agree on the suffix, nor on its case."""
    return Path(name).stem.lower()


def example(root: Path) -> Sequence[Row]:
    """One examination of two eyes; the grades name .jpg where the picture is .JPG."""
    files = ("20051020_43808_0100_PP.png", "IM000001.JPG")
    for file in files:
        mini.photograph(root / "IMAGES" / file)
    mini.table(root / "messidor-2.csv", ("left", "right"), files, delimiter=";")
    header = ("image_id", "adjudicated_dr_grade", "adjudicated_dme", "adjudicated_gradable")
    mini.table(root / "messidor_data.csv", header, (files[0], 0, 0, 1), ("IM000001.jpg", "", "", 0))
    graded = {"adjudicated_dr_grade": "0", "adjudicated_dme": "0", "adjudicated_gradable": "1"}
    ungradable = {"adjudicated_dr_grade": None, "adjudicated_dme": None, "adjudicated_gradable": "0"}
    return [Row(f"IMAGES/{files[0]}", "exam 1", None, graded), Row(f"IMAGES/{files[1]}", "exam 1", None, ungradable)]


ENTRY = Entry(
    title="Messidor-2 with adjudicated grades",
    domain="retina",
    modality="colour fundus photographs, PNG and JPEG of a few sizes, centred on the macula, no physical size",
    licence=Licence(
        name="Messidor-2 terms of use",
        commercial=None,
        registration="a request form of ADCIS for the images; a Kaggle account for the grades",
    ),
    citation=Citation(
        authors="Decenciere, Zhang, Cazuguel, ... Klein",
        title="Feedback on a publicly distributed image database: the Messidor database",
        year=2014,
        doi="10.5566/ias.1155",
    ),
    homepage="https://www.adcis.net/en/third-party/messidor2/",
    labels={
        "adjudicated_dr_grade": "0 none, 1 mild, 2 moderate, 3 severe, 4 proliferative; empty where not gradable",
        "adjudicated_dme": "1 = referable macular edema",
        "adjudicated_gradable": "1 = good enough to be graded",
    },
    layout="""
        IMAGES/20051020_43808_0100_PP.png
        IMAGES/IM000001.JPG
        messidor-2.csv         (left;right: the two eyes of an examination; comes with the images)
        messidor_data.csv      (image_id, adjudicated_dr_grade, adjudicated_dme, adjudicated_gradable; of
                                https://www.kaggle.com/datasets/google-brain/messidor2-dr-grades)
    """,
    size=Size(images=1748, groups=874),
    traps=(
        "the images come without grades; those in use are by Krause et al. 2018 and come from Kaggle: 1,744 rows",
        "two eyes per examination: the pair list makes them one group",
        "names in the grades differ from the files in suffix and case: matched by stem",
        "a file trainLabels.csv seen beside copies of this set belongs to EyePACS",
    ),
    unverified=("whether commercial use is allowed",),
    find=find,
    example=example,
)
