"""Panels: rows of pictures that a verb saved in `figures/`, with their index `panels.json`."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from core.report.html import figure, picture, png
from core.report.read import Run, number

_BESIDE = 7  # pictures of a row; of more, it has several lines


def panels(run: Run) -> str:
    """Draw the rows, by input; a line says what is shown wherever that changes."""
    rows = (run.panels or {}).get("rows", [])
    if not rows:
        return '<p class="soft">No panels were drawn yet.</p>'
    several = len({row.get("input") for row in rows}) > 1
    parts, before, shown = [], None, None
    for row in rows:
        if row.get("input") != before:
            before, shown = row.get("input"), None
            parts.append(f'<h3 class="apart">{escape(str(before).capitalize())}</h3>' if several else "")
        if _shown(row) != shown:
            shown = _shown(row)
            parts.append(shown)
        if row.get("said"):
            parts.append(f'<p class="small">{escape(str(row["said"]))}</p>')
        columns = row["columns"]
        figures = "".join(_picture(run, column, str(before)) for column in columns)
        many = " many" if len(columns) > _BESIDE else ""
        parts.append(f'<div class="panel{many}" style="--n:{max(1, min(len(columns), _BESIDE))}">{figures}</div>')
    return "".join(parts)


def with_nodata(index: Mapping[str, Any]) -> bool:
    """Tell whether a picture of the index `panels.json` has an area without data; one that does not say so may have."""
    return any(row.get("nodata", True) for row in index["rows"])


def _shown(row: Mapping[str, Any]) -> str:
    bands, kind = ", ".join(str(band) for band in row.get("shown") or []), str(row.get("colours") or "")
    planes = " Three slices through the middle: across z (top left), across y (below), across x (right)."
    said = (f"{_sentence(kind)}Bands: {bands}." if bands else "") + (planes if row.get("volume") else "")
    return f'<p class="soft small">{escape(said)}</p>' if said else ""


def _sentence(kind: str) -> str:
    """What the colours of a panel are; one band in grey needs no word."""
    return "" if kind in ("", "one band") else f"{kind[0].upper()}{kind[1:]}. "


def _picture(run: Run, column: Mapping[str, Any], of: str) -> str:
    heading = str(column.get("heading", ""))
    path = run.path / "figures" / Path(str(column.get("file", ""))).name  # never out of the folder
    if not path.is_file():
        return figure(heading, f'<p class="soft">{escape(path.name)} is missing.</p>')
    width, height = number(column.get("width")), number(column.get("height"))
    size = (int(width), int(height)) if width > 0 and height > 0 else None
    return figure(heading, picture(png(path.read_bytes()), f"{of}: {heading}", size))
