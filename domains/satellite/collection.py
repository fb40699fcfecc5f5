"""Scenes as the verbs see them: bands by name or not at all, and an open config fitted to the images that are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from core.bands import RGB, BandNames
from core.contract import EVERY, Contract, Input, Normalisation
from core.engine.config import Pretrain
from core.errors import BandError, DataError
from core.preprocess import centred, check_magnitude, check_range, full_scale, is_native, percentiles
from core.recipes.base import RecipeSpec
from core.sensors import get_sensor
from datasets import Manifest, scene_set
from datasets.assign import called_as, named_by
from datasets.opening import Images
from domains.satellite.domain import FLIPS, is_open
from domains.satellite.naming import Taken, check_names, note, taken_by_name
from domains.satellite.scenes import scaling_of
from domains.verbs.collection import median_spacing, say, with_contract
from domains.verbs.domain import Domain, Kind, Samples

SCENES = 24  # of the sample set, in four files each

_LOOKED_AT, _SIDE = 6, 256  # images whose values are compared with a sensor's unit, and pixels along each side of them


def resolve(config: Pretrain, manifest: Manifest) -> Pretrain:
    """Fit a config to the scenes that are there; doing it twice changes nothing.

    An open input (`domain.open_scene`) gets the bands that all scenes have, or those that it names, their median pixel
    size, and per band the mean and deviation of all measured pixels of the scenes that are trained on, in physical values
    where files say how. Any other input stays as it is, and the scenes must have its bands in its sensor's unit.

    Raises:
        BandError: scenes of different bands, a band that one of them lacks, or values in another unit.
        DataError: scenes of different units, or a band that is the same everywhere.
    """
    encoder = config.recipe.encoder
    inputs = tuple(_closed(entry, manifest) if is_open(entry) else entry for entry in encoder.contract.inputs)
    for entry, given in zip(inputs, encoder.contract.inputs, strict=True):
        if entry.sensor or not is_open(given):  # without a sensor, what was measured here is right by definition
            check_values(manifest, entry)
    if inputs == encoder.contract.inputs:
        return config
    recipe: RecipeSpec = replace(config.recipe, encoder=with_contract(encoder, Contract(inputs=inputs)))  # type: ignore[type-var]
    return replace(config, recipe=recipe)


def check_values(manifest: Manifest, entry: Input) -> None:
    """Refuse scenes that lack bands of an input, or whose values are in another unit, by a look at some pixels.

    With a sensor the unit is its (`check_range`), and names that are numbers of another sensor's product are refused too, or,
    where nothing tells the product, said (`naming`); without one, values must be of the magnitude of the input's value space
    (`check_magnitude`).

    Raises:
        BandError: names the file, the bands or the median that does not fit, and the cure.
    """
    _require(manifest, entry)
    if not entry.sensor and entry.normalisation.method == "per_image":
        return
    rows = np.unique(np.linspace(0, len(manifest) - 1, _LOOKED_AT).round().astype(int)).tolist()
    _say_taken(manifest, entry, sorted({*rows, *_kinds_of_bands(manifest)}))
    images, found = Images(manifest), []
    for row in rows:
        found.append(_percentiles(images, row, entry))
        check_range(entry, *found[-1], source=str(manifest.path(row)))
    check_magnitude(entry, *np.stack(found, axis=1), source=str(manifest.path(0)))


def _of_labels(manifest: Manifest, entry: Input) -> None:
    """Look at labelled scenes: refuse those that `check_values` refuses, and say when an encoder sees more than they hold."""
    check_values(manifest, entry)
    if not is_native(entry):  # such images are resized until they fit
        return
    sizes = [tuple(shape[1:]) for shape in manifest.column("shape")]
    smaller = [row for row, size in enumerate(sizes) if any(a < b for a, b in zip(size, entry.whole, strict=True))]
    if not smaller:
        return
    least = [min(lengths) for lengths in zip(*sizes, strict=True)]
    fits = [min(a, b) // p * p for a, b, p in zip(least, entry.whole, entry.patch, strict=True)]
    shown = f"{fits[0]}" if len(set(fits)) == 1 else ",".join(map(str, fits))
    cure = f"; --size={shown} shows no more than they hold" if all(fits) else ""
    say(
        f"{len(smaller)} of {len(sizes)} scenes are smaller than the {_by(entry.whole)} pixels that the encoder sees, such as "
        f"{manifest.path(smaller[0]).name} of {_by(sizes[smaller[0]])}: the rest is padding, which a map of larger scenes has "
        f"none of{cure}"
    )


def _by(size: Iterable[int]) -> str:
    return " x ".join(map(str, size))


def _say_taken(manifest: Manifest, entry: Input, rows: list[int]) -> None:
    """Say once for each way of naming bands what is taken for what by its name alone, and refuse other sensors' numbers."""
    platforms = manifest.column("platform") if "platform" in manifest.label_names else [None] * len(manifest)
    bands = manifest.column("bands")
    taken: dict[Taken, Path] = {}
    for row in rows:
        path = manifest.path(row)
        taken.setdefault(taken_by_name(path, tuple(bands[row]), entry, platforms[row]), path)
    for names, path in taken.items():
        if names:
            say(note(names, entry, path))


