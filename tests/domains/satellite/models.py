"""Small models with fresh weights, saved as `finetune` saves them, and scenes whose every number is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from core.checkpoint import export_encoder
from core.contract import Contract, Input, Normalisation
from core.encoders.load import Encoder
from core.encoders.vit import ViTSpec
from core.geometry import Georeference, Spacing
from core.heads.base import HeadSpec
from core.heads.classify import Classify
from core.heads.load import Model, Task, write_head
from core.heads.regress import Regress
from core.heads.segment import Segment
from core.weights import Placement
from datasets.writers import Facts, write_image

TRANSFORM = (30.0, 0.0, 462405.0, 0.0, -30.0, 1741815.0)
HEADS: dict[str, HeadSpec] = {
    "segment": Segment(num_classes=3, init_std=2.0),
    "classify": Classify(num_classes=3, init_std=2.0),
    "regress": Regress(centre=(5.0, 7.0), spread=(2.0, 3.0), init_std=1.0),
}


def reads(bands: tuple[str, ...], **changes: object) -> Contract:
    given: dict[str, object] = {
        "name": "scene",
        "bands": bands,
        "patch": (8, 8),
        "size": (32, 32),
        "spacing": (30.0, 30.0),
        "unit": "m",
        "normalisation": Normalisation(method="fixed", mean=(0.4,) * len(bands), std=(0.2,) * len(bands)),
    }
    return Contract(inputs=(Input(**(given | changes)),))  # type: ignore[arg-type]


def encoder_of(contract: Contract, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    backbone = ViTSpec(contract=contract, width=24, depth=2, heads=2).build()
    return Encoder(backbone, pool="mean", report=Placement(())).eval()


def save_encoder(folder: Path, contract: Contract) -> Encoder:
    encoder = encoder_of(contract)
    folder.mkdir(parents=True)
    export_encoder(encoder.backbone, folder / "encoder")
    return encoder


def save_model(folder: Path, contract: Contract, task: Task = "segment", **facts: object) -> Model:
    """Save a model of three classes, or of two numbers."""
    names = ("height", "cover") if task == "regress" else ("forest", "water", "town")
    torch.manual_seed(3)
    model = Model(encoder_of(contract), HEADS[task], task=task, classes=names, **facts)  # type: ignore[arg-type]
    folder.mkdir(parents=True)
    write_head(folder, model)
    export_encoder(model.encoder.backbone, folder / "encoder")
    return model.eval()


def write_scene(path: Path, image: np.ndarray, bands: tuple[str, ...], nodata: float | None = None) -> Path:
    facts = Facts(
        shape=image.shape,
        dtype=image.dtype,
        bands=bands,
        spacing=Spacing((30.0, 30.0), "m"),
        georeference=Georeference("EPSG:32615", TRANSFORM),
        nodata=None if nodata is None else (nodata,) * len(image),
    )
    return write_image(path, facts, [(tuple(slice(0, n) for n in image.shape[1:]), image)])
