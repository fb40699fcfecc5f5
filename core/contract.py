"""What an encoder expects of its input: bands, value space, patch, spacing. Stored with the weights, applied by `preprocess`.

And, for those who train one, how many crops an image gives (`Tiles`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from core.bands import Band, BandNames
from core.errors import BandError, ConfigError
from core.geometry import Unit
from core.sensors import get_sensor
from core.shapes import Grid

EVERY: BandNames = ("*",)
"""The bands of an input that names none yet: a run names those that its images share before it begins."""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """From raw values to the encoder's value space, band by band.

    Attributes:
        method: `fixed`: (raw / full_scale - mean) / std, full_scale being 255, 65535 or 1 by the file's dtype;
            `per_image`: (raw - m) / s with m and s the mean and standard deviation of all measured voxels of that
            image and band, for modalities without an absolute scale.
        mean: one number per band, `fixed` only.
        std: one number per band, `fixed` only.
        clip: the least and the greatest physical value per band, beyond which values are cut off before they are normalised;
            `fixed` only, none = nothing is cut off.
        full_scale: False: a file's numbers are physical values as they are, or by the file's own scaling; full scale is 1
            whatever its type. Of every sensor whose bands have a physical unit.
    """

    method: Literal["fixed", "per_image"]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    clip: tuple[tuple[float, float], ...] = ()
    full_scale: bool = True

    def __post_init__(self) -> None:
        if (
            (self.method == "fixed") != bool(self.mean)
            or len(self.mean) != len(self.std)
            or any(s <= 0 for s in self.std)
        ):
            raise ConfigError(
                f"expected mean and positive std per band for 'fixed' and none for 'per_image', got {self}."
            )
        if not all(math.isfinite(number) for number in (*self.mean, *self.std)):
            raise ConfigError(f"expected finite mean and std per band, got {self}.")
        if self.clip and len(self.clip) != len(self.mean):
            raise ConfigError(f"expected as many bounds to clip to as means, and none for 'per_image', got {self}.")
        if not all(math.isfinite(low) and math.isfinite(high) and low < high for low, high in self.clip):
            raise ConfigError(f"expected finite bounds (low, high) with low < high to clip to, got {self.clip}.")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One kind of image that an encoder reads.

    Attributes:
        name: how batches, stems and streams of this kind are called, such as `photograph`.
        bands: names of the channels, each once; a file's own order never matters.
        patch: voxels per token, array order (Y X) or (Z Y X).
        size: voxels of the training crop, a multiple of `patch`.
        whole_size: voxels to which a whole image is fitted for validation and embedding, a multiple of `patch`; none =
            `size`. Crops that cover a share s of the image see it enlarged; 1 / sqrt(s) times `size` keeps that scale.
        spacing: nominal spacing per axis in `unit`; positions are measured in patches of this spacing.
        unit: mm, m, or px where no physical size is known.
        normalisation: the value space.
        background: `dark`: a black surround (a fundus photograph's corners) is not data; `none`: every voxel is.
        groups: bands that share a token, such as those of one resolution; none = every token holds all bands.
        sensor: what the band names mean, a name of `core.sensors`; none = unknown, and nothing can be checked.
    """

    name: str
    bands: BandNames
    patch: tuple[int, ...]
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: Unit
    normalisation: Normalisation
    background: Literal["none", "dark"] = "none"
    whole_size: tuple[int, ...] | None = None
    groups: tuple[BandNames, ...] = ()
    sensor: str = ""

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ConfigError(f"input '{self.name}': expected at least one band and each once, got {self.bands}.")
        grouped = [band for group in self.groups for band in group]
        if self.groups and (sorted(grouped) != sorted(self.bands) or not all(self.groups)):
            raise ConfigError(
                f"input '{self.name}': expected groups that hold each of the bands {self.bands} once, got {self.groups}."
            )
        lengths = {len(self.patch), len(self.size), len(self.spacing), len(self.whole)}
        if len(lengths) != 1 or self.ndim not in (2, 3):
            raise ConfigError(
                f"input '{self.name}': expected patch, sizes and spacing of one rank, 2 or 3, "
                f"got {self.patch}, {self.size}, {self.spacing}, {self.whole}."
            )
        for size in (self.size, self.whole):
            if any(p < 1 or s < p or s % p for s, p in zip(size, self.patch, strict=True)):
                raise ConfigError(
                    f"input '{self.name}': expected a size that the patch {self.patch} divides, got {size}."
                )
        if not all(math.isfinite(step) and step > 0 for step in self.spacing):
            raise ConfigError(f"input '{self.name}': expected positive finite spacing, got {self.spacing}.")
        if self.normalisation.mean and len(self.normalisation.mean) != len(self.bands):
            raise ConfigError(f"input '{self.name}': expected one mean per band of {self.bands}.")
        self._check_sensor()

    def _check_sensor(self) -> None:
        described = self.described
        meant = [band.name for band in described]
        named = zip(self.bands, meant, strict=True) if described else ()
        twice = [band for band, name in named if meant.count(name) > 1]
        if twice:
            raise ConfigError(
                f"input '{self.name}': expected each band of sensor '{self.sensor}' once, but {' and '.join(twice)} are "
                "names of one band; keep one of them."
            )
        physical = sorted({band.unit for band in described} - {"full scale"})
        if physical and self.normalisation.method == "fixed" and self.normalisation.full_scale:
            raise ConfigError(
                f"input '{self.name}': bands of sensor '{self.sensor}' are in {' and '.join(physical)}, not in shares of a "
                "file type's full scale; write its normalisation with full_scale=False."
            )

    @property
    def described(self) -> tuple[Band, ...]:
        """What the sensor says of each band, in the order of `bands`; empty where no sensor or no band is named."""
        if not self.sensor:
            return ()
        sensor = get_sensor(self.sensor)
        if self.bands == EVERY:
            return ()
        try:
            return tuple(sensor.find(band) for band in self.bands)
        except BandError as error:
            raise ConfigError(f"input '{self.name}': {error}") from error

    def named(self, bands: BandNames) -> BandNames:
        """Call the bands of an image as this input does, where its sensor knows them by another name, such as `B4` for `B04`.

        A name that the input itself uses is left alone, and so is all that the sensor does not know. An input that names no
        band yet calls them as the sensor does.

        Raises:
            BandError: two bands of the image are one band of the sensor.
        """
        if not self.sensor:
            return bands
        sensor = get_sensor(self.sensor)
        own = sensor.names if self.bands == EVERY else self.bands
        wanted = {sensor.find(band).name: band for band in own if band not in bands}
        renamed = tuple(wanted.get(sensor.find(band).name, band) if band in sensor else band for band in bands)
        twice = [band for band in wanted.values() if renamed.count(band) > 1]
        if twice:
            raise BandError(
                f"input '{self.name}': expected one band for {twice}, but several of {bands} are names of it."
            )
        return renamed

    @property
    def ndim(self) -> int:
        """Spatial axes: 2 or 3."""
        return len(self.patch)

    def grid(self, size: tuple[int, ...] | None = None) -> Grid:
        """Lay this input's tokens over an image of `size` voxels; none = its own `size`."""
        return Grid.of(size or self.size, self.patch, self.groups)

    @property
    def whole(self) -> tuple[int, ...]:
        """Voxels to which a whole image is fitted."""
        return self.whole_size or self.size


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How many crops an image gives in an epoch, where they may begin, and how they are shuffled.

    Attributes:
        per_image: crops of each image in an epoch; none = as many as cover it.
        plan: `free`: anywhere; `aligned`: on the grid of the file's own chunks, so that few of them are read per crop, and
            every place of the grid once before any comes again. Crops that are resized are always free.
        per_visit: crops that are drawn while an image is open, which matters where opening is dear: `.nii.gz`, JPEG.
        window: images that are open at a time; their crops are shuffled among themselves. Takes `window` images of memory
            where files cannot be read by window.
    """

    per_image: int | None = 1
    plan: Literal["free", "aligned"] = "free"
    per_visit: int = 1
    window: int = 1

    def __post_init__(self) -> None:
        if min(self.per_visit, self.window, 1 if self.per_image is None else self.per_image) < 1:
            raise ConfigError(
                "expected at least one crop per image, one per visit and a window of one image, got "
                f"per_image {self.per_image}, per_visit {self.per_visit} and window {self.window}."
            )
        if self.per_visit > 1 and self.per_image is not None and self.per_visit > self.per_image:
            raise ConfigError(
                f"expected per_visit of at most per_image, got {self.per_visit} and {self.per_image}: a visit cannot draw "
                "more crops than the image gives."
            )


@dataclass(frozen=True, kw_only=True)
class Contract:
    """Every kind of image that one encoder reads."""

    inputs: tuple[Input, ...]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.inputs]
        if not names or len(set(names)) != len(names):
            raise ConfigError(f"expected at least one input, each with its own name, got {names}.")

    def input_for(self, ndim: int, bands: BandNames) -> Input:
        """Find the input that fits an image: same rank, and all its bands present, by the same names before by others.

        Raises:
            BandError: none fits; the message lists what the encoder reads, or the names that two bands share.
        """
        ranked = [entry for entry in self.inputs if entry.ndim == ndim]
        for entry in ranked:
            if set(entry.bands) <= set(bands):
                return entry
        ambiguous: BandError | None = None
        for entry in ranked:
            try:
                if set(entry.bands) <= set(entry.named(bands)):
                    return entry
            except BandError as error:
                ambiguous = ambiguous or error
        if ambiguous is not None:
            raise ambiguous
        reads = "; ".join(f"{e.ndim}D {e.bands}" for e in self.inputs)
        raise BandError(f"expected an image that this encoder reads ({reads}), got {ndim}D with bands {bands}.")
