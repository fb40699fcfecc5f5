"""From a row of the manifest to a Sample: decode (cached), find what is data, crop, flip. Pure in (seed, epoch, row).

Two modes. `crop`, for training: photographs get a random resized crop of their content, volumes a random window at
native spacing. `whole`, for validation and evaluation: `core.preprocess.fit`, the same for everyone and every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from core.bands import BandNames, align
from core.contract import Input
from core.errors import BandError, ConfigError, DataError, HalfseenError
from core.geometry import Unit
from core.preprocess import Window, centred, content_box, cut, fit, measure, measured, offset_scale, placed, resample
from core.rng import key, numpy_rng
from datasets.cache import Cache, Decoded
from datasets.image import LazyImage
from datasets.manifest import Manifest
from datasets.readers import open_image
from datasets.readers.base import Reader
from datasets.tiling import Starts, random_crop, random_window

_ASPECT = (3 / 4, 4 / 3)
_MIN_CONTENT = 0.5  # of a training crop must be data
_ATTEMPTS = 10
_TRAVEL = {"u1", "i1", "u2", "i2", "i4", "f4"}  # types that reach the device as they are; others become float32


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """One kind of training batch.

    Attributes:
        input: what the encoder expects; its `name` is the stream's.
        batch_size: samples per step over all ranks together.
        turns: steps in a row that this stream gets when several alternate.
        scale: least and largest share of the content's area that a 2D crop takes; 3D crops are at native spacing.
        flips: per spatial axis, whether a mirror image is as legal as the original; empty = none.
    """

    input: Input
    batch_size: int
    turns: int = 1
    scale: tuple[float, float] = (0.2, 1.0)
    flips: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if self.batch_size < 1 or not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"expected batch_size >= 1 and 0 < scale <= 1, got {self.batch_size} and {self.scale}.")
        if self.flips and len(self.flips) != self.input.ndim:
            raise ConfigError(
                f"stream '{self.name}': expected one flip per axis of {self.input.ndim}, got {self.flips}."
            )
        if self.input.ndim == 2 and self.input.unit != "px":
            raise ConfigError(
                f"stream '{self.name}': expected unit px, got {self.input.unit}: 2D images are resized, and a size in "
                f"{self.input.unit} would no longer be true."
            )
        if self.input.background == "dark" and self.input.ndim != 2:
            raise ConfigError(f"stream '{self.name}': a dark background is found on 2D images only.")

    @property
    def name(self) -> str:
        """The input's name."""
        return self.input.name


@dataclass(frozen=True, kw_only=True)
class Item:
    """What a sampler asks a dataset for; everything a sample depends on besides the manifest.

    Attributes:
        stream: position among the dataset's streams.
        row: row of the manifest.
        index: position in the stream's endless order.
        epoch: pass over the stream's rows; no part of a `whole` sample.
        mode: `crop` or `whole`.
    """

    stream: int
    row: int
    index: int
    epoch: int = 0
    mode: Literal["crop", "whole"] = "crop"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image on its way into a batch; fields as in `core.batch.Batch`, without the batch axis."""

    image: np.ndarray
    valid: np.ndarray
    bands: BandNames
    spacing: tuple[float, ...]
    unit: Unit
    offset: np.ndarray
    scale: np.ndarray
    key: int
    index: int
    row: int
    origin: tuple[float, ...]


@dataclass(frozen=True)
class Failure:
    """A reading error on its way out of a worker process: plain text, so that nothing can fail to cross."""

    kind: str
    message: str


@dataclass(frozen=True)
class _Place:
    """Where a photograph's crop lies in its whole image as `fit` shows it: start, and step from pixel to pixel."""

    start: tuple[float, ...]
    step: tuple[float, ...]


