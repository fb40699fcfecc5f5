"""Building blocks of every page: the shell, sections, facts, notes, headline numbers, pictures as data. Strings out."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Sequence
from html import escape, unescape
from pathlib import Path

import numpy as np

from core.report.style import STYLE
from core.viz import Pixels

# Nothing may be fetched, whatever a user's string holds: the browser enforces what the tests assert.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SHOWS = "halfseen-shows"
_QUALITY = 86  # of pictures that lose something: the edges of classes stay sharp
_COARSE = 400  # pixels of the longer side, below which the browser shows them as squares

Fact = tuple[str, str]


def document(
    *, title: str, kicker: str, header: str, sections: Sequence[str], footer: str, shows: Sequence[str] = ()
) -> str:
    """Give a whole page; title, kicker and footer are text, the rest is markup.

    `shows` are names of files that the page is of, which `shown_by` finds again. What cannot be written as UTF-8, such as
    a file's name in another encoding, is shown by its numbers.
    """
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"{_shows(shows)}<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<header><p class="kicker">{escape(kicker)}</p><h1>{escape(title)}</h1>{header}</header>{"".join(sections)}'
        f"<footer>{escape(footer)} This file is complete and loads nothing.</footer></main></body></html>\n"
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _shows(names: Sequence[str]) -> str:
    return f'<meta name="{_SHOWS}" content="{escape(json.dumps(names))}">' if names else ""


def shown_by(page: Path) -> list[str]:
    """Give the names of the files that a page is of; none where it does not say so, or is none of ours."""
    try:
        found = re.search(rf'<meta name="{_SHOWS}" content="([^"]*)">', page.read_text(encoding="utf-8"))
        names = json.loads(unescape(found[1])) if found else []
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def section(heading: str, intro: str, body: str) -> str:
    """Give a part of the page under a heading."""
    said = f'<p class="soft">{escape(intro)}</p>' if intro else ""
    return f"<section><h2>{escape(heading)}</h2>{said}{body}</section>"


def leads(sentences: Iterable[str]) -> str:
    """Give what is to be read first."""
    return "".join(f'<p class="lead">{escape(sentence)}</p>' for sentence in sentences)


def notes(sentences: Iterable[str]) -> str:
    """Give facts that belong to the headline."""
    return "".join(f'<p class="note">{escape(sentence)}</p>' for sentence in sentences)


def warnings(sentences: Iterable[str]) -> str:
    """Give what a reader has to know before believing the rest."""
    return "".join(f'<p class="warning"><b>Caution:</b> {escape(sentence)}</p>' for sentence in sentences)


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Give headline numbers: name, value, and what is said below it."""
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(beside)}</small></dd></div>"
        for name, value, beside in entries
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


def fact_list(entries: Iterable[Fact]) -> str:
    """Give names and what is known of them; a path may break after any slash, and only then anywhere else."""
    cells = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text).replace('/', '/<wbr>')}</dd>" for name, text in entries)
    return f'<dl class="facts">{cells}</dl>'


def cards(named: Iterable[tuple[str, Iterable[Fact]]], command: str = "") -> str:
    """Give facts in groups, and the command below them where one is known."""
    drawn = "".join(f"<div><h3>{escape(name)}</h3>{fact_list(entries)}</div>" for name, entries in named)
    said = f'<h3 class="apart">Command to repeat it</h3><pre>{escape(command)}</pre>' if command else ""
    return f'<div class="cards">{drawn}</div>{said}'


def folded(summary: str, text: str) -> str:
    """Give a long text that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def legend(colours: Iterable[tuple[str, tuple[int, int, int]]], patterns: Iterable[tuple[str, str]] = ()) -> str:
    """Give what areas of pictures mean: names with their colours; and `hidden`, `tint` or `nodata`, as `core.viz` draws them."""
    cells = [f'<span style="--c:rgb({r},{g},{b})">{escape(name)}</span>' for name, (r, g, b) in colours]
    cells += [f'<span class="{pattern}">{escape(name)}</span>' for pattern, name in patterns]
    return f'<p class="swatches">{"".join(cells)}</p>' if cells else ""


def figure(caption: str, body: str) -> str:
    """Give a picture, or what stands in its place, under its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{body}</figure>"


def picture(data: str, alt: str, size: tuple[int, int] | None = None) -> str:
    """Give a picture; `size` is width and height in its pixels. It is decoded when a reader comes near it."""
    measured = "" if size is None else f'width="{size[0]}" height="{size[1]}" '
    coarse = 'class="coarse" ' if size is not None and max(size) < _COARSE else ""
    return f'<img {coarse}{measured}loading="lazy" decoding="async" alt="{escape(alt)}" src="{data}">'


def png(content: bytes) -> str:
    """Give the bytes of a PNG file as a source."""
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def webp(pixels: Pixels) -> str:
    """Give pixels (Y X 3) or (Y X 4) as a source, a tenth as large as a PNG of them."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="WEBP", quality=_QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
