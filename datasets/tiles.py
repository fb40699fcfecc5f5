"""From an item to a Sample: open or decode (kept), find what is data, crop, flip. Pure in (seed, epoch, row, tile).

Two modes. `crop`, for training: photographs get a random resized crop of their content, volumes and scenes a window at
native spacing. `whole`, for validation and evaluation: what `core.preprocess.prepare` does, the same at every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.errors import DataError
from core.geometry import Unit
from core.preprocess import Window, centred, content_box, cut, fit, measure, measured, offset_scale, placed, resample
from core.rng import key, numpy_rng
from datasets.assign import called_as
from datasets.batch import failure_of
from datasets.cache import Cache, Decoded
from datasets.image import LazyImage
from datasets.manifest import Manifest
from datasets.opening import Images
from datasets.sample import Failure, Incident, Item, Sample, StreamSpec
from datasets.samplers import shuffled
from datasets.tiling import Starts, grid_cells, random_crop, random_window
from datasets.times import frame_of

__all__ = ["Failure", "Item", "Sample", "StreamSpec", "TileDataset"]

_ASPECT = (3 / 4, 4 / 3)
_MIN_CONTENT = 0.5  # of a training crop must be data
_ATTEMPTS = 10
_TRAVEL = {"u1", "i1", "u2", "i2", "i4", "f4"}  # types that reach the device as they are; others become float32


@dataclass(frozen=True)
class _Place:
    """Where a crop begins in its whole image, and its step from pixel to pixel, both in pixels of that image."""

    start: tuple[float, ...]
    step: tuple[float, ...]


class TileDataset:
    """Samples by description: `dataset[Item(...)]`, and `dataset.__getitems__` for a whole batch.

    Picklable, cheap to send to workers; every process has its own cache of decoded images and of opened ones, which its
    threads share. The class keeps no random state: the same item gives the same sample anywhere.
    """

    def __init__(
        self, manifest: Manifest, streams: Sequence[StreamSpec], *, seed: int, cache_bytes: int = 1 << 30
    ) -> None:
        """Hold what samples are made of; nothing is read.

        Args:
            manifest: the collection; each image is opened by the reader and the options that it names.
            streams: what each kind of sample looks like.
            seed: of crops, flips and keys.
            cache_bytes: memory for decoded images, per process.
        """
        self.manifest = manifest
        self.streams = tuple(streams)
        self.seed = seed
        self._images = Images(manifest)
        self._cache = Cache(cache_bytes)
        self._dated = _dated(manifest)

    def __getitem__(self, item: Item) -> Sample:
        """Read one sample.

        Raises:
            DataError: its file cannot be read, or changed since the manifest was built; the message names it.
        """
        if item.mode == "whole":
            return self._whole(item)
        return self._native(item) if self.streams[item.stream].native else self._resized(item)

    def __getitems__(self, items: Sequence[Item]) -> list[Sample | Failure]:
        """Read a batch; what cannot be read, nor replaced, becomes a `Failure`, which the loader raises."""
        samples: list[Sample | Failure] = []
        for item in items:
            sample = self._attempt(item)
            if isinstance(sample, Failure):
                return [sample]
            samples.append(sample)
        return samples

    def _attempt(self, item: Item) -> Sample | Failure:
        """Read a sample, or the first of its substitutes that can be read."""
        incidents: list[Incident] = []
        wanted = [item, *(replace(item, row=row, instead_of=item.row) for row in item.substitutes)]
        for number, one in enumerate(wanted):
            try:
                return replace(self[one], incidents=tuple(incidents)) if incidents else self[one]
            except Exception as error:
                path = str(self.manifest.path(one.row))
                failure = failure_of(error, path)
                if not failure.curable or number == len(wanted) - 1:
                    return failure
                substitute = str(self.manifest.path(wanted[number + 1].row))
                name = self.streams[item.stream].name
                incidents.append(Incident(name, item.index, path, failure.window, failure.message, substitute))
        raise AssertionError("the last one returns")

    def _resized(self, item: Item) -> Sample:
        """Random resized crop: of the draws in turn, the first that is at least half content, else the best of ten."""
        spec = self.streams[item.stream]
        decoded = self._decoded(item)
        data = None if decoded.valid is None else decoded.valid[0]
        box = tuple(slice(0, n) for n in decoded.image.shape[1:]) if data is None else content_box(data)
        best, most = (box[0], box[1]), -1.0
        for draw in range(_ATTEMPTS):
            window = random_crop(box, spec.scale, _ASPECT, self._rng("crop", item, draw))
            share = 1.0 if data is None else float(data[window].mean())
            if share > most:
                best, most = window, share
            if share >= _MIN_CONTENT:
                break
        pixels = decoded.image[(slice(None), *best)]
        inside = np.ones(pixels.shape[1:], dtype=bool) if data is None else data[best]
        entry = spec.input
        image, valid = resample(pixels, inside, (entry.size[0], entry.size[1]))
        if image.dtype != decoded.image.dtype:  # whole numbers travel as whole numbers
            dtype = decoded.image.dtype
            image = np.rint(image).astype(dtype) if dtype.kind in "iu" else image.astype(dtype)
        starts, lengths = placed(best, box, entry.whole)
        mirrored = self._mirrored(item)
        starts = _turned(starts, lengths, entry.whole, mirrored)
        place = _Place(starts, tuple(length / n for length, n in zip(lengths, entry.size, strict=True)))
        return self._sample(item, _flip(image, mirrored), _flip(valid[None], mirrored), decoded, place)

    def _native(self, item: Item) -> Sample:
        """Window at native spacing; an image shorter than the window along an axis is centred in it.

        Of the draws in turn, the first of whose voxels at least half are data (padding not counted), else the best.
        """
        entry = self.streams[item.stream].input
        length = tuple(self._images.fact(item.row, "shape"))[1:]
        possible = math.prod(min(s, n) for s, n in zip(entry.size, length, strict=True))
        best: tuple[Decoded, Starts] | None = None
        most = -1.0
        for draw in range(_ATTEMPTS):
            start = self._start(item, length, draw)
            found = self._window(item, start, entry.size)
            count = math.prod(entry.size) if found.valid is None else found.valid.sum() / len(found.valid)
            if count > most:
                best, most = (found, start), count
            if count >= _MIN_CONTENT * possible:
                break
        assert best is not None
        found, start = best
        mirrored = self._mirrored(item)
        image = _flip(found.image, mirrored)
        valid = None if found.valid is None else _flip(found.valid, mirrored)
        place = None
        if entry.ndim == 2:
            place = _Place(_turned(start, entry.size, length, mirrored), (1.0, 1.0))
        return self._sample(item, image, valid, found, place)

    def _start(self, item: Item, length: tuple[int, ...], draw: int) -> Starts:
        """Where a native crop begins: anywhere in the content, or the place on the grid whose turn it is."""
        spec = self.streams[item.stream]
        box, size = self._content(item.row), spec.input.size
        if spec.tiles.plan == "free":
            return random_window(box, size, self._rng("crop", item, draw))
        chunks = self._images.fact(item.row, "chunks")
        axes = [grid_cells(n, s, c, part) for n, s, c, part in zip(length, size, chunks, box, strict=True)]
        counts = [len(axis) for axis in axes]
        number = math.prod(counts)
        if draw == 0:
            name = (spec.name, item.epoch, item.row, *_extra(replace(item, tile=0)))
            cell = shuffled(item.tile % number, number, self.seed, "cell", *name)
        else:
            cell = int(self._rng("crop", item, draw).integers(number))
        return tuple(int(axis[at]) for axis, at in zip(axes, np.unravel_index(cell, counts), strict=True))

    def _whole(self, item: Item) -> Sample:
        spec = self.streams[item.stream]
        size = spec.input.whole
        if not spec.native:
            decoded = self._decoded(item)
            shape = decoded.image.shape[1:]
            data = np.ones(shape, dtype=bool) if decoded.valid is None else decoded.valid[0]
            image, fitted = fit(decoded.image, data, size)
            return self._sample(item, image, fitted[:1], decoded)
        found = self._window(item, centred(self._content(item.row), size), size)
        return self._sample(item, found.image.astype(np.float32), found.valid, found)

    def _window(self, item: Item, start: Starts, size: tuple[int, ...]) -> Decoded:
        """Read a native window: of an image that is held in memory, or no more of the file than the window needs."""
        held = self._cache.get((item.stream, item.row))
        if held is None:
            lazy = self._images.open(item.row)
            if lazy.windowed:
                inside = tuple(slice(max(0, a), min(n, a + s)) for a, s, n in zip(start, size, lazy.size, strict=True))
                return _padded(self._read(item, lazy, inside), inside, start, size, fresh=True)
            held = self._decoded(item, lazy)
        length = held.image.shape[1:]
        inside = tuple(slice(max(0, a), min(n, a + s)) for a, s, n in zip(start, size, length, strict=True))
        part = replace(
            held,
            image=held.image[(slice(None), *inside)],
            valid=None if held.valid is None else held.valid[(slice(None), *inside)],
        )
        return _padded(part, inside, start, size, fresh=False)

    def _decoded(self, item: Item, lazy: LazyImage | None = None) -> Decoded:
        def make() -> Decoded:
            return self._read(item, lazy or self._images.open(item.row), None)

        return self._cache.get_or_make((item.stream, item.row), make)

    def _read(self, item: Item, lazy: LazyImage, window: Window | None) -> Decoded:
        """Read the stream's bands of a window, or of everything, and say what is data and what the numbers mean."""
        spec = self.streams[item.stream]
        bands = spec.input.bands
        lazy = called_as(lazy, spec.input)
        try:
            image, valid = lazy.read_valid(window, bands)
        except Exception as error:
            error.add_note(f"window {_text(window)}")
            raise
        if not spec.native:
            valid = (measured(image, spec.input) & valid.all(axis=0))[None]
        order = [lazy.bands.index(band) for band in bands]
        scaling = None if lazy.scaling is None else tuple(lazy.scaling[position] for position in order)
        mean = std = None
        if spec.input.normalisation.method == "per_image":
            if spec.input.background == "dark":
                mean, std = measure(image, valid)
            else:
                mean, std = self._statistics(item.row, order)
        return Decoded(image, None if valid.all() else valid, mean, std, scaling)

    def _statistics(self, row: int, order: list[int]) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (np.array(self._images.fact(row, name), dtype=np.float64)[order] for name in ("mean", "std"))
        return mean, std

    def _sample(
        self, item: Item, image: np.ndarray, valid: np.ndarray | None, decoded: Decoded, place: _Place | None = None
    ) -> Sample:
        spec = self.streams[item.stream].input
        if image.dtype.str[1:] not in _TRAVEL:
            image = image.astype(np.float32)
        if valid is None:
            valid = np.broadcast_to(np.True_, image.shape)
        elif not valid.all():
            image = np.where(valid, image, image.dtype.type(0))
        offset, scale = self._value_space(item, decoded)
        spacing, unit = self._spacing(item)
        origin = (0.0,) * len(spacing)
        if place is not None:
            origin = tuple(start * step for start, step in zip(place.start, spacing, strict=True))
            spacing = tuple(step * share for step, share in zip(spacing, place.step, strict=True))
        stream = (spec.name, item.epoch) if item.mode == "crop" else (spec.name, "whole")
        return Sample(
            image=image,
            valid=np.broadcast_to(valid, image.shape),
            bands=spec.bands,
            spacing=spacing,
            unit=unit,
            offset=offset,
            scale=scale,
            key=key(self.seed, "sample", *stream, item.row, *_extra(item)),
            index=item.index,
            row=item.row,
            origin=origin,
            times=frame_of(self.manifest.table["time"][item.row].as_py()) if spec.ndim == 2 and self._dated else None,
        )

    def _value_space(self, item: Item, decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
        normalisation = self.streams[item.stream].input.normalisation
        dtype, scaling = decoded.image.dtype, decoded.scaling
        try:
            return offset_scale(normalisation, dtype, decoded.mean, decoded.std, scaling=scaling)
        except DataError as error:
            raise DataError(f"{self.manifest.path(item.row)}: {error}") from None

    def _spacing(self, item: Item) -> tuple[tuple[float, ...], Unit]:
        """The file's spacing where it is physical; pixels have no size of their own, so the encoder's nominal one."""
        spec = self.streams[item.stream].input
        if spec.unit == "px":
            return spec.spacing, "px"
        return tuple(self._images.fact(item.row, "spacing")), spec.unit

    def _content(self, row: int) -> Window:
        """The box that holds all that is measured in some band, known without reading."""
        ends: list[int] = self._images.fact(row, "content")
        return tuple(slice(start, stop) for start, stop in zip(ends[::2], ends[1::2], strict=True))

    def _mirrored(self, item: Item) -> tuple[bool, ...]:
        """Draw along which axes this sample is mirrored."""
        flips = self.streams[item.stream].flips or (False,) * self.streams[item.stream].input.ndim
        drawn = self._rng("flip", item, 0).random(len(flips)) < 0.5
        return tuple(bool(legal and hit) for legal, hit in zip(flips, drawn, strict=True))

    def _rng(self, use: str, item: Item, draw: int) -> np.random.Generator:
        name = self.streams[item.stream].name
        return numpy_rng(self.seed, use, name, item.epoch, item.row, draw, *_extra(item))


def _dated(manifest: Manifest) -> bool:
    """Whether day and hour are known of every scene: only then do batches bring them, and then all of them do."""
    times = manifest.table["time"].take(manifest.rows(ndim=2))
    return len(times) > 0 and not times.null_count and all(frame_of(time) is not None for time in times.to_pylist())


def _extra(item: Item) -> tuple[int | str, ...]:
    """What names an item's randomness beyond its row: nothing for the first crop of an image."""
    tile = ("tile", item.tile) if item.tile else ()
    return tile if item.instead_of is None else (*tile, "instead of", item.instead_of)


def _padded(part: Decoded, inside: Window, start: Starts, size: tuple[int, ...], *, fresh: bool) -> Decoded:
    """Bring what was read of a window to its full size; the result is the caller's own."""
    if part.image.shape[1:] == size:
        return part if fresh else replace(part, image=part.image.copy())
    length = part.image.shape[1:]
    valid = np.ones((1, *length), dtype=bool) if part.valid is None else part.valid
    before = tuple(a - piece.start for a, piece in zip(start, inside, strict=True))
    image, valid = cut(part.image, valid, before, size)
    return replace(part, image=image, valid=valid)


def _turned(
    starts: tuple[float, ...], lengths: Sequence[float], whole: Sequence[int], mirrored: tuple[bool, ...]
) -> tuple[float, ...]:
    """Starts as seen in the mirror image of the whole, along the mirrored axes."""
    return tuple(
        n - start - length if turned else start
        for start, length, n, turned in zip(starts, lengths, whole, mirrored, strict=True)
    )


def _flip(array: np.ndarray, mirrored: tuple[bool, ...]) -> np.ndarray:
    turned: list[Any] = [slice(None, None, -1 if hit else 1) for hit in mirrored]
    flipped: np.ndarray = array[(Ellipsis, *turned)]
    return flipped


def _text(window: Window | None) -> str:
    return "all of it" if window is None else ", ".join(f"{part.start}:{part.stop}" for part in window)
