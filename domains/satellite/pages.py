"""The page beside maps or features: `report.html` of several that one command made, `NAME.report.html` of a single one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.contract import Input
from core.engine.environment import environment
from core.errors import DataError, RunFolderError
from core.heads.load import Model
from core.inference import Windows
from core.report.facts import lines
from core.report.html import shown_by
from core.report.maps import Cover, Numbers, Sheet, shown, write_maps
from core.viz import NATURAL, Pixels, classes_over, clear_nodata, ramp
from datasets import LazyImage
from datasets.statistics import Statistics, merge_bands, of_bands
from domains.satellite.feature_maps import TokenColours
from domains.satellite.looking import STRENGTH, Lattice, map_blocks, map_picture, numbers_of, open_map, scene_picture
from domains.satellite.products import Legend, colours
from domains.satellite.scenes import Reading

_DRAWN = 4  # numbers of a regression that have a picture
_SAMPLE = 4096  # tokens that choose the colours of a grid of features

_ON_SCENES = (
    f"In the picture of a scene {NATURAL}: its colours cannot be compared from scene to scene.",
    "Specks of red, green and blue in a row, in a scene that is otherwise in order, are one thing that moved, mostly an "
    "aircraft: many satellites record their bands one after the other.",
)
_READING = {
    "classes": (
        "Areas are counted on the whole map at full size; the pictures are smaller. A share is of what is measured. An area "
        "is what the map says, not what is there: its errors add up, so scores of the model on labels belong beside it.",
        *_ON_SCENES,
    ),
    "numbers": (
        "Dark is the 1 percent of the map that is lowest, bright the 1 percent that is highest, in each scene anew: colours "
        "cannot be compared from scene to scene.",
        *_ON_SCENES,
    ),
    "tokens": (
        "Red, green and blue are the directions in which the tokens of that one scene differ most. Like colours are what "
        "the encoder takes to be alike; no label was used. Colours of two scenes cannot be compared.",
        *_ON_SCENES,
    ),
}

Layer = tuple[str, Pixels, NDArray[np.bool_]]
"""Caption, picture (Y X 3), and where it says something."""


def page_of(made: Sequence[Path]) -> Path:
    """The name of the page of what one command makes: `NAME.report.html` beside a single file, `report.html` beside several."""
    return made[0].with_name("report.html" if len(made) > 1 else f"{made[0].stem}.report.html")


def outdated(made: Sequence[Path]) -> list[Path]:
    """Find the pages that will be wrong when these files are made anew: to be removed, where they are not replaced.

    Raises:
        RunFolderError: such a page shows a file too that is not made anew, and would be left without a page.
    """
    names = {path.name for path in made}
    found = []
    for page in dict.fromkeys((made[0].with_name("report.html"), *(page_of([path]) for path in made))):
        shown = shown_by(page)
        if names.isdisjoint(shown):
            continue
        other = next((name for name in shown if name not in names and page.with_name(name).exists()), None)
        if other is not None:
            raise RunFolderError(
                f"{page} shows {other} too, which is not made anew, and would no longer be right: name all of its scenes "
                "in one command, or choose another place with --out."
            )
        found.append(page)
    return found


def sheet_of_map(
    model: Model,
    legend: Legend | None,
    image: LazyImage,
    entry: Input,
    windows: Windows,
    path: Path,
    *,
    seconds: float,
    pictured: bool,
) -> Sheet:
    """Look at a finished map: what each class covers, or how its numbers are spread; and draw it, where that is wanted.

    Raises:
        DataError: scene or map cannot be read.
    """
    lattice, made = Lattice.of(windows), open_map(path)
    layers: list[Layer] = []
    scene = scene_picture(image, entry, lattice) if pictured else None
    covers: tuple[Cover, ...] = ()
    numbers: tuple[Numbers, ...] = ()
    if model.task == "regress":
        measured, spread, values, known = _numbers(model, made, lattice)
        numbers = spread if measured else ()
        for number, one in zip(numbers[:_DRAWN], values[: len(numbers)][:_DRAWN], strict=True):
            span = one - number.low, max(number.high - number.low, 1e-30)
            layers.append((number.name, ramp(span[0] / span[1]), known))
    else:
        counts, codes = _classes(model, legend, made, lattice)
        measured, chosen = int(counts.sum()), model.colours or colours(len(model.classes))
        each = zip(model.classes, chosen, counts.tolist(), strict=True)
        covers = tuple(Cover(name=name, colour=colour, pixels=count) for name, colour, count in each if count)
        if scene is not None:
            flat = classes_over(np.zeros_like(scene[0]), codes, chosen)
            over = classes_over(scene[0], codes, chosen, strength=STRENGTH)
            layers = [("Classes", flat, codes >= 0), ("Classes over the scene", over, codes >= 0)]
    pictures = () if scene is None else _drawn([("Scene", *scene), *layers], image)
    warnings = _warnings(image, measured)
    if len(covers) == 1 and len(model.classes) > 1:
        warnings += (
            f"every pixel is '{covers[0].name}', one of {len(model.classes)} classes: look at the model's scores.",
        )
    return Sheet(
        **_facts(image, windows),
        measured=measured,
        seconds=seconds,
        covers=covers,
        numbers=numbers,
        pictures=pictures,
        notes=_notes(image),
        warnings=warnings,
    )


def sheet_of_tokens(
    image: LazyImage, entry: Input, windows: Windows, path: Path, *, seconds: float, pictured: bool
) -> Sheet:
    """Look at a finished map of features, or of the colours of tokens; features no colours can be chosen by are not drawn.

    Raises:
        DataError: scene or map cannot be read.
    """
    lattice, made = Lattice.of(windows), open_map(path)
    measured, features, undrawn = 0, made.dtype.kind == "f", ""
    choose: TokenColours | None = None
    if features and pictured:
        try:
            choose = TokenColours.of(_sample(made))
        except DataError as error:
            pictured, undrawn = False, f"its features are written but not drawn: {error}"

    def look(values: NDArray[Any], known: NDArray[np.bool_], weights: NDArray[np.int64]) -> NDArray[np.uint8]:
        nonlocal measured
        measured += int(weights[known].sum())
        if choose is not None:
            found = choose(torch.from_numpy(np.where(known, values, 0.0).astype(np.float32))[None])[0].numpy()
            values = np.rint(found.clip(0, 1) * 255)
        elif features:
            values = np.zeros((3, *known.shape), np.uint8)
        return np.concatenate([values, known[None] * 255]).astype(np.uint8)

    found = map_picture(made, lattice, look)
    pictures: tuple[str, ...] = ()
    if pictured:
        rgb, known = np.moveaxis(found[:3], 0, -1), found[3] > 0
        pictures = _drawn([("Scene", *scene_picture(image, entry, lattice)), ("Tokens", rgb, known)], image)
    return Sheet(
        **_facts(image, windows),
        measured=measured,
        seconds=seconds,
        pictures=pictures,
        notes=(*_notes(image), *([undrawn] if undrawn else [])),
        warnings=_warnings(image, measured),
    )


def write_page(
    made: Sequence[Path],
    sheets: Sequence[Sheet],
    *,
    title: str,
    what: str,
    about: Mapping[str, Any],
    reading: Reading,
    entry: Input,
    windows: Windows,
) -> Path:
    """Write the page of one call of a verb.

    Args:
        made: the files, in one folder.
        sheets: a scene each.
        title: of the page.
        what: is on it: `classes`, `numbers` or `tokens`.
        about: the network, and what was asked of it.
        reading: how scenes were read.
        entry: the input that read the first scene.
        windows: how that was covered.
    """
    unit = entry.described[0].unit if entry.described else "as in the files"
    read = {"bands": entry.bands, "sensor": entry.sensor or "not named", "unit": unit}
    read |= {"measured": f"in {reading.measured} of the bands"}
    covered = {
        name: f"{pair[0]} × {pair[1]} pixels"
        for name, pair in (("window", windows.window), ("overlap", windows.overlap), ("one value for", windows.cell))
    }
    if windows.seen is not None:
        covered |= {"resized to": f"{windows.seen[0]} × {windows.seen[1]} pixels"}
    covered |= {"precision": reading.precision, "device": str(reading.where()), "batch size": str(reading.batch_size)}
    versions = {
        name: value for name, value in environment().items() if name in ("halfseen", "commit", "python", "packages")
    }
    named = {"Network": about, "Input": read, "Windows, of the first scene": covered, "Versions": versions}
    return write_maps(
        page_of(made),
        sheets,
        title=title,
        kicker="halfseen report on scenes",
        facts=[(name, lines(facts)) for name, facts in named.items()],
        command=["python", *sys.orig_argv[1:]],
        reading=_READING[what],
        files=[path.name for path in made],
        done="described" if what == "tokens" else "mapped",
    )


def _facts(image: LazyImage, windows: Windows) -> dict[str, Any]:
    y, x = image.size
    said = f"{y:,} × {x:,} pixels"
    area = None
    if image.spacing.unit == "m":
        down, right = image.spacing.values
        area = down * right / 1e6
        said += f" of {down:.4g} m" if abs(down - right) < 1e-3 * down else f" of {down:.4g} × {right:.4g} m"
    if image.georeference is not None and image.georeference.crs.startswith("EPSG:"):
        said += f", {image.georeference.crs}"
    if windows.cell != (1, 1):
        said += f"; one value for {windows.cell[0]} × {windows.cell[1]} pixels"
    return {"name": image.path.name, "said": f"{said}.", "pixels": y * x, "pixel_km2": area}


def _notes(image: LazyImage) -> tuple[str, ...]:
    if image.spacing.unit != "m":
        return ("the size of its pixels is not known, so areas are told in pixels.",)
    if image.georeference is not None and _is_geographic(image.georeference.crs):
        return ("it is in degrees: areas are those of a pixel in its middle times their number.",)
    return ()


def _warnings(image: LazyImage, measured: int) -> tuple[str, ...]:
    if not measured:
        return (*(flag.text for flag in image.flags), "nothing of it is measured, and its map is nodata everywhere.")
    sparse = measured < image.size[0] * image.size[1] / 2
    return (*(flag.text for flag in image.flags), *(["less than half of it is measured."] if sparse else []))


def _is_geographic(crs: str) -> bool:
    from rasterio.crs import CRS

    return bool(CRS.from_user_input(crs).is_geographic)


def _drawn(layers: Sequence[Layer], image: LazyImage) -> tuple[str, ...]:
    return tuple(shown(heading, clear_nodata(rgb, known), image.path.name) for heading, rgb, known in layers)


def _classes(
    model: Model, legend: Legend | None, made: LazyImage, lattice: Lattice
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Count the pixels of each class, (K,), and give the class numbers that are shown, (Y X), -1 = not measured."""
    counts = np.zeros(len(model.classes), dtype=np.int64)
    table = None if legend is None else numbers_of(legend)

    def look(values: NDArray[Any], known: NDArray[np.bool_], weights: NDArray[np.int64]) -> NDArray[np.int32]:
        codes = values.argmax(axis=0) if table is None else table[values[0]]
        codes = np.where(known, codes, -1).astype(np.int32)
        there = codes >= 0
        counts[:] += np.bincount(codes[there], weights=weights[there], minlength=len(counts)).astype(np.int64)
        return codes[None]

    return counts, map_picture(made, lattice, look)[0]


