"""PANDA: prostate biopsies with Gleason scores and ISUP grades."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets.catalogue import _miniature as mini
from datasets.catalogue.base import Citation, Entry, Found, Licence, Place, Row, Size


def find(place: Place) -> Found:
    """The biopsies of train.csv."""
    place = place.within("prostate-cancer-grade-assessment")
    lines = place.table("train.csv", "image_id", "data_provider", "isup_grade", "gleason_score")
    place.named([f"train_images/{line['image_id']}.tiff" for line in lines], table="train.csv")
    rows = []
    for line in lines:
        labels: dict[str, str | int | float | None] = {
            name: line[name] for name in ("isup_grade", "gleason_score", "data_provider")
        }
        outline = f"train_label_masks/{line['image_id']}_mask.tiff"
        labels["label_file"] = place.name(outline) if place.has(outline) else None
        rows.append(Row(place.name(f"train_images/{line['image_id']}.tiff"), line["image_id"], "train", labels))
    return rows, []


def example(root: Path) -> Sequence[Row]:
    """A biopsy of each provider; one has no label picture."""
    lines = (
        ("0005f7aaab2800f6170c399693a96917", "karolinska", 0, "0+0"),
        ("000920ad0b612851f8e01bcc880d9b3d", "radboud", 2, "3+4"),
    )
    mini.table(root / "train.csv", ("image_id", "data_provider", "isup_grade", "gleason_score"), *lines)
    rows = []
    for name, provider, grade, score in lines:
        mini.slide(root / f"train_images/{name}.tiff")
        labels: dict[str, str | int | float | None] = {
            "isup_grade": str(grade),
            "gleason_score": score,
            "data_provider": provider,
        }
        labels["label_file"] = f"train_label_masks/{name}_mask.tiff" if provider == "karolinska" else None
        rows.append(Row(f"train_images/{name}.tiff", name, "train", labels))
    mini.slide(root / "train_label_masks/0005f7aaab2800f6170c399693a96917_mask.tiff")
    return rows


ENTRY = Entry(
    title="PANDA (Prostate cANcer graDe Assessment)",
    domain="pathology",
    modality="H&E slides of prostate biopsies, pyramidal TIFF of three levels, about 0.5 um a pixel",
    licence=Licence(
        name="CC-BY-NC-SA-4.0", commercial=False, registration="a Kaggle account and accepting the competition's rules"
    ),
    citation=Citation(
        authors="Bulten, Kartasalo, Chen, ... Eklund",
        title="Artificial intelligence for diagnosis and Gleason grading of prostate cancer: the PANDA challenge",
        year=2022,
        doi="10.1038/s41591-021-01620-2",
    ),
    homepage="https://www.kaggle.com/c/prostate-cancer-grade-assessment",
    labels={
        "isup_grade": "0 no cancer, 1 to 5",
        "gleason_score": "such as 3+4; `negative` and 0+0 both mean none",
        "data_provider": "karolinska or radboud",
        "label_file": "label picture; its numbers mean different things at the two providers",
    },
    layout="""
        train.csv                 (image_id, data_provider, isup_grade, gleason_score)
        train_images/0005f7aaab2800f6170c399693a96917.tiff
        train_label_masks/0005f7aaab2800f6170c399693a96917_mask.tiff
    """,
    size=Size(images=10616, gigabytes=347.0),
    traps=(
        "several biopsies of one patient are there without patient ids: the slide is the only group that is known",
        "grades of training are noisy; about a tenth is usually left out",
        "provider, colours and grades go together: report by provider",
        "label numbers: karolinska 0-2 (background, benign, cancer), radboud 0-5 (stroma, benign, Gleason 3 to 5)",
    ),
    unverified=("licence",),
    find=find,
    example=example,
)
