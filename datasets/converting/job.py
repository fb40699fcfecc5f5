"""What a conversion is made of: `Settings`, a `Job` per image, its `Outcome`; and whether a store is what a job would make."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import ConfigError, DataError
from datasets.converting.derived import Order
from datasets.readers import _store
from datasets.statistics import Statistics

Bands = tuple[Statistics, ...]

STATE = ".convert"  # folder in a converted collection that a restart goes on from; it may be deleted at any time

_LARGE = 512 << 20  # bytes of voxels from which an image is divided


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the bytes of a store beside its source. Values per rank: those for 2D and for 3D images differ in length.

    Attributes:
        chunk: what is decoded at once, none = the measured choice of the format.
        shard: what is one file.
        codec: `small` or `fast`.
        spacing: resample to this.
        order: how, `linear` or `nearest` (for labels).
        dtype: type of the voxels.
        clip: round and clip to `dtype` what it does not hold, instead of refusing it.
        crop: keep only the box that holds every measured voxel.

    Raises:
        ConfigError: numbers that cannot be, or an option without effect: `clip` without `dtype`, `order` without `spacing`.
    """

    chunk: tuple[tuple[int, ...], ...] = ()
    shard: tuple[tuple[int, ...], ...] = ()
    codec: _store.CodecName = "small"
    spacing: tuple[tuple[float, ...], ...] = ()
    order: Order = "linear"
    dtype: str = ""
    clip: bool = False
    crop: bool = False

    def __post_init__(self) -> None:
        for name in ("chunk", "shard", "spacing"):
            given = getattr(self, name)
            ranks = [len(values) for values in given]
            if any(rank not in (2, 3) for rank in ranks) or len(set(ranks)) < len(ranks):
                raise ConfigError(f"expected {name} once per rank, with two or three numbers, got {given}.")
            if any(not v > 0 or not math.isfinite(v) for values in given for v in values):
                raise ConfigError(f"expected positive numbers for {name}, got {given}.")
        if self.clip and not self.dtype:
            raise ConfigError("--clip has no effect without --dtype, whose limits it keeps: add that, or leave it out.")
        if self.order != "linear" and not self.spacing:
            raise ConfigError(f"--order {self.order} has no effect without --spacing: add that, or leave it out.")

    def refuse_idle(self, ndims: Collection[int]) -> None:
        """Refuse values for a rank that no image has.

        Raises:
            ConfigError: there is one; the message names the option and the ranks that images have.
        """
        for name in ("chunk", "shard", "spacing"):
            idle = next((values for values in getattr(self, name) if len(values) not in ndims), None)
            if idle is not None:
                found = " and ".join(f"{ndim}D" for ndim in sorted(ndims))
                raise ConfigError(
                    f"--{name} {','.join(f'{value:g}' for value in idle)} has no effect: it is for {len(idle)}D images, "
                    f"and all of these are {found}; give {' or '.join(str(ndim) for ndim in sorted(ndims))} numbers, or "
                    "leave it out."
                )

    def of_rank(self, name: str, ndim: int) -> tuple[Any, ...] | None:
        """The value for images of a rank, or None."""
        return next((values for values in getattr(self, name) if len(values) == ndim), None)

    def recorded(self, ndim: int) -> dict[str, Any]:
        """What of this matters to an image of a rank, as its store keeps it."""
        found: dict[str, Any] = {name: self.of_rank(name, ndim) for name in ("chunk", "shard", "spacing")}
        found = {name: list(values) for name, values in found.items() if values is not None}
        found |= {"order": self.order} if "spacing" in found else {}
        found |= {"dtype": self.dtype, "clip": self.clip} if self.dtype else {}
        return found | ({"crop": True} if self.crop else {}) | ({"codec": self.codec} if self.codec != "small" else {})

    @property
    def keeps_values(self) -> bool:
        """Whether voxels stay as they are."""
        return not (self.spacing or self.dtype or self.crop)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One image to convert; picklable.

    Attributes:
        path: the source.
        file: its name relative to its collection.
        target: the store to write.
        root: folder that the converted collection lies in.
        facts: the source's row of the manifest.
        settings: what to do.
        draft: where a divided image is written; the same for all its tasks.
    """

    path: Path
    file: str
    target: Path
    root: Path
    facts: dict[str, Any]
    settings: Settings
    draft: Path = field(default=Path())

    @property
    def source(self) -> dict[str, Any]:
        """What the store says of where it comes from; equal to this = up to date."""
        return {
            "file": self.file,
            "digest": self.facts["digest"],
            "reader": self.facts["reader"],
            "options": list(self.facts["options"] or ()),
            "settings": self.settings.recorded(self.facts["ndim"]),
        }

    @property
    def voxel_bytes(self) -> int:
        """Bytes of the source's voxels."""
        return voxel_bytes(self.facts)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one image: facts for its row of the manifest and statistics per band, or what went wrong."""

    file: str
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    statistics: Bands = ()
    seconds: float = 0.0
    skipped: bool = False


def voxel_bytes(facts: dict[str, Any]) -> int:
    """Bytes of the voxels of an image, by its row of a manifest."""
    size: int = math.prod(facts["shape"]) * np.dtype(facts["dtype"]).itemsize
    return size


def up_to_date(job: Job) -> str | None:
    """Compare a store that is there with the job: nothing = up to date, else what differs; None = there is no store."""
    if not job.target.exists():
        return None
    try:
        found = _store.read_attributes(job.target)
    except DataError as error:
        return str(error)
    said = (found or {}).get("source", {})
    wanted = json.loads(json.dumps(job.source))
    for name, what in (
        ("digest", "its source has other content"),
        ("reader", "another reader"),
        ("options", "options"),
    ):
        if said.get(name) != wanted[name]:
            return what if name == "digest" else f"{what}: {said.get(name)} then, {wanted[name]} now"
    if said.get("settings") != wanted["settings"]:
        return f"settings {said.get('settings')} then, {wanted['settings']} now"
    return ""


def is_divided(job: Job) -> bool:
    """Whether an image is worth being divided among workers: large, and readable in parts."""
    return job.voxel_bytes > _LARGE and list(job.facts["chunks"]) != list(job.facts["shape"])[1:]