def _require(manifest: Manifest, entry: Input) -> None:
    for row, bands in _kinds_of_bands(manifest).items():
        called = named_by(bands, entry, manifest.path(row))
        missing = [band for band in entry.bands if band not in called]
        if missing:
            shared = [band for band in entry.bands if band in called]
            if is_open(entry):
                cure = "choose from those that are there with --bands."
            elif shared:
                cure = f"choose scenes that have all, or pretrain on bands that are there: tiny --bands={','.join(shared)}."
            else:
                cure = (
                    "choose scenes of the encoder's sensor, call the bands as the encoder does where they are the same, or "
                    "pretrain on those that are there with the preset tiny."
                )
            raise BandError(
                f"{manifest.path(row)}: expected bands {entry.bands} for input '{entry.name}', the image has {bands} and "
                f"lacks {', '.join(missing)}; {cure}"
            )


def _closed(entry: Input, manifest: Manifest) -> Input:
    """Measure what an open input leaves open."""
    bands = _shared_bands(entry, manifest)
    entry = replace(entry, bands=bands)
    units = sorted(set(manifest.column("unit")))
    if len(units) > 1:
        raise DataError(
            f"expected scenes whose pixels all have a size in metres, or all none, got units {' and '.join(units)}: "
            "georeference the others or leave them out."
        )
    sensor = entry.sensor or ("rgb" if set(bands) == set(RGB) and set(manifest.column("dtype")) == {"uint8"} else "")
    in_shares = bool(sensor) and {get_sensor(sensor).find(band).unit for band in bands} == {"full scale"}
    spacing = median_spacing(manifest, entry.ndim) if units == ["m"] else entry.spacing
    return replace(
        entry,
        unit="m" if units == ["m"] else "px",
        spacing=spacing,
        normalisation=_measured(manifest, entry, in_shares),
        sensor=sensor,
    )


def _shared_bands(entry: Input, manifest: Manifest) -> BandNames:
    """Give the bands to read: those that the input names, else those of the first scene, which all others must have.

    With a sensor they are called as it does, whichever of its names the files use.
    """
    if entry.bands != EVERY:
        _require(manifest, entry)
        return entry.bands
    kinds = {row: named_by(bands, entry, manifest.path(row)) for row, bands in _kinds_of_bands(manifest).items()}
    first, bands = next(iter(kinds.items()))
    for row, others in kinds.items():
        if set(others) != set(bands):
            shared = [band for band in bands if all(band in kind for kind in kinds.values())]
            cure = (
                f"choose bands that all of them have with --bands={','.join(shared)}, or train on one kind of scene."
                if shared
                else "say with --sensor whose names they are where they are names of the same bands, or train on one kind of "
                "scene."
            )
            raise BandError(
                f"expected scenes of the same bands, but {manifest.path(first)} has {bands} and {manifest.path(row)} has "
                f"{others}: {cure}"
            )
    known = [band for band in bands if not entry.sensor or band in get_sensor(entry.sensor).names]
    if len(known) < len(bands):
        raise BandError(
            f"{manifest.path(first)}: expected bands of the sensor '{entry.sensor}', each once, the image has {bands}: choose "
            f"with --bands={','.join(known) or 'NAMES'}, or leave --sensor out."
        )
    return bands


