"""Scenes as the verbs see them: bands by name or not at all, and an open config fitted to the images that are there."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from core.bands import RGB, BandNames
from core.contract import Contract, Input, Normalisation
from core.engine.config import Pretrain
from core.errors import BandError, DataError
from core.preprocess import centred, check_range, full_scale
from core.recipes.base import RecipeSpec
from core.sensors import get_sensor
from datasets import Manifest, scene_set
from datasets.opening import Images
from domains.satellite.domain import EVERY, FLIPS, is_open
from domains.verbs.collection import median_spacing, with_contract
from domains.verbs.domain import Domain, Kind, Samples

SCENES = 24  # of the sample set, in four files each

_UNNAMED = re.compile(r"band_\d+")  # what readers call the bands of a file that names none
_LOOKED_AT, _SIDE = 6, 256  # images whose values are compared with a sensor's unit, and pixels along each side of them


def check_names(manifest: Manifest) -> None:
    """Refuse images whose bands have no names: nothing tells which is which, and order means nothing.

    Raises:
        BandError: names the first such file and the reader's option that names its bands.
    """
    for row, bands in _kinds_of_bands(manifest).items():
        unnamed = [band for band in bands if _UNNAMED.fullmatch(band)]
        if unnamed:
            reader = manifest.column("reader")[row]
            raise BandError(
                f"{manifest.path(row)}: expected bands with names, the file names {len(bands) - len(unnamed)} of its "
                f"{len(bands)}; name all {len(bands)} in the file's order with the reader's option, such as "
                f"--options {_option(reader, _for_example(len(bands)))}{_of_store(reader)}."
            )


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
    for entry in inputs:
        check_values(manifest, entry)
    if inputs == encoder.contract.inputs:
        return config
    recipe: RecipeSpec = replace(config.recipe, encoder=with_contract(encoder, Contract(inputs=inputs)))  # type: ignore[type-var]
    return replace(config, recipe=recipe)


def check_values(manifest: Manifest, entry: Input) -> None:
    """Refuse scenes that lack bands of an input, or whose values are not in its sensor's unit, by a look at some pixels.

    Raises:
        BandError: names the file, the bands or the median that does not fit, and the cure.
    """
    _require(manifest, entry)
    if not entry.sensor:
        return
    images = Images(manifest)
    for row in np.unique(np.linspace(0, len(manifest) - 1, _LOOKED_AT).round().astype(int)):
        low, median, high = _percentiles(images, int(row), entry)
        check_range(entry, low, median, high, source=str(manifest.path(int(row))))


def _require(manifest: Manifest, entry: Input) -> None:
    for row, bands in _kinds_of_bands(manifest).items():
        missing = [band for band in entry.bands if band not in bands]
        if missing:
            raise BandError(
                f"{manifest.path(row)}: expected bands {entry.bands} for input '{entry.name}', the image has {bands} and "
                f"lacks {', '.join(missing)}; {_cure(entry, bands, manifest.column('reader')[row])}"
            )


def _closed(entry: Input, manifest: Manifest) -> Input:
    """Measure what an open input leaves open."""
    bands = _shared_bands(entry, manifest)
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
        bands=bands,
        unit="m" if units == ["m"] else "px",
        spacing=spacing,
        normalisation=_measured(manifest, bands, in_shares),
        sensor=sensor,
    )


def _shared_bands(entry: Input, manifest: Manifest) -> BandNames:
    """Give the bands to read: those that the input names, else those of the first scene, which all others must have."""
    if entry.bands != EVERY:
        _require(manifest, entry)
        return entry.bands
    kinds = _kinds_of_bands(manifest)
    first, bands = next(iter(kinds.items()))
    for row, others in kinds.items():
        if set(others) != set(bands):
            raise BandError(
                f"expected scenes of the same bands, but {manifest.path(first)} has {bands} and {manifest.path(row)} has "
                f"{others}: choose bands that all of them have with --bands, or train "
                "on one kind of scene."
            )
    return bands


def _measured(manifest: Manifest, bands: BandNames, in_shares: bool) -> Normalisation:
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
    count, first, second = (np.zeros(len(bands)) for _ in range(3))
    for row in train:
        own, mean, std = _moments(facts[row], bands, in_shares)
        known = own > 0  # a band without any data has no mean
        count += own
        first += np.where(known, own * np.nan_to_num(mean), 0.0)
        second += np.where(known, own * (np.nan_to_num(std) ** 2 + np.nan_to_num(mean) ** 2), 0.0)
    mean = first / np.maximum(count, 1.0)
    std = np.sqrt(np.maximum(second / np.maximum(count, 1.0) - mean**2, 0.0))
    constant = [band for band, spread, top in zip(bands, std, np.abs(mean), strict=True) if spread <= 1e-6 * top]
    if constant:
        raise DataError(
            f"expected bands that differ from pixel to pixel, but {', '.join(constant)} is the same or missing everywhere; "
            f"leave it out: --bands={','.join(b for b in bands if b not in constant)}"
        )
    return Normalisation(method="fixed", mean=_rounded(mean), std=_rounded(std), full_scale=in_shares)


def _moments(facts: dict[str, Any], bands: BandNames, in_shares: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count of measured pixels, mean and deviation of each band of one scene, in physical values."""
    order = [facts["bands"].index(band) for band in bands]
    mean, std, share = (np.array(facts[name], dtype=np.float64)[order] for name in ("mean", "std", "valid_share"))
    scaling = np.reshape(facts["scaling"] or (1.0, 0.0) * len(facts["bands"]), (-1, 2))[order]
    if facts["scaling"] is None and in_shares:
        scaling = scaling / full_scale(np.dtype(facts["dtype"]))
    pixels = float(np.prod(facts["shape"][1:]))
    return share * pixels, mean * scaling[:, 0] + scaling[:, 1], std * np.abs(scaling[:, 0])


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


