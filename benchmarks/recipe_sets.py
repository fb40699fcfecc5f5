"""The four real sets of `benchmarks.recipes`, held in memory: images, labels, and the inputs that encoders read them as."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from core.bands import RGB
from core.batch import Batch
from core.contract import Input, Normalisation
from core.preprocess import Prepared, cut, measured, offset_scale, prepare, resample
from core.rng import key, numpy_rng
from datasets import open_image

_UNIT = ("px", (1.0, 1.0))


@dataclass(frozen=True)
class RecipeSet:
    """One set.

    Attributes:
        name: of its folder.
        entry: how an encoder reads it; the fixed normalisation is that of the pretraining images.
        images: raw values (C, *S).
        labels: one class per image.
        groups: what must not be split.
        pretrain: images that are pretrained on, without labels.
        score: images whose labels are predicted.
        scale: share of the image that a training crop covers.
        flips: per axis, whether a crop may be mirrored.
        folds: of the cross-validation.
        note: what a reader should know.
        measured: where each image is data, (*S) bool.
    """

    name: str
    entry: Input
    images: list[np.ndarray]
    labels: list[str]
    groups: list[str]
    pretrain: np.ndarray
    score: np.ndarray
    scale: tuple[float, float]
    flips: tuple[bool, ...]
    folds: int
    note: str
    measured: list[np.ndarray]


def load(name: str, data: Path) -> RecipeSet:
    """Read a set of the shared data."""
    return {
        "eurosat_rgb": _eurosat,
        "idrid_grading": _idrid,
        "msd_hippocampus": _hippocampus,
        "dsb2018_stained": _nuclei,
    }[name](data)


SETS = ("eurosat_rgb", "idrid_grading", "msd_hippocampus", "dsb2018_stained")


def _eurosat(data: Path) -> RecipeSet:
    paths = sorted((data / "satellite" / "eurosat_rgb").rglob("*.jpg"))
    images = [open_image(path).read() for path in paths]
    half = _halves([path.stem for path in paths])
    return _flat(
        "eurosat_rgb",
        images,
        [path.parent.name for path in paths],
        half,
        size=64,
        patch=8,
        scale=(0.5, 1.0),
        note="10 classes; pretrained on one half of the chips, scored on the other",
    )


def _idrid(data: Path) -> RecipeSet:
    folder = data / "retina" / "idrid_grading"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = []
    for row in rows:
        image = open_image(next(folder.rglob(row["file"]))).read()
        small = tuple(round(n * 192 / min(image.shape[1:])) for n in image.shape[1:])
        values, _ = resample(image, np.ones(image.shape[1:], dtype=bool), (small[0], small[1]))
        images.append(values.round().clip(0, 255).astype(np.uint8))
    labels = ["referable" if int(row["retinopathy_grade"]) >= 2 else "not referable" for row in rows]
    half = _halves([row["file"] for row in rows])
    return _flat(
        "idrid_grading",
        images,
        labels,
        half,
        size=128,
        patch=16,
        scale=(0.2, 1.0),
        flips=(False, True),
        background="dark",
        note="referable retinopathy (grade 2 or more); pretrained on one half of the photographs, scored on the other",
    )


def _nuclei(data: Path) -> RecipeSet:
    folder = data / "pathology" / "dsb2018_stained"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = [open_image(next((folder / "images").glob(f"{row['id']}*"))).read()[:3] for row in rows]
    counts = np.array([int(row["n_nuclei"]) for row in rows])
    labels = ["many" if count > np.median(counts) else "few" for count in counts]
    everything = np.arange(len(rows))
    return _flat(
        "dsb2018_stained",
        images,
        labels,
        (everything, everything),
        size=128,
        patch=16,
        scale=(0.2, 1.0),
        folds=3,
        note="more nuclei than the median tile; 66 tiles, all of them pretrained on without labels",
    )


def _hippocampus(data: Path) -> RecipeSet:
    folder = data / "volume3d" / "msd_hippocampus"
    paths = sorted((folder / "images").glob("*.nii.gz"))
    images = [open_image(path).read().astype(np.float32) for path in paths]
    sizes = np.array([int((open_image(folder / "labels" / path.name).read() > 0).sum()) for path in paths])
    labels = ["large" if size > np.median(sizes) else "small" for size in sizes]
    entry = Input(
        name="msd_hippocampus",
        bands=("intensity",),
        patch=(8, 8, 8),
        size=(32, 32, 32),
        whole_size=(40, 56, 40),
        spacing=(1.0, 1.0, 1.0),
        unit="mm",
        normalisation=Normalisation(method="per_image"),
    )
    first, second = _halves([path.stem for path in paths])
    return RecipeSet(
        name="msd_hippocampus",
        entry=entry,
        images=images,
        labels=labels,
        groups=[path.stem for path in paths],
        pretrain=first,
        score=second,
        scale=(1.0, 1.0),
        flips=(False, True, True),
        folds=5,
        note="hippocampus larger than the median; pretrained on one half of the volumes, scored on the other",
        measured=[np.ones(image.shape[1:], dtype=bool) for image in images],
    )


def _flat(
    name: str,
    images: list[np.ndarray],
    labels: list[str],
    halves: tuple[np.ndarray, np.ndarray],
    *,
    size: int,
    patch: int,
    scale: tuple[float, float],
    note: str,
    flips: tuple[bool, bool] = (True, True),
    background: str = "none",
    folds: int = 5,
) -> RecipeSet:
    first, second = halves
    sums = np.concatenate([images[i].reshape(3, -1)[:, ::7] for i in first], axis=1) / 255.0
    if background == "dark":
        sums = sums[:, sums.max(0) > 0.1]
    entry = Input(
        name=name,
        bands=RGB,
        patch=(patch, patch),
        size=(size, size),
        spacing=_UNIT[1],
        unit="px",
        normalisation=Normalisation(
            method="fixed",
            mean=tuple(float(v) for v in sums.mean(1).round(3)),
            std=tuple(float(v) for v in sums.std(1).round(3)),
        ),
        background="dark" if background == "dark" else "none",
    )
    groups = [str(i) for i in range(len(images))]
    return RecipeSet(
        name=name,
        entry=entry,
        images=images,
        labels=labels,
        groups=groups,
        pretrain=first,
        score=second,
        scale=scale,
        flips=flips,
        folds=folds,
        note=note,
        measured=[measured(image, entry) for image in images],
    )


def _halves(names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Split by name, so that no order of files matters."""
    order = np.argsort([key("halves", name) for name in names])
    return np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])


