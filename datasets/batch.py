"""Collating: samples of one stream become the Batch that crosses into `core`. Whole numbers stay whole numbers.

A batch is packed where it is read and unpacked where it is used. What is packed is small to send: voxels are written once,
straight into memory that another process can map; where everything is measured data, there is no `valid` at all.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from core.bands import BandNames
from core.batch import Batch
from core.errors import HalfseenError
from core.geometry import Unit
from datasets.sample import Failure, Incident, Sample

Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]


@dataclass(frozen=True)
class Packed:
    """A batch on its way, as arrays.

    Attributes:
        image: (B, C, *S).
        valid: (B, C, *S) or (B, 1, *S) bool; None = all of it is measured data.
        bands: channel names.
        unit: of spacing and origin.
        numbers: the other fields of `core.batch.Batch`, by name.
        incidents: images that could not be read and were replaced.
    """

    image: np.ndarray
    valid: np.ndarray | None
    bands: BandNames
    unit: Unit
    numbers: dict[str, np.ndarray]
    incidents: tuple[Incident, ...]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one size, band set and unit; images of different types become float32, the only common one."""
    return unpack(pack(samples))


def pack(samples: Sequence[Sample], *, allocate: Allocate = np.empty) -> Packed:
    """Stack samples as `collate` does, into the memory that `allocate` gives for a shape and a type."""
    first = samples[0]
    assert all(s.bands == first.bands and s.unit == first.unit for s in samples), "a batch is of one stream"
    images = [sample.image for sample in samples]
    dtypes = {image.dtype for image in images}
    times = [sample.times for sample in samples if sample.times is not None]
    dated = {"times": np.stack(times)} if len(times) == len(samples) else {}
    image = allocate((len(images), *first.image.shape), dtypes.pop() if len(dtypes) == 1 else np.dtype("f4"))
    for place, one in zip(image, images, strict=True):
        np.copyto(place, one, casting="unsafe")
    return Packed(
        image=image,
        valid=_masks([sample.valid for sample in samples], allocate),
        bands=first.bands,
        unit=first.unit,
        numbers={
            "spacing": np.array([sample.spacing for sample in samples], dtype=np.float32),
            "offset": np.stack([sample.offset for sample in samples]),
            "scale": np.stack([sample.scale for sample in samples]),
            "key": np.array([sample.key for sample in samples], dtype=np.int64),
            "index": np.array([sample.index for sample in samples], dtype=np.int64),
            "row": np.array([sample.row for sample in samples], dtype=np.int64),
            "origin": np.array([sample.origin for sample in samples], dtype=np.float32),
            **dated,
        },
        incidents=tuple(incident for sample in samples for incident in sample.incidents),
    )


def unpack(packed: Packed) -> Batch:
    """Make the batch."""
    image = torch.from_numpy(packed.image)
    if packed.valid is None:
        valid = torch.ones(image.shape, dtype=torch.bool)
    else:
        valid = torch.from_numpy(packed.valid).expand(image.shape).contiguous()
    numbers = {name: torch.from_numpy(values) for name, values in packed.numbers.items()}
    return Batch(image=image, valid=valid, bands=packed.bands, unit=packed.unit, **numbers)


def pack_or_pass(samples: Sequence[Sample | Failure], *, allocate: Allocate = np.empty) -> Packed | Failure:
    """Pack, unless a sample could not be read: then its `Failure` travels on. Nothing is raised."""
    whole: list[Sample] = []
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
        whole.append(sample)
    try:
        return pack(whole, allocate=allocate)
    except Exception as error:
        return failure_of(error, "a batch")


def failure_of(error: Exception, subject: str) -> Failure:
    """Write down an error of any kind as plain text that names what was being read."""
    notes = getattr(error, "__notes__", ())
    window = next((note.removeprefix("window ") for note in notes if note.startswith("window ")), "")
    if isinstance(error, HalfseenError):
        curable = isinstance(error, ValueError | FileNotFoundError)
        return Failure(type(error).__name__, str(error), window, curable=curable)
    first = (str(error).strip() or "no message").splitlines()[0]
    return Failure(
        "DataError",
        f"{subject}: reading failed unexpectedly with {type(error).__name__} ({first}).",
        window,
        "".join(traceback.format_exception(error)),
        curable=not isinstance(error, AssertionError | MemoryError),
    )


def _masks(masks: list[np.ndarray], allocate: Allocate) -> np.ndarray | None:
    """Stack what is valid, (B, C, *S), or (B, 1, *S) where no image's bands differ; None where all of it is."""
    if all(_is_one_value(mask) and mask.flat[0] for mask in masks):
        return None
    alike = all(mask.strides[0] == 0 or len(mask) == 1 for mask in masks)
    parts = [mask[:1] if alike else mask for mask in masks]
    stacked = allocate((len(parts), *parts[0].shape), np.dtype(bool))
    for place, part in zip(stacked, parts, strict=True):
        np.copyto(place, part)
    return stacked


def _is_one_value(mask: np.ndarray) -> bool:
    return not any(stride for stride, n in zip(mask.strides, mask.shape, strict=True) if n > 1)
