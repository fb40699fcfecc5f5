"""The page beside maps: each image and what was made of it, how much of it each class covers, and what made it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from core.checkpoint import publish_text
from core.evaluate.table import class_name
from core.report.charts import show
from core.report.html import (
    Fact,
    cards,
    document,
    figure,
    leads,
    legend,
    notes,
    picture,
    section,
    tiles,
    warnings,
    webp,
)
from core.report.words import duration
from core.viz import Pixels, ramp

PICTURED = 24
"""Images that a page shows; all further ones are counted only, so that the page opens on any machine."""

Colour = tuple[int, int, int]

_STOPS = np.linspace(0, 1, 9)
_TOLD = 3  # classes in the headline


@dataclass(frozen=True, kw_only=True)
class Cover:
    """How much of an image a class covers."""

    name: str
    colour: Colour
    pixels: int


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of a map, drawn from dark at `low` to bright at `high`; a unit of "" is none."""

    name: str
    unit: str
    low: float
    median: float
    high: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One image and its map.

    Attributes:
        name: of the image.
        said: a sentence on its size and place.
        pixels: how many it has.
        measured: how many of them the map says something of.
        pixel_km2: area of one of them; None = no size is known, and pixels are told.
        seconds: that the map took.
        covers: classes that occur.
        numbers: of a map of numbers.
        pictures: caption and source of each, as `shown` gives them.
        notes: facts on how it was counted or drawn.
        warnings: what a reader has to know first.
    """

    name: str
    said: str
    pixels: int
    measured: int
    pixel_km2: float | None
    seconds: float
    covers: tuple[Cover, ...] = ()
    numbers: tuple[Numbers, ...] = ()
    pictures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def shown(heading: str, pixels: Pixels, of: str) -> str:
    """Make a picture (Y X 3) or (Y X 4) part of a page, under a heading."""
    return figure(heading, picture(webp(pixels), f"{of}: {heading}", (pixels.shape[1], pixels.shape[0])))


def write_maps(
    path: Path,
    sheets: Sequence[Sheet],
    *,
    title: str,
    kicker: str,
    facts: Sequence[tuple[str, Sequence[Fact]]],
    command: Sequence[str],
    reading: Sequence[str] = (),
    files: Sequence[str] = (),
    done: str = "mapped",
) -> Path:
    """Write one page of several maps.

    Args:
        path: of the page.
        sheets: at least one; the first `PICTURED` with pictures.
        title: of the page.
        kicker: what kind of page it is.
        facts: what made the maps, in named groups.
        command: the words of the command line that repeats it.
        reading: sentences on how to read the pictures.
        files: names of the maps that lie beside the page.
        done: what was done to the scenes, as a participle.

    Raises:
        RunFolderError: the page cannot be written.
    """
    total = _together(sheets)
    places = max(_places([total], digits=4), _places(sheets, digits=3))
    noun = "scene" if len(sheets) == 1 else "scenes"
    lead = f"{len(sheets):,} {noun}, {_area(total.measured, total.pixel_km2)} {done}: {_largest(total)}"
    first = (
        f"The first {PICTURED} of {len(sheets):,} scenes are shown; all are counted." if len(sheets) > PICTURED else ""
    )
    entries = [
        (done.capitalize(), _area(total.measured, total.pixel_km2), f"of {_area(total.pixels, total.pixel_km2)}"),
        ("Not measured", _share(total.pixels - total.measured, total.pixels), "of all pixels"),
        ("Time", duration(total.seconds), f"{show(total.pixels / total.seconds)} pixels per second"),
    ]
    parts = []
    if len(sheets) > 1 and total.covers:
        said = "A place that several scenes show is counted in each of them."
        parts.append(section("All scenes together", said, _covers(total, places)))
    drawn = "".join(_sheet(sheet, places, alone=len(sheets) == 1) for sheet in sheets[:PICTURED])
    if any(sheet.pictures and sheet.measured < sheet.pixels for sheet in sheets[:PICTURED]):
        drawn = legend((), [("nodata", "not measured")]) + drawn
    parts.append(section("Scenes" if len(sheets) > 1 else sheets[0].name, first, drawn))
    parts.append(section("What ran", "", cards(facts, shlex.join(command))))
    if reading:
        listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in reading)
        parts.append(section("How to read this", "", f'<ul class="how">{listed}</ul>'))
    page = document(
        title=title,
        kicker=kicker,
        header=leads([lead if total.covers else f"{lead.rpartition(':')[0]}."])
        + notes(_once(sheets, [sheet.notes for sheet in sheets]))
        + warnings(_once(sheets, [sheet.warnings for sheet in sheets]))
        + tiles(entries),
        sections=parts,
        footer="Made beside the files that it shows.",
        shows=files,
    )
    publish_text(path, page)
    return path


def _together(sheets: Sequence[Sheet]) -> Sheet:
    """Add up; areas where every image knows its pixels' size, in pixels of the first one's."""
    sizes = [sheet.pixel_km2 for sheet in sheets]
    known = [size for size in sizes if size is not None]
    unit = known[0] if len(known) == len(sizes) else None
    weights = [1.0 if unit is None or size is None else size / unit for size in sizes]

    def summed(counts: Sequence[int]) -> int:
        return round(sum(count * weight for count, weight in zip(counts, weights, strict=True)))

    kinds = dict.fromkeys((cover.name, cover.colour) for sheet in sheets for cover in sheet.covers)
    covers = [
        Cover(
            name=name,
            colour=colour,
            pixels=summed([sum(c.pixels for c in sheet.covers if c.name == name) for sheet in sheets]),
        )
        for name, colour in kinds
    ]
    return Sheet(
        name="",
        said="",
        pixels=summed([sheet.pixels for sheet in sheets]),
        measured=summed([sheet.measured for sheet in sheets]),
        pixel_km2=unit,
        seconds=max(1e-9, sum(sheet.seconds for sheet in sheets)),
        covers=tuple(covers),
    )


def _once(sheets: Sequence[Sheet], said: Sequence[Sequence[str]]) -> list[str]:
    """Say each sentence once, with the scenes that it is said of."""
    found: dict[str, list[str]] = {}
    for sheet, sentences in zip(sheets, said, strict=True):
        for sentence in sentences:
            found.setdefault(sentence, []).append(sheet.name)
    return [f"{_names(names, len(sheets))}: {sentence}" for sentence, names in found.items()]


def _names(names: Sequence[str], of: int) -> str:
    if len(names) == of:
        return "All scenes" if of > 1 else names[0]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _sheet(sheet: Sheet, places: int, *, alone: bool) -> str:
    heading = "" if alone else f'<h3 class="apart">{escape(sheet.name)}</h3>'
    left_out = _share(sheet.pixels - sheet.measured, sheet.pixels)
    said = f'<p class="soft small">{escape(sheet.said)} Not measured: {left_out}.</p>'
    pictures = f'<div class="pictures">{"".join(sheet.pictures)}</div>' if sheet.pictures else ""
    tables = (_covers(sheet, places) if sheet.covers else "") + (_numbers(sheet.numbers) if sheet.numbers else "")
    return f"<article>{heading}{said}{pictures}{tables}</article>"


def _covers(sheet: Sheet, places: int) -> str:
    """Tabulate classes, the largest first: what they cover, and their share of what is measured."""
    unit = "pixels" if sheet.pixel_km2 is None else "km²"
    covers = sorted(sheet.covers, key=lambda cover: -cover.pixels)
    areas = [_written(cover.pixels, sheet.pixel_km2, places) for cover in covers]
    rows = []
    for cover, area in zip(covers, areas, strict=True):
        share = cover.pixels / sheet.measured if sheet.measured else 0.0
        colour = f"rgb({','.join(map(str, cover.colour))})"
        rows.append(
            f'<tr style="--c:{colour}"><th scope="row">{escape(class_name(cover.name))}</th><td>{escape(area)}</td>'
            f'<td>{escape(_percent(share))}</td><td class="bar"><i style="width:{100 * share:.2f}%"></i></td></tr>'
        )
    return _table(["class", unit, "share", ""], rows)


def _places(sheets: Sequence[Sheet], *, digits: int) -> int:
    """Count the decimals that areas in km² need to show so many digits of the largest."""
    areas = [cover.pixels * sheet.pixel_km2 for sheet in sheets if sheet.pixel_km2 for cover in sheet.covers]
    largest = max(areas, default=0.0)
    return max(0, digits - 1 - math.floor(math.log10(largest))) if largest > 0 else 0


def _written(pixels: int, pixel_km2: float | None, places: int) -> str:
    """Write an area with so many decimals, as all of a page have, and never a little as nothing."""
    if pixel_km2 is None:
        return f"{pixels:,}"
    area, least = pixels * pixel_km2, 10.0**-places
    return f"< {least:.{places}f}" if 0 < area < least / 2 else f"{area:,.{places}f}"


def _numbers(found: Sequence[Numbers]) -> str:
    stops = ",".join(f"rgb({r},{g},{b})" for r, g, b in ramp(_STOPS).tolist())
    rows = [
        f'<tr><th scope="row">{escape(n.name)}{f" [{escape(n.unit)}]" if n.unit else ""}</th><td>{show(n.low)}</td>'
        f'<td class="bar"><i style="width:100%;background:linear-gradient(90deg,{stops})"></i></td>'
        f"<td>{show(n.high)}</td><td>{show(n.median)}</td><td>{show(n.mean)}</td></tr>"
        for n in found
    ]
    return _table(["number", "1 %", "", "99 %", "median", "mean"], rows)


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """Give rows under their heads; a column without one is of bars."""
    cells = "".join(f'<th scope="col">{escape(head)}</th>' if head else '<td class="bar"></td>' for head in heads)
    return f'<table class="covers"><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _largest(sheet: Sheet) -> str:
    best = sorted(sheet.covers, key=lambda cover: -cover.pixels)
    said = [f"{_share(cover.pixels, sheet.measured)} {class_name(cover.name)}" for cover in best[:_TOLD]]
    rest = best[_TOLD:]
    if rest:
        others = "in another class" if len(rest) == 1 else f"in {len(rest)} other classes"
        said.append(f"{_share(sum(cover.pixels for cover in rest), sheet.measured)} {others}")
    return ", ".join(said) + "."


def _area(pixels: float, pixel_km2: float | None) -> str:
    if pixel_km2 is None:
        return f"{pixels:,.0f} pixels"
    return f"{show(pixels * pixel_km2)} km²"


def _share(part: float, whole: float) -> str:
    return _percent(part / whole) if whole else "0 %"


def _percent(share: float) -> str:
    """Write a share so that little is told from nothing, and nearly all from all."""
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if share < 0.001:
        return "< 0.1 %"
    if share > 0.999:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"
