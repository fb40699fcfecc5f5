"""Converting one image to a prepared store: a `Job` becomes an `Outcome`.

An image is written shard by shard, so memory is that of a shard or of a source that cannot be read in parts; statistics
are taken on the way. A small image is one call of `convert_image`. A large one can be divided among workers: `begin`,
`fill` for ranges of shards, `seal`; the bytes are the same. Nothing appears under the final name before it is whole.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import DamagedError, DataError, HalfseenError, RunFolderError
from core.preprocess import Window
from datasets.collect import Entry
from datasets.content import unchanged
from datasets.converting.derived import cropped, recast, resampled
from datasets.converting.job import STATE, Bands, Job, Outcome, Settings
from datasets.examine import Gate, examine
from datasets.image import LazyImage, Source
from datasets.publishing import draft_of, publish, remove
from datasets.readers import _store, configured, open_image
from datasets.statistics import Statistics, merge_bands, of_bands
from datasets.writers import Facts
from datasets.writers._blocks import Box, Coverage
from datasets.writers.zarr_array import ZarrArray, made_by

_LIBRARIES = {
    "nifti": ("nibabel",), "geotiff": ("rasterio",), "band_files": ("rasterio",), "raster_image": ("pillow",),
    "asset_files": ("rasterio",), "dicom": ("pydicom",), "slide": ("openslide-python",), "hdf": ("h5py", "pyhdf"),
}  # fmt: skip
_KEPT = ("mean", "std", "low", "high", "valid_share", "content", "voxel_digest")  # facts of the values themselves
_GATE = Gate(1 << 30)  # bytes that all conversions of this process hold together


def convert_image(job: Job) -> Outcome:
    """Convert one image in this thread; what is wrong with it is in the outcome.

    Raises:
        RunFolderError: the place cannot be written, which ends everything.
    """
    begun = time.monotonic()
    job = replace(job, draft=draft_of(job.target))
    failed = begin(job)
    parts = [] if failed else [fill(job, 0, count_shards(job))]
    return replace(seal(job, failed, parts), seconds=time.monotonic() - begun)


def count_shards(job: Job) -> int:
    """How many files the voxels will have; headers are read, nothing is decoded.

    Raises:
        DataError: the source changed, or does not fit the settings.
    """
    image = derive(job)
    inner, outer = _shapes(job.settings, image)
    shards = _store.array_arguments(image.shape, image.dtype, chunk=inner, shard=outer)["shards"]
    return math.prod(-(-n // s) for n, s in zip(image.shape, shards, strict=True))


def begin(job: Job) -> str:
    """Create the draft, unless a lost worker did; gives what went wrong, or nothing."""
    try:
        if (job.draft / _store.IMAGE / _store.METADATA).exists():
            return ""
        remove(job.draft)
        image = derive(job)
        inner, outer = _shapes(job.settings, image)
        job.draft.parent.mkdir(parents=True, exist_ok=True)
        probe = image.source.measured(tuple(slice(0, 1) for _ in image.size), tuple(range(image.shape[0])))
        _store.create(
            job.draft,
            image.shape,
            image.dtype,
            valid=0 if probe is None else len(probe),
            chunk=inner,
            shard=outer,
            codec=job.settings.codec,
            shuffled=_store.packs_better_shuffled(_sample(image), job.settings.codec),
        )
    except (HalfseenError, OSError) as error:
        return _said(job, error)
    return ""


def fill(job: Job, first: int, stop: int) -> tuple[Bands, ...] | str:
    """Write a range of shards; gives their statistics per band, or what went wrong."""
    try:
        image, weight = derive(job), _weight(job)
        with _GATE.held(weight):
            image = image if image.windowed else _held(image)
            names = [name for name in (_store.IMAGE, _store.VALID) if (job.draft / name).exists()]
            arrays = {name: _store.writable(job.draft, name) for name in names}
            coverage = _coverage(job.draft)
            return tuple(_write(image, arrays, coverage.home(index)) for index in _range(coverage.grid, first, stop))
    except (HalfseenError, OSError) as error:
        return _said(job, error)


def seal(job: Job, failed: str, parts: Sequence[tuple[Bands, ...] | str]) -> Outcome:
    """Finish, publish and read back a draft whose shards are all written, or remove it when something went wrong."""
    failed = failed or next((part for part in parts if isinstance(part, str)), "")
    try:
        if failed:
            return Outcome(file=job.file, error=failed)
        image = derive(job)
        bands = _merged(image, _coverage(job.draft), [entry for part in parts for entry in part])  # type: ignore[misc]
        if not unchanged(job.path, size=job.facts["bytes"], mtime_ns=job.facts["mtime_ns"], digest=job.facts["digest"]):
            raise DamagedError(f"{job.path}: the file changed while it was converted; start again.")
        libraries = _LIBRARIES.get(job.facts["reader"], ())
        attributes = _store.attributes_of(
            image, statistics=_summaries(image, bands), source=job.source, made_by=made_by(*libraries)
        )
        _store.finish(job.draft, attributes)
        facts = _read_back(job, job.draft)
        publish(job.draft, job.target)
        _remember(job, facts, bands)
        return Outcome(file=job.file, facts=facts, statistics=bands)
    except (HalfseenError, OSError) as error:
        return Outcome(file=job.file, error=_said(job, error))
    finally:
        remove(job.draft)


def derive(job: Job) -> LazyImage:
    """Open the source as it was checked, cropped, resampled and recast as the settings say.

    Raises:
        DataError: it changed since, or does not fit the settings.
    """
    facts, settings = job.facts, job.settings
    if not unchanged(job.path, size=facts["bytes"], mtime_ns=facts["mtime_ns"], digest=facts["digest"]):
        raise DataError(f"{job.path}: the file changed since it was checked; start again.")
    image = open_image(job.path, *configured(facts["options"] or ()))
    if settings.crop:
        edges = facts["content"]
        image = cropped(image, tuple(slice(*edges[2 * axis : 2 * axis + 2]) for axis in range(image.ndim)))
    spacing = settings.of_rank("spacing", image.ndim)
    if spacing is not None:
        image = resampled(image, spacing, settings.order)
    if settings.dtype:
        complete = all(share == 1 for share in facts["valid_share"])
        image = recast(image, np.dtype(settings.dtype), "clip" if settings.clip else "refuse", complete=complete)
    return image


def recall(job: Job) -> Outcome:
    """Give the outcome of a store that is up to date: remembered, or read from the store."""
    note = _note(job)
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        facts, bands = said["facts"], tuple(Statistics.from_dict(entry) for entry in said["statistics"])
        if unchanged(job.target, size=facts["bytes"], mtime_ns=facts["mtime_ns"], digest=facts["digest"]):
            return Outcome(file=job.file, facts=facts, statistics=bands, skipped=True)
    except (OSError, ValueError, KeyError):
        pass  # never written, or torn by a kill: the store itself says everything
    try:
        image = open_image(job.target)
        coverage = _coverage(job.target)
        parts = [
            _statistics(image, coverage.home(index)) for index in _range(coverage.grid, 0, math.prod(coverage.grid))
        ]
        bands = _merged(image, coverage, parts)
        facts = _read_back(job, job.target)
    except HalfseenError as error:
        return Outcome(file=job.file, error=str(error))
    _remember(job, facts, bands)
    return Outcome(file=job.file, facts=facts, statistics=bands, skipped=True)


def _said(job: Job, error: Exception) -> str:
    if isinstance(error, RunFolderError) or (isinstance(error, OSError) and not isinstance(error, HalfseenError)):
        raise RunFolderError(
            f"{job.target}: cannot be written ({error}); free space or choose another folder."
        ) from error
    return str(error)


def _shapes(settings: Settings, image: LazyImage) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Inner chunk and shard (C, *S) that the settings ask for."""
    chunk, shard = (settings.of_rank(name, image.ndim) for name in ("chunk", "shard"))
    facts = Facts.of(image)
    inner = ZarrArray(chunk=chunk).inner(facts) if chunk is not None else None
    if shard is None:
        return inner, None
    return inner, (image.shape[0], *(min(s, n) for s, n in zip(shard, image.size, strict=True)))


