"""Maps with one pixel per token: the features of a scene, or their principal directions as colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from core.bands import RGB
from core.batch import Batch
from core.encoders.load import Encoder
from core.errors import DamagedError, DataError
from core.inference import sample_windows
from core.preprocess import Window
from core.viz import principal_directions
from datasets.writers import writing
from domains.satellite.covering import Job, UnmeasuredError, arithmetic, go_over
from domains.satellite.outputs import placed
from domains.satellite.scenes import Reading, scene_of

_SAMPLE = 64  # windows whose tokens choose the colours
_PERCENT = (1.0, 99.0)  # of the sample that are drawn as black and white


@dataclass(frozen=True, eq=False)
class TokenColours:
    """From tokens to three numbers in 0..1.

    Attributes:
        mean: (D,) of the sample.
        axes: (3, D) principal directions; those that a sample lacks are 0.
        low: (3,) and
        high: (3,): what is drawn black and white.
    """

    mean: Tensor
    axes: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, sample: Tensor) -> TokenColours:
        """Find the directions of a sample of tokens (N, D); the same sample gives the same colours.

        The sign of each direction is fixed: its largest loading is positive.

        Raises:
            DataError: fewer than four tokens, or all of them alike.
        """
        if len(sample) < 4:
            raise DataError(f"expected at least 4 tokens to choose colours by, got {len(sample)}; map a larger scene.")
        tokens = sample.detach().to("cpu", torch.float64)
        mean = tokens.mean(0)
        axes, largest = principal_directions(tokens - mean)
        if largest <= 1e-9 * float(tokens.abs().max().clamp(min=1e-30)):
            raise DataError("expected tokens that differ, but all of them are alike: the scene is the same everywhere.")
        parts = (tokens - mean) @ axes.T
        low, high = (torch.quantile(parts, percent / 100, dim=0) for percent in _PERCENT)
        flat = high - low <= 0  # drawn mid-grey
        low, high = torch.where(flat, low - 0.5, low), torch.where(flat, high + 0.5, high)
        return cls(*(part.to(torch.float32) for part in (mean, axes, low, high)))

    def __call__(self, maps: Tensor) -> Tensor:
        """Colour maps of tokens (B, D, Y, X): (B, 3, Y, X), unbounded; 0 is black and 1 is white."""
        mean, axes, low, high = (part.to(maps.device) for part in (self.mean, self.axes, self.low, self.high))
        parts = torch.einsum("bdyx,cd->bcyx", maps.float() - mean[:, None, None], axes)
        return (parts - low[:, None, None]) / (high - low)[:, None, None]


def write_grid(
    reading: Reading,
    encoder: Encoder,
    job: Job,
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
    facts = replace(placed(job.image, job.windows, count), bands=names, nodata=(float("nan"),) * count)
    with writing(path, facts, overwrite=overwrite) as put:

        def write(part: Window, values: np.ndarray, valid: np.ndarray) -> None:
            put((part, np.where(valid, values, np.float32("nan"))))

        go_over(
            reading, job.image, scene_of(job.image, job.entry), job.windows, encoder.feature_map, write, values=count
        )


def write_colours(
    reading: Reading,
    encoder: Encoder,
    job: Job,
    path: Path,
    *,
    overwrite: bool,
) -> None:
    """Write the colours of a scene's tokens, three bytes and a mask; like tokens get like colours within this scene.

    The colours are chosen by the tokens of windows all over the scene, in a first pass.

    Raises:
        DataError: the scene is damaged.
        UnmeasuredError: nothing in it is measured, or too little to choose colours by.
    """
    scene = scene_of(job.image, job.entry)
    try:
        choose = TokenColours.of(
            torch.from_numpy(
                sample_windows(
                    arithmetic(reading, encoder.feature_map),
                    scene,
                    job.windows,
                    values=encoder.backbone.num_features,
                    count=_SAMPLE,
                    batch_size=reading.batch_size,
                    device=reading.where(),
                )
            )
        )
    except DamagedError:
        raise
    except DataError as error:
        raise UnmeasuredError(f"{job.image.path}: {error}") from None

    def colour(batch: Batch) -> Tensor:
        return choose(encoder.feature_map(batch))

    facts = replace(placed(job.image, job.windows, 3), bands=RGB, dtype=np.dtype(np.uint8), valid=1)
    with writing(path, facts, overwrite=overwrite) as put:

        def write(part: Window, values: np.ndarray, valid: np.ndarray) -> None:
            put((part, np.rint(values.clip(0, 1) * 255).astype(np.uint8), valid[None]))

        go_over(reading, job.image, scene, job.windows, colour, write, values=3)