def _percentiles(images: Images, row: int, entry: Input) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The 1st, 50th and 99th percentile of each band in the middle of one scene's content, in physical values, else NaN."""
    lazy = images.open(row)
    ends: list[int] = images.fact(row, "content")
    box = tuple(slice(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True))
    lengths = tuple(min(_SIDE, part.stop - part.start) for part in box)
    window = tuple(slice(a, a + n) for a, n in zip(centred(box, lengths), lengths, strict=True))
    values, valid = lazy.read_valid(window, entry.bands)
    found = np.full((3, len(entry.bands)), np.nan)
    for number, band in enumerate(entry.bands):
        step, shift = lazy.scaling[lazy.bands.index(band)] if lazy.scaling else (1.0, 0.0)
        if lazy.scaling is None and entry.normalisation.full_scale:
            step = 1.0 / full_scale(values.dtype)
        known = values[number][valid[number if len(valid) > 1 else 0]].astype(np.float64) * step + shift
        if known.size:
            found[:, number] = np.percentile(known, (1, 50, 99))
    return found[0], found[1], found[2]


def _kinds_of_bands(manifest: Manifest) -> dict[int, BandNames]:
    """Give the first row of each list of bands, in the order of the rows."""
    found: dict[BandNames, int] = {}
    for row, bands in enumerate(manifest.column("bands")):
        found.setdefault(tuple(bands), row)
    return {row: bands for bands, row in found.items()}


def _cure(entry: Input, bands: BandNames, reader: str) -> str:
    """Say what to do about missing bands: rename those that the sensor knows by another name."""
    known = get_sensor(entry.sensor) if entry.sensor else None
    called: dict[str, str] = defaultdict(str)
    for band in known.bands if known else ():
        called |= {alias: band.name for alias in band.aliases}
    renamed = tuple(called[band] or band for band in bands)
    if set(entry.bands) <= set(renamed):
        if reader == "asset_files":  # a STAC item names its bands itself
            return f"they are there under other names: call them {', '.join(renamed)} in the STAC items."
        return f"they are there under other names: say so with --options {_option(reader, renamed)}."
    if is_open(entry):
        return "choose from those that are there with --bands."
    return "name the bands of the files, or pretrain on the bands that are there with the preset tiny."


def _option(reader: str, bands: BandNames) -> str:
    """The reader's option that names bands, as it is typed."""
    if reader == "band_files":
        return "band_files.names=common"
    return f"{reader}.bands=[{','.join(bands)}]"


def _for_example(count: int) -> BandNames:
    """As many names as a file has bands."""
    return (*("blue", "green", "red", "nir")[:count], *(f"b{number}" for number in range(5, count + 1)))


def _of_store(reader: str) -> str:
    """Say more of a prepared store: a collection of them was described when it was made."""
    if reader != "zarr_array":
        return ""
    return "; prepared stores, when they are made: python -m datasets.convert SRC DST --overwrite --option geotiff.bands=[...]"


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
    check_values=check_values,
)