def _sample(image: LazyImage) -> np.ndarray:
    """One chunk's worth of real numbers from the middle of the image, to try how they pack; of whole numbers, nothing."""
    if image.dtype.kind != "f":
        return np.zeros(0, dtype=image.dtype)
    bands, *chunk = _store.inner_chunk(image.shape, image.dtype)
    starts = [(n - c) // 2 for n, c in zip(image.size, chunk, strict=True)]
    window = tuple(slice(a, a + c) for a, c in zip(starts, chunk, strict=True))
    return image.read(window, image.bands[:bands])


def _weight(job: Job) -> int:
    """Bytes that filling holds: a source that is decoded as a whole, and a shard with its packed form."""
    chunks = job.facts["chunks"]
    whole = job.voxel_bytes if list(chunks) == list(job.facts["shape"])[1:] else 0
    return 2 * whole + 4 * min(job.voxel_bytes, _store.SHARD_BYTES)


def _held(image: LazyImage) -> LazyImage:
    """The image in memory, for a source that can only be decoded as a whole."""
    bands = tuple(range(image.shape[0]))
    whole = tuple(slice(0, n) for n in image.size)
    return replace(image, source=_Held(image.source.read(whole, bands), image.source.measured(whole, bands)))


@dataclass(frozen=True)
class _Held(Source):
    voxels: np.ndarray
    mask: np.ndarray | None

    def read(self, window: Window, bands: tuple[int, ...]) -> np.ndarray:
        places: tuple[Any, ...] = (list(bands), *window)
        return np.ascontiguousarray(self.voxels[places])

    def measured(self, window: Window, bands: tuple[int, ...]) -> np.ndarray | None:
        if self.mask is None:
            return None
        picked: slice | list[int] = slice(None) if len(self.mask) == 1 else list(bands)
        cut: np.ndarray = self.mask[(picked, *window)]
        return cut


def _write(image: LazyImage, arrays: dict[str, Any], box: Box) -> Bands:
    """Write one shard of the voxels, and of the mask; gives the statistics of its bands."""
    window, bands = box[1:], tuple(range(box[0].start, box[0].stop))
    voxels, valid = image.read_valid(window, tuple(image.bands[band] for band in bands))
    arrays[_store.IMAGE][box] = voxels
    mask = image.source.measured(window, bands)
    if _store.VALID in arrays:
        one = arrays[_store.VALID].shape[0] == 1
        if not one or bands[0] == 0:
            place = (slice(0, 1) if one else box[0], *window)
            arrays[_store.VALID][place] = np.ones(voxels.shape, bool)[: 1 if one else None] if mask is None else mask
    elif mask is not None and not mask.all():
        raise DataError(f"{image.path}: a mask appears in the middle of the image only; report this file's kind.")
    return of_bands(voxels, valid)


def _statistics(image: LazyImage, box: Box) -> Bands:
    return of_bands(*image.read_valid(box[1:], image.bands[box[0]]))


def _merged(image: LazyImage, coverage: Coverage, parts: Sequence[Bands]) -> Bands:
    """Merge the shards' statistics in their order, so that who wrote which changes nothing."""
    found = [Statistics.empty(image.dtype) for _ in image.bands]
    for index, part in zip(np.ndindex(*coverage.grid), parts, strict=True):
        bands = coverage.home(index)[0]
        found[bands] = merge_bands(found[bands], part)
    return tuple(found)


def _summaries(image: LazyImage, bands: Bands) -> dict[str, Any]:
    """The figures per band, by name."""
    return {
        name: {key: value for key, value in band.summary().items() if key not in ("p25", "p75")}
        for name, band in zip(image.bands, bands, strict=True)
    }


def _coverage(store: Path) -> Coverage:
    import zarr

    array = zarr.open_array(store / _store.IMAGE, mode="r")
    assert array.shards is not None
    return Coverage(array.shape, array.shards)


def _range(grid: tuple[int, ...], first: int, stop: int) -> Iterator[tuple[int, ...]]:
    for number in range(first, stop):
        yield tuple(int(i) for i in np.unravel_index(number, grid))


def _read_back(job: Job, store: Path) -> dict[str, Any]:
    """Decode what was written, compare it with the source where values stay, and give its row of the manifest."""
    facts = examine(Entry(store.parent, store.name, free=True), gate=_GATE).facts or {}
    if job.settings.keeps_values:
        before = job.facts["voxel_digest"]
        if before is not None and facts["voxel_digest"] != before:
            raise DamagedError(
                f"{job.target}: does not read back as {job.path}: memory, disk or a library altered it; start again, and "
                "check this machine if it happens twice."
            )
        facts |= {name: job.facts[name] for name in _KEPT}
    return facts


def _note(job: Job) -> Path:
    return job.root / STATE / "images" / job.target.relative_to(job.root).with_suffix(".json")


def _remember(job: Job, facts: dict[str, Any], bands: Bands) -> None:
    """Note facts and statistics, so that a restart need not decode the store again."""
    note = _note(job)
    note.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(note)
    text = json.dumps({"facts": facts, "statistics": [band.to_dict() for band in bands]})
    draft.write_text(text, encoding="utf-8")
    draft.replace(note)
