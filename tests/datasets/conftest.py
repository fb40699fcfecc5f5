"""A small collection on disk, and the inputs that read it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from core.contract import Input, Normalisation
from datasets.index import build_manifest
from datasets.manifest import Manifest


def disc(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    """A bright textured disc on black, (Y, X, 3) uint8."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - height / 2, x - width / 2) < 0.48 * height
    return (inside[..., None] * rng.integers(90, 230, (height, width, 3))).astype(np.uint8)


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten photographs and six volumes with a list `labels.csv`; two images per patient."""
    root = tmp_path_factory.mktemp("collection")
    lines = ["file,grade,patient,weight,site"]
    for number in range(10):
        Image.fromarray(disc(number, 60 + number, 80)).save(root / f"p{number}.png")
        lines.append(f"p{number}.png,{number % 3},{number // 2:03d},{number / 2},north")
    rng = np.random.Generator(np.random.Philox(key=99))
    for number in range(6):
        data = rng.normal(100 * number, 10 + number, (14, 18, 10 + number)).astype(np.float32)
        if number == 0:
            data[:3] = np.nan
        ending = ".nii.gz" if number % 2 else ".nii"
        nib.save(nib.Nifti1Image(data, np.diag([1.0, 1.5, 2.0, 1.0])), root / f"v{number}{ending}")
        lines.append(f"v{number}{ending},{number % 2},V{number // 2},,")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="session")
def manifest(collection: Path) -> Manifest:
    return build_manifest([collection / "labels.csv"], group="patient")


@pytest.fixture(scope="session")
def photograph_input() -> Input:
    return Input(
        name="photograph",
        bands=("red", "green", "blue"),
        patch=(8, 8),
        size=(32, 32),
        spacing=(1.0, 1.0),
        unit="px",
        normalisation=Normalisation(method="fixed", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)),
        background="dark",
    )


@pytest.fixture(scope="session")
def volume_input() -> Input:
    return Input(
        name="volume",
        bands=("intensity",),
        patch=(4, 4, 4),
        size=(8, 12, 16),
        spacing=(2.0, 1.5, 1.0),
        unit="mm",
        normalisation=Normalisation(method="per_image"),
    )
