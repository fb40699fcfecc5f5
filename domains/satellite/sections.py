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
from domains.satellite.labels import named_beside
from domains.verbs.collection import say
from domains.verbs.features import label_name
from domains.verbs.finetune import FinetuneImages, learn, open_split
from domains.verbs.training import Learnt


def run(config: FinetuneImages, widths: tuple[int, ...], options: Options, record: object) -> Path:
    """Train, test and save a cloud mask.

    Raises:
        DataError: scenes of another size than the encoder's, or sections that are unlike.
        MissingDataError: a section is not there.
        UnsafeError: a section lies outside the folder of its list.
    """
    encoder, manifest, entry, own = open_split(SATELLITE, config)
    for row, shape in enumerate(manifest.column("shape")):
        if tuple(shape[1:]) != entry.whole:
            raise DataError(
                f"{manifest.path(row)}: expected a scene of {entry.whole} pixels around its section, got "
                f"{tuple(shape[1:])}; cut it, or choose --size."
            )
    label, outside = label_name(SATELLITE, config.images), config.images.allow_outside
    clouds = read_sections(manifest, label, allow_outside=outside)
    say(described(clouds))
    targets = Sections(clouds=clouds, groups=tuple(manifest.column("group")), split=tuple(manifest.column("split")))
    head = CloudMask(widths=widths, size=(clouds.shape[1], clouds.shape[2]))
    learnt = Learnt(targets, head, "cloud_mask")
    names = [path.name for path in manifest.paths]

    def draw(model: Model, found: Examined, batches: Iterator[Batch]) -> tuple[list[Row], Legend]:
        return section_rows(model, entry, targets, found, batches, names)

    return learn(
        SATELLITE,
        config,
        options,
        encoder,
        manifest,
        entry,
        learnt,
        own=own,
        flips=(),
        ordinal=False,
        record=record,
        draw=draw,
    )


def read_sections(manifest: Manifest, label: str, *, allow_outside: bool = False) -> torch.Tensor:
    """Read the section of each scene, (rows, length, height) int8: 1 = cloud, 0 = none, -1 = not measured.

    Length is along the track, as rows of a scene whose track runs from top to bottom: SatVision-TOA's sections are 91 x 40,
    91 places of the track with 40 levels of height each. The first level is taken for the lowest, which decides what is up
    in the pictures and nothing else.

    Raises:
        DataError: a file is no such array, or has another size than the first.
        MissingDataError: a file is not there.
        UnsafeError: a file lies outside the folder of the list.
    """
    found: list[np.ndarray] = []
    for row, name in enumerate(manifest.labels(label)):
        path = named_beside(manifest, row, name, what="the section", allow_outside=allow_outside)
        section = _array(path)
        if section.ndim != 2 or (found and section.shape != found[0].shape):
            size = found[0].shape if found else "(length, height)"
            raise DataError(f"{path}: expected a section of {size}, got {section.shape}; resample it.")
        found.append(np.where(section == 1, 1, np.where(section == 0, 0, -1)).astype(np.int8))
    return torch.from_numpy(np.stack(found))


def _array(path: Path) -> np.ndarray:
    """Read a `.npy` file of numbers; nothing is unpickled."""
    try:
        with path.open("rb") as file:
            section: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a .npy file of a section, as numpy.save writes it, got: {error}.") from None
    if section.dtype.kind not in "biuf":
        raise DataError(f"{path}: expected a section of numbers, got {section.dtype}; 1 is cloud, 0 is none.")
    return section


def described(clouds: torch.Tensor) -> str:
    """Say in one sentence what there is to learn, so that numbers of another meaning are noticed."""
    shares = [float((clouds == value).float().mean()) for value in (1, 0, -1)]
    words = (
        f"{100 * share:.1f} % {what}" for share, what in zip(shares, ("cloud", "clear", "not measured"), strict=True)
    )
    length, height = clouds.shape[1:]
    return f"sections of {length} places along the track and {height} heights: {', '.join(words)}"