class TileDataset:
    """Samples by description: `dataset[Item(...)]`, and `dataset.__getitems__` for a whole batch.

    Picklable, cheap to send to workers; every process has its own cache of decoded images. The class keeps no random
    state: the same item gives the same sample anywhere.
    """

    def __init__(
        self,
        manifest: Manifest,
        streams: Sequence[StreamSpec],
        *,
        seed: int,
        cache_bytes: int = 1 << 30,
        readers: tuple[Reader, ...] = (),
    ) -> None:
        """Hold what samples are made of; nothing is read.

        Args:
            manifest: the collection.
            streams: what each kind of sample looks like.
            seed: of crops, flips and keys.
            cache_bytes: memory for decoded images, per process.
            readers: readers with options, as given to `build_manifest`.
        """
        self.manifest = manifest
        self.streams = tuple(streams)
        self.seed = seed
        self.readers = readers
        self._cache = Cache(cache_bytes)

    def __getitem__(self, item: Item) -> Sample:
        """Read one sample.

        Raises:
            DataError: its file cannot be read, or changed since the manifest was built; the message names it.
        """
        if item.mode == "whole":
            return self._whole(item)
        return self._volume(item) if self.streams[item.stream].input.ndim == 3 else self._photograph(item)

    def __getitems__(self, items: Sequence[Item]) -> list[Sample | Failure]:
        """Read a batch; a user's error becomes a `Failure`, which `collate` passes on and the loader raises."""
        samples: list[Sample | Failure] = []
        for item in items:
            try:
                samples.append(self[item])
            except HalfseenError as error:
                return [Failure(type(error).__name__, str(error))]
        return samples

    def _photograph(self, item: Item) -> Sample:
        """Random resized crop: of the draws in turn, the first that is at least half content, else the best of ten."""
        spec = self.streams[item.stream]
        decoded = self._decoded(item)
        box = tuple(slice(0, n) for n in decoded.image.shape[1:])
        if decoded.valid is not None:
            box = content_box(decoded.valid)
        best, most = (box[0], box[1]), -1.0
        for draw in range(_ATTEMPTS):
            window = random_crop(box, spec.scale, _ASPECT, self._rng("crop", item, draw))
            share = 1.0 if decoded.valid is None else float(decoded.valid[window].mean())
            if share > most:
                best, most = window, share
            if share >= _MIN_CONTENT:
                break
        pixels = decoded.image[(slice(None), *best)]
        inside = np.ones(pixels.shape[1:], dtype=bool) if decoded.valid is None else decoded.valid[best]
        entry = spec.input
        image, valid = resample(pixels, inside, (entry.size[0], entry.size[1]))
        starts, lengths = placed(best, box, entry.whole)
        mirrored = self._mirrored(item)
        starts = tuple(
            whole - start - length if turned else start
            for start, length, whole, turned in zip(starts, lengths, entry.whole, mirrored, strict=True)
        )
        place = _Place(starts, tuple(length / n for length, n in zip(lengths, entry.size, strict=True)))
        return self._sample(item, _flip(image, mirrored), _flip(valid, mirrored), decoded, place)

    def _volume(self, item: Item) -> Sample:
        """Random window at native spacing; a volume shorter than the window along an axis is centred in it.

        Of the draws in turn, the first of whose voxels at least half are data (padding not counted), else the best.
        """
        size = self.streams[item.stream].input.size
        best: tuple[np.ndarray, np.ndarray, Decoded] | None = None
        for draw in range(_ATTEMPTS):
            rng = self._rng("crop", item, draw)
            decoded, start = self._placed(item, lambda box, rng=rng: random_window(box, size, rng))  # type: ignore[misc]
            image, valid = cut(decoded.image, _everywhere(decoded), start, size)
            if best is None or valid.sum() > best[1].sum():
                best = image, valid, decoded
            possible = math.prod(min(s, n) for s, n in zip(size, self._fact("shape", item.row)[1:], strict=True))
            if valid.sum() >= _MIN_CONTENT * possible:
                break
        assert best is not None
        image, valid, decoded = best
        mirrored = self._mirrored(item)
        return self._sample(item, _flip(image, mirrored), _flip(valid, mirrored), decoded)

    def _whole(self, item: Item) -> Sample:
        size = self.streams[item.stream].input.whole
        if len(size) == 2:
            decoded = self._decoded(item)
            image, fitted = fit(decoded.image, _everywhere(decoded), size)
            return self._sample(item, image, fitted[0], decoded)
        # What `fit` does to a volume, without reading more of a large file than the window.
        decoded, start = self._placed(item, lambda box: centred(box, size))
        image, valid = cut(decoded.image, _everywhere(decoded), start, size)
        return self._sample(item, image.astype(np.float32), valid, decoded)

    def _placed(self, item: Item, place: Callable[[Window], Starts]) -> tuple[Decoded, Starts]:
        """Place a window in the content of a volume and read what it needs: the volume, or no more than the window.

        The start is relative to the array that comes with it.
        """
        held = self._cache.get((item.stream, item.row))
        lazy = self._open(item) if held is None else None
        # Where a volume's content lies is known without reading it only if it cannot hold NaN; an exam must be exact.
        exact = lazy is not None and (item.mode == "whole" and lazy.dtype.kind == "f")
        if lazy is None or not lazy.windowed or exact:
            decoded = held or self._decoded(item, lazy)
            return decoded, place(content_box(_everywhere(decoded)))
        entry = self.streams[item.stream].input
        size = entry.whole if item.mode == "whole" else entry.size
        start = place(tuple(slice(0, n) for n in lazy.size))
        inside = tuple(slice(max(0, a), min(n, a + s)) for a, s, n in zip(start, size, lazy.size, strict=True))
        decoded = self._found(item, self._bands(item, lazy, lazy.read(inside)))
        return decoded, tuple(a - part.start for a, part in zip(start, inside, strict=True))

    def _sample(
        self, item: Item, image: np.ndarray, valid: np.ndarray, decoded: Decoded, place: _Place | None = None
    ) -> Sample:
        spec = self.streams[item.stream].input
        dtype = decoded.image.dtype
        if item.mode == "crop" and image.dtype != dtype:  # resampled: whole numbers travel as whole numbers
            image = np.rint(image).astype(dtype) if dtype.kind in "iu" else image.astype(dtype)
        if image.dtype.str[1:] not in _TRAVEL:
            image = image.astype(np.float32)
        if image.dtype.kind == "f":
            image = np.where(valid, image, 0.0).astype(np.float32)
        offset, scale = self._value_space(item, decoded)
        spacing, unit = self._spacing(item)
        origin = (0.0,) * len(spacing)
        if place is not None:
            origin = tuple(start * step for start, step in zip(place.start, spacing, strict=True))
            spacing = tuple(step * share for step, share in zip(spacing, place.step, strict=True))
        stream = (spec.name, item.epoch) if item.mode == "crop" else (spec.name, "whole")
        return Sample(
            image=np.ascontiguousarray(image),
            valid=np.ascontiguousarray(np.broadcast_to(valid, image.shape)),
            bands=spec.bands,
            spacing=spacing,
            unit=unit,
            offset=offset,
            scale=scale,
            key=key(self.seed, "sample", *stream, item.row),
            index=item.index,
            row=item.row,
            origin=origin,
        )

    def _value_space(self, item: Item, decoded: Decoded) -> tuple[np.ndarray, np.ndarray]:
        normalisation = self.streams[item.stream].input.normalisation
        try:
            return offset_scale(normalisation, decoded.image.dtype, decoded.mean, decoded.std)
        except DataError as error:
            raise DataError(f"{self.manifest.path(item.row)}: {error}") from None

    def _spacing(self, item: Item) -> tuple[tuple[float, ...], Unit]:
        """The file's spacing where it is physical; pixels have no size of their own, so the encoder's nominal one."""
        spec = self.streams[item.stream].input
        if spec.unit == "px":
            return spec.spacing, "px"
        return tuple(self._fact("spacing", item.row)), spec.unit

    def _mirrored(self, item: Item) -> tuple[bool, ...]:
        """Draw along which axes this sample is mirrored."""
        flips = self.streams[item.stream].flips or (False,) * self.streams[item.stream].input.ndim
        drawn = self._rng("flip", item, 0).random(len(flips)) < 0.5
        return tuple(bool(legal and hit) for legal, hit in zip(flips, drawn, strict=True))

    def _rng(self, use: str, item: Item, draw: int) -> np.random.Generator:
        return numpy_rng(self.seed, use, self.streams[item.stream].name, item.epoch, item.row, draw)

    def _fact(self, name: str, row: int) -> Any:
        return self.manifest.table[name][row].as_py()

    def _open(self, item: Item) -> LazyImage:
        path = self.manifest.path(item.row)
        lazy = open_image(path, *self.readers)
        expected = self._fact("bytes", item.row)
        if path.stat().st_size != expected or list(lazy.shape) != self._fact("shape", item.row):
            raise DataError(f"{path}: the file changed since the manifest was built; build the manifest again.")
        return lazy

    def _decoded(self, item: Item, lazy: LazyImage | None = None) -> Decoded:
        name = (item.stream, item.row)
        held = self._cache.get(name)
        if held is None:
            lazy = lazy or self._open(item)
            held = self._found(item, self._bands(item, lazy, lazy.read()))
            self._cache.put(name, held)
        return held

    def _bands(self, item: Item, lazy: LazyImage, image: np.ndarray) -> np.ndarray:
        try:
            order = align(lazy.bands, self.streams[item.stream].input.bands)
        except BandError as error:
            raise BandError(f"{lazy.path}: {error}") from None
        return image if order is None else image[order]

    def _found(self, item: Item, image: np.ndarray) -> Decoded:
        spec = self.streams[item.stream].input
        valid = measured(image, spec)
        mean = std = None
        if spec.normalisation.method == "per_image":
            bands: list[str] = self._fact("bands", item.row)
            stored = self._fact("mean", item.row), self._fact("std", item.row)
            if stored[0] is not None:
                order = [bands.index(band) for band in spec.bands]
                mean, std = (np.array(values)[order] for values in stored)
            else:
                mean, std = measure(image, valid)
        return Decoded(image, None if valid.all() else valid, mean, std)


def _everywhere(decoded: Decoded) -> np.ndarray:
    return np.ones(decoded.image.shape[1:], dtype=bool) if decoded.valid is None else decoded.valid


def _flip(array: np.ndarray, mirrored: tuple[bool, ...]) -> np.ndarray:
    turned: list[Any] = [slice(None, None, -1 if hit else 1) for hit in mirrored]
    flipped: np.ndarray = array[(Ellipsis, *turned)]
    return flipped
