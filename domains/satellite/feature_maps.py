"""Maps with one pixel per token: the features of a scene, or their principal directions as colours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.bands import RGB
from core.batch import Batch
from core.contract import Input
from core.encoders.load import Encoder
from core.errors import DataError
from core.inference import Windows, sample_windows
from core.preprocess import Window
from datasets import LazyImage
from datasets.writers import writing
from domains.satellite.covering import arithmetic, go_over
from domains.satellite.outputs import placed
from domains.satellite.scenes import Reading, scene_of
from domains.satellite.token_colours import TokenColours

_SAMPLE = 64  # windows whose tokens choose the colours


def write_grid(
    reading: Reading,
    encoder: Encoder,
    image: LazyImage,
    entry: Input,
    windows: Windows,
    path: Path,
    *,
    overwrite: bool,
) -> None:
    """Write a scene's features, float32, one band each; NaN where less than half of a token's place is measured.

    Raises:
        DataError: the scene is damaged, or nothing in it is measured.
    """
    count = encoder.backbone.num_features
    names = tuple(f"feature_{number}" for number in range(count))
    facts = replace(placed(image, windows, count), bands=names, nodata=(float("nan"),) * count)
    with writing(path, facts, overwrite=overwrite) as put:

        def write(part: Window, values: np.ndarray, valid: np.ndarray) -> None:
            put((part, np.where(valid, values, np.float32("nan"))))

        go_over(reading, image, scene_of(image, entry), windows, encoder.feature_map, write, values=count)


def write_colours(
    reading: Reading,
    encoder: Encoder,
    image: LazyImage,
    entry: Input,
    windows: Windows,
    path: Path,
    *,
    overwrite: bool,
) -> None:
    """Write the colours of a scene's tokens, three bytes and a mask; like tokens get like colours within this scene.

    The colours are chosen by the tokens of windows all over the scene, in a first pass.

    Raises:
        DataError: the scene is damaged, nothing in it is measured, or it is the same everywhere.
    """
    scene = scene_of(image, entry)
    try:
        choose = TokenColours.of(
            torch.from_numpy(
                sample_windows(
                    arithmetic(reading, encoder.feature_map),
                    scene,
                    windows,
                    values=encoder.backbone.num_features,
                    count=_SAMPLE,
                    batch_size=reading.batch_size,
                    device=reading.where(),
                )
            )
        )
    except DataError as error:
        raise DataError(f"{image.path}: {error}") from None

    def colour(batch: Batch) -> Tensor:
        return choose(encoder.feature_map(batch))

    facts = replace(placed(image, windows, 3), bands=RGB, dtype=np.dtype(np.uint8), valid=1)
    with writing(path, facts, overwrite=overwrite) as put:

        def write(part: Window, values: np.ndarray, valid: np.ndarray) -> None:
            put((part, np.rint(values.clip(0, 1) * 255).astype(np.uint8), valid[None]))

        go_over(reading, image, scene, windows, colour, write, values=3)
