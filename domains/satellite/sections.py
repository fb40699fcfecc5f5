"""Fine-tuning to a cloud mask: cloud or none on the vertical section that was measured below each scene."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from core.batch import Batch
from core.cli import Options
from core.errors import DataError
from core.finetune import Examined, Sections
from core.heads.cloud_mask import CloudMask
from core.heads.load import Model
from core.viz import Row
from datasets import Manifest
from domains.satellite.collection import SATELLITE
from domains.satellite.held_out import Legend, section_rows
from domains.verbs.features import label_name
from domains.verbs.finetune import FinetuneImages, learn, open_split
from domains.verbs.training import Learnt


def run(config: FinetuneImages, widths: tuple[int, ...], options: Options, record: object) -> Path:
    """Train, test and save a cloud mask.

    Raises:
        DataError: scenes of another size than the encoder's, or sections that are missing or unlike.
    """
    encoder, manifest, entry = open_split(SATELLITE, config)
    for row, shape in enumerate(manifest.column("shape")):
        if tuple(shape[1:]) != entry.whole:
            raise DataError(
                f"{manifest.path(row)}: expected a scene of {entry.whole} pixels around its section, got "
                f"{tuple(shape[1:])}; cut it, or choose --size."
            )
    clouds = read_sections(manifest, label_name(SATELLITE, config.images))
    targets = Sections(clouds=clouds, groups=tuple(manifest.column("group")), split=tuple(manifest.column("split")))
    head = CloudMask(widths=widths, size=(clouds.shape[1], clouds.shape[2]))
    learnt = Learnt(targets, head, "cloud_mask")
    names = [path.name for path in manifest.paths]

    def draw(model: Model, found: Examined, batches: Iterator[Batch]) -> tuple[list[Row], Legend]:
        return section_rows(model, entry, targets, found, batches, names)

    return learn(
        SATELLITE, config, options, encoder, manifest, entry, learnt, flips=(), ordinal=False, record=record, draw=draw
    )


def read_sections(manifest: Manifest, label: str) -> torch.Tensor:
    """Read the section of each scene, (rows, height, length) int8: 1 = cloud, 0 = none, -1 = not measured.

    Raises:
        DataError: a file is missing, is no such array, or has another size than the first.
    """
    found: list[np.ndarray] = []
    for row, name in enumerate(manifest.labels(label)):
        path = manifest.path(row).parent / str(name)
        try:
            section = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: expected a .npy file of a section, got: {error}.") from None
        if not isinstance(section, np.ndarray) or section.ndim != 2 or (found and section.shape != found[0].shape):
            size = found[0].shape if found else "(height, length)"
            raise DataError(f"{path}: expected a section of {size}, got {getattr(section, 'shape', 'an archive')}.")
        found.append(np.where(section == 1, 1, np.where(section == 0, 0, -1)).astype(np.int8))
    return torch.from_numpy(np.stack(found))
