"""What is written of a model's answers: classes with a legend, probabilities, or numbers with units."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from core.errors import ConfigError
from core.heads.load import Colour, Model
from core.inference import Windows
from datasets import LazyImage
from datasets.writers import Facts, Writer, find_writer
from datasets.writers.geotiff import GeoTiff
from domains.satellite.outputs import placed

Output = Literal["classes", "probabilities"]


@dataclass(frozen=True, kw_only=True)
class Legend:
    """How classes are written.

    Attributes:
        codes: the number that stands for each class in the file.
        names: of the classes.
        colours: of the classes.
        nodata: the number that stands for what is not measured.
    """

    codes: tuple[int, ...]
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    nodata: int

    @property
    def dtype(self) -> np.dtype:
        """The smallest type that holds all numbers."""
        return np.dtype(np.uint8 if max(*self.codes, self.nodata) < 256 else np.uint16)


def legend_of(model: Model) -> Legend:
    """Give the numbers that the labels of the training had, where it stored them, and 255 (or another that is free) as nodata.

    Raises:
        ConfigError: more classes, or higher numbers, than 16 bits hold.
    """
    names = model.classes
    codes = tuple(int(code) for code in model.about.get("codes") or range(len(names)))
    free = next((code for code in (255, 0, *range(254, 0, -1), *range(256, 65536)) if code not in codes), None)
    if free is None or not 0 <= min(codes) <= max(codes) < 65536 or len(set(codes)) != len(names):
        raise ConfigError(
            f"expected a number from 0 to 65535 for each of {len(names)} classes, got {codes}; write --output=probabilities."
        )
    return Legend(codes=codes, names=names, colours=model.colours or colours(len(names)), nodata=free)


def colours(count: int) -> tuple[Colour, ...]:
    """Choose colours that differ, the same ones every time: hues by the golden ratio, in two depths."""
    found = []
    for number in range(count):
        hue, depth = (0.33 + number * 0.618034) % 1.0, 0.85 if number % 2 else 0.6
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, depth))
        found.append((red, green, blue))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Product:
    """What is written of a model's answers.

    Attributes:
        facts: of the file.
        writer: of the file.
        convert: values (K, *part) and valid (*part) -> voxels of the file (C, *part).
        legend: of classes; None = the file holds numbers.
    """

    facts: Facts
    writer: Writer
    convert: Callable[[np.ndarray, np.ndarray], np.ndarray]
    legend: Legend | None = None


def product_of(model: Model, output: Output | None, image: LazyImage, windows: Windows, path: Path) -> Product:
    """Describe the file that holds a model's map of a scene.

    Raises:
        ConfigError: `output` means nothing for this model, or a legend has no place in this format.
    """
    writer = find_writer(path)
    base = placed(image, windows, len(model.classes))
    if model.task == "regress":
        if output is not None:
            raise ConfigError("option 'output': a regression gives numbers, not classes: leave it out.")
        units = model.units or (None,) * len(model.classes)
        return _numbers(replace(base, bands=model.classes, units=units), writer)
    if output == "probabilities":
        return _numbers(replace(base, bands=model.classes), writer)
    if not isinstance(writer, GeoTiff):
        raise ConfigError(f"{path}: only .tif keeps the names and colours of classes; or write --output=probabilities.")
    legend = legend_of(model)
    base = placed(image, windows, 1)
    facts = replace(base, bands=("class",), dtype=legend.dtype, nodata=(float(legend.nodata),))
    codes = np.array(legend.codes, dtype=legend.dtype)

    def likeliest(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.where(valid, codes[values.argmax(axis=0)], legend.dtype.type(legend.nodata))
        return found[None]

    entries = tuple(zip(legend.codes, legend.names, legend.colours, strict=True))
    writer = replace(writer, overviews="nearest", legend=entries)
    return Product(facts=facts, writer=writer, convert=likeliest, legend=legend)


def _numbers(facts: Facts, writer: Writer) -> Product:
    count = len(facts.bands)
    facts = replace(facts, nodata=(float("nan"),) * count)

    def blank(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return np.where(valid, values, np.float32("nan"))

    return Product(facts=facts, writer=writer, convert=blank)