def _numbers(
    model: Model, made: LazyImage, lattice: Lattice
) -> tuple[int, tuple[Numbers, ...], NDArray[np.float32], NDArray[np.bool_]]:
    """Give the pixels that are measured, the spread of each number, what is shown of them (K Y X), and where (Y X)."""
    spread = tuple(Statistics.empty(made.dtype) for _ in model.classes)
    measured = 0

    def look(values: NDArray[Any], known: NDArray[np.bool_], weights: NDArray[np.int64]) -> NDArray[np.float32]:
        nonlocal spread, measured
        spread = merge_bands(spread, of_bands(values, np.broadcast_to(known, values.shape)))
        measured += int(weights[known].sum())
        return np.concatenate([np.where(known, values, 0), known[None]]).astype(np.float32)

    found = map_picture(made, lattice, look)
    units = model.units or ("",) * len(model.classes)
    numbers = tuple(
        Numbers(
            name=name,
            unit=unit,
            low=one.percentile(1),
            median=one.percentile(50),
            high=one.percentile(99),
            mean=one.mean,
        )
        for name, unit, one in zip(model.classes, units, spread, strict=True)
    )
    return measured, numbers, found[:-1], found[-1] > 0


def _sample(made: LazyImage) -> torch.Tensor:
    """Give features from all over a map, (N, D)."""
    every = max(1, made.size[0] * made.size[1] // _SAMPLE)
    parts = []
    for window in map_blocks(made):
        values, valid = made.read_valid(window)
        parts.append(values[:, valid.all(axis=0)].T[::every])
    return torch.from_numpy(np.concatenate(parts))