def whole(data: RecipeSet, rows: Sequence[int], entry: Input) -> Batch:
    """Give whole images as an encoder sees them in evaluation."""
    return _batch(entry, [prepare(data.images[row], entry.bands, entry) for row in rows], rows)


def crops(data: RecipeSet, entry: Input, step: int, count: int, *, seed: int) -> Batch:
    """Give a training batch: random images of the pretraining half, a random crop of each."""
    draw = numpy_rng(seed, "batch", step)
    rows = [int(row) for row in draw.choice(data.pretrain, count, replace=len(data.pretrain) < count)]
    return _batch(entry, [_crop(data, entry, row, draw) for row in rows], rows, epoch=step, seed=seed)


def _crop(data: RecipeSet, entry: Input, row: int, draw: np.random.Generator) -> Prepared:
    image = data.images[row]
    length, scale = image.shape[1:], draw.uniform(*data.scale)
    if entry.ndim == 2:
        edge = max(round(min(length) * scale**0.5), 1)
        start = tuple(int(draw.integers(0, n - edge + 1)) for n in length)
        window = tuple(slice(a, a + edge) for a in start)
        part, inside = image[(slice(None), *window)], data.measured[row][window]
        ready = prepare(part, entry.bands, replace(entry, whole_size=None), valid=inside)
    else:
        start = tuple(
            int(draw.integers(min(0, n - s), max(0, n - s) + 1)) for n, s in zip(length, entry.size, strict=True)
        )
        values, valid = cut(image, np.ones(length, dtype=bool), start, entry.size)
        mean, std = image.mean(axis=(1, 2, 3)), image.std(axis=(1, 2, 3))
        offset, gain = offset_scale(entry.normalisation, image.dtype, mean, std)
        ready = Prepared(image=values, valid=np.broadcast_to(valid, values.shape), offset=offset, scale=gain)
    mirrored = tuple(axis + 1 for axis, may in enumerate(data.flips) if may and draw.random() < 0.5)
    return replace(ready, image=np.flip(ready.image, mirrored).copy(), valid=np.flip(ready.valid, mirrored).copy())


def _batch(entry: Input, ready: list[Prepared], rows: Sequence[int], *, epoch: int = 0, seed: int = 0) -> Batch:
    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(one, name) for one in ready]))

    return Batch(
        image=stacked("image").to(torch.float32),
        valid=stacked("valid"),
        bands=entry.bands,
        spacing=torch.tensor(entry.spacing).expand(len(ready), -1),
        unit=entry.unit,
        offset=stacked("offset").to(torch.float32),
        scale=stacked("scale").to(torch.float32),
        key=torch.tensor([key(seed, epoch, place, int(row)) for place, row in enumerate(rows)]),
        index=torch.arange(len(ready)),
        row=torch.tensor(list(rows)),
    )
