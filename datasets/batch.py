"""Collating: samples of one stream become the Batch that crosses into `core`. Whole numbers stay whole numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from core.batch import Batch
from datasets.tiles import Failure, Sample


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size, band set and unit; images of different types become float32, the only common one."""
    first = samples[0]
    assert all(s.bands == first.bands and s.unit == first.unit for s in samples), "a batch is of one stream"
    images = [sample.image for sample in samples]
    if len({image.dtype for image in images}) > 1:
        images = [image.astype(np.float32) for image in images]
    return Batch(
        image=torch.from_numpy(np.stack(images)),
        valid=torch.from_numpy(np.stack([sample.valid for sample in samples])),
        bands=first.bands,
        spacing=torch.tensor([sample.spacing for sample in samples], dtype=torch.float32),
        unit=first.unit,
        offset=torch.from_numpy(np.stack([sample.offset for sample in samples])),
        scale=torch.from_numpy(np.stack([sample.scale for sample in samples])),
        key=torch.tensor([sample.key for sample in samples], dtype=torch.int64),
        index=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
        row=torch.tensor([sample.row for sample in samples], dtype=torch.int64),
        origin=torch.tensor([sample.origin for sample in samples], dtype=torch.float32),
    )


def collate_or_pass(samples: Sequence[Sample | Failure]) -> Batch | Failure:
    """Collate, unless a sample could not be read: then its `Failure` travels to the parent process."""
    whole: list[Sample] = []
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
        whole.append(sample)
    return collate(whole)