def _measured(manifest: Manifest, entry: Input, in_shares: bool) -> Normalisation:
    """Mean and deviation per band over the measured pixels of all scenes that are trained on, in physical values."""
    train = [row for row, split in enumerate(manifest.column("split")) if split in (None, "train")]
    names = ("bands", "mean", "std", "scaling", "valid_share", "shape", "dtype")
    facts = [dict(zip(names, values, strict=True)) for values in zip(*map(manifest.column, names), strict=True)]
    if len({facts[row]["scaling"] is None for row in train}) > 1:
        said = next(row for row in train if facts[row]["scaling"] is not None)
        silent = next(row for row in train if facts[row]["scaling"] is None)
        raise DataError(
            f"{manifest.path(said)} says how its numbers become physical values, {manifest.path(silent)} does not: they "
            "are not in one unit; scale the others, or train on one kind."
        )
    count, first, second = (np.zeros(len(entry.bands)) for _ in range(3))
    for row in train:
        own, mean, std = _moments(facts[row], entry, in_shares)
        known = own > 0  # a band without any data has no mean
        count += own
        first += np.where(known, own * np.nan_to_num(mean), 0.0)
        second += np.where(known, own * (np.nan_to_num(std) ** 2 + np.nan_to_num(mean) ** 2), 0.0)
    mean = first / np.maximum(count, 1.0)
    std = np.sqrt(np.maximum(second / np.maximum(count, 1.0) - mean**2, 0.0))
    constant = [band for band, spread, top in zip(entry.bands, std, np.abs(mean), strict=True) if spread <= 1e-6 * top]
    if constant:
        raise DataError(
            f"expected bands that differ from pixel to pixel, but {', '.join(constant)} is the same or missing everywhere; "
            f"leave it out: --bands={','.join(b for b in entry.bands if b not in constant)}"
        )
    return Normalisation(method="fixed", mean=_rounded(mean), std=_rounded(std), full_scale=in_shares)


def _moments(facts: dict[str, Any], entry: Input, in_shares: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count of measured pixels, mean and deviation of each band of one scene, in physical values."""
    order = list(_places(entry, tuple(facts["bands"])))
    mean, std, share = (np.array(facts[name], dtype=np.float64)[order] for name in ("mean", "std", "valid_share"))
    scaling = np.reshape(facts["scaling"] or (1.0, 0.0) * len(facts["bands"]), (-1, 2))[order]
    if facts["scaling"] is None and in_shares:
        scaling = scaling / full_scale(np.dtype(facts["dtype"]))
    pixels = float(np.prod(facts["shape"][1:]))
    return share * pixels, mean * scaling[:, 0] + scaling[:, 1], std * np.abs(scaling[:, 0])


@lru_cache(maxsize=256)
def _places(entry: Input, bands: BandNames) -> tuple[int, ...]:
    """Where the bands of an input are among those of a file."""
    called = entry.named(bands)
    return tuple(called.index(band) for band in entry.bands)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


def _percentiles(images: Images, row: int, entry: Input) -> np.ndarray:
    """The 1st, 50th and 99th percentile of each band in the middle of one scene's content, (3, C) physical values or NaN."""
    lazy = called_as(images.open(row), entry)
    ends: list[int] = images.fact(row, "content")
    box = tuple(slice(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True))
    lengths = tuple(min(_SIDE, part.stop - part.start) for part in box)
    window = tuple(slice(a, a + n) for a, n in zip(centred(box, lengths), lengths, strict=True))
    values, valid = lazy.read_valid(window, entry.bands)
    return percentiles(values, valid, lazy.dtype, entry, scaling_of(lazy, entry))


def _kinds_of_bands(manifest: Manifest) -> dict[int, BandNames]:
    """Give the first row of each list of bands, in the order of the rows."""
    found: dict[BandNames, int] = {}
    for row, bands in enumerate(manifest.column("bands")):
        found.setdefault(tuple(bands), row)
    return {row: bands for bands, row in found.items()}


def _draw(folder: Path) -> Path:
    return scene_set(folder, scenes=SCENES) / "labels.csv"


SATELLITE = Domain(
    name="satellite",
    title="Satellite",
    kinds=(Kind(name="scene", ndim=2, flips=FLIPS),),
    samples=Samples(
        folder=f"satellite-samples-{SCENES}",
        draw=_draw,
        label="cover",
        group="scene",
        announcement="SYNTHETIC sample set (no --data was given): drawn by a program, no satellite was involved.",
        warning="Synthetic scenes: these scores say that the software works, nothing about the Earth.",
    ),
    resolve=resolve,
    check=check_names,
    check_values=_of_labels,
)
