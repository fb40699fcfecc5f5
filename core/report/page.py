"""The page itself: sections in order, pictures as data, and the atomic write of `report.html`."""

from __future__ import annotations

import base64
import json
import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from core.checkpoint import publish_text
from core.config import dump
from core.report.charts import show
from core.report.curves import losses, pace, waits
from core.report.efficiency import efficiency
from core.report.facts import facts
from core.report.read import Run, number, read_run
from core.report.scores import scores
from core.report.style import STYLE
from core.report.words import duration, headline, progress

# Nothing may be fetched, whatever a user's string holds: the browser enforces what the tests assert.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_SWATCHES = (
    '<p class="swatches"><span class="hidden">hidden from the encoder</span>'
    '<span class="tint">hidden, as overlay</span>'
    '<span class="nodata">no data, or a rim with too little of it</span></p>'
)

_OF_RECONSTRUCTIONS = (
    "Only hidden patches are predicted and scored. In the reconstruction the visible patches are copied from the "
    "original, so seams show where the prediction is off.",
    "Where patches are normalised before they are predicted, the picture uses the hidden patch's own mean and spread "
    "to show it: its brightness and contrast are given, its structure is the model's.",
)

_NOTES = (
    "The pictures of one row share one grey scale, taken from its original; target and prediction of a further map "
    "share another.",
    "Validation always hides the same patches of the same held-out images, so its curve moves with the model alone. "
    "The training loss meets new images, crops and masks at every step.",
    "A falling loss says that the task is being learnt, not that the features are useful: the scores against both "
    "baselines are for that.",
)


def write_report(
    run: Path,
    *,
    title: str | None = None,
    notes: Sequence[str] | None = None,
    command: str | Sequence[str] | None = None,
) -> Path:
    """Write `report.html` of a run folder, at any time: during the run, after a resume, after an evaluation.

    What is not given here is as the last report of this folder had it (`figures/report.json`).

    Args:
        run: the run folder; it must hold a `config.yaml`, everything else may be missing.
        title: domain and preset, such as `Retina, preset tiny`; at first the folder's name.
        notes: sentences shown on top, such as that the images are synthetic; at first none.
        command: the command line that repeats the run, as text or as its words.

    Raises:
        MissingDataError: the folder is no run.
        ConfigError: its `config.yaml` cannot be read.
        RunFolderError: the page cannot be written.
    """
    kept = run / "figures" / "report.json"
    read, said = read_run(run), _said(kept)
    words = command if command is None or isinstance(command, str) else shlex.join(command)
    told = {
        "title": title if title is not None else str(said.get("title") or run.resolve().name),
        "notes": list(notes) if notes is not None else [str(note) for note in said.get("notes") or []],
        "command": words if words is not None else str(said.get("command") or ""),
    }
    page = render(read, title=str(told["title"]), notes=list(told["notes"]), command=str(told["command"]))
    kept.parent.mkdir(exist_ok=True)
    publish_text(kept, json.dumps(told, ensure_ascii=False))
    publish_text(run / "report.html", page)
    return run / "report.html"


def _said(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # absent, or cut off: the next report writes it anew
        return {}
    return said if isinstance(said, dict) else {}


def render(run: Run, *, title: str, notes: Sequence[str], command: str = "") -> str:
    """Give the whole page as text."""
    sections = [
        _section("What ran", "", facts(run, command)),
        _section(
            "Losses",
            "Thin lines: single steps. Validation: held-out images under masks that never change.",
            losses(run),
        ),
        _section("Pace", "Waiting for data is the share of a step in which the model stood still.", pace(run)),
        _section(
            "Reconstructions" if _predicted(run) else "What was hidden", _panels_say(run), _panels(run) + _more(run)
        ),
        _section("What the features are worth", "", _evaluations(run)),
        _section("How to read this", "", _how(run)),
        _section("Full configuration", "", _configuration(run)),
    ]
    said = "".join(f'<p class="lead">{escape(sentence)}</p>' for sentence in headline(run))
    warned = "".join(f'<p class="note">{escape(text)}</p>' for text in (*notes, *run.problems))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f'<header><p class="kicker">halfseen pretraining report</p><h1>{escape(title)}</h1>{said}'
        f"<p>{escape(progress(run))}</p>{warned}{_tiles(run)}</header>{''.join(sections)}"
        f"<footer>Made from the run folder {escape(run.path.resolve().name)}. This file is complete and loads nothing."
        "</footer></main></body></html>\n"
    )


def _section(heading: str, intro: str, body: str) -> str:
    said = f'<p class="soft">{escape(intro)}</p>' if intro else ""
    return f"<section><h2>{escape(heading)}</h2>{said}{body}</section>"


def _tiles(run: Run) -> str:
    tiles = []
    for stream in run.streams:
        held_out = run.curve("validation", stream, "loss")
        if held_out:
            name = "Validation loss" if len(run.streams) == 1 else f"{stream.capitalize()} validation"
            tiles.append((name, show(held_out[-1][1]), f"was {show(held_out[0][1])}" if len(held_out) > 1 else ""))
    for stream in run.streams:
        rates = [y for _, y in run.curve("step", stream, "samples_per_s") if math.isfinite(y)]
        if rates:
            lost = [y for _, y in waits(run, stream) if math.isfinite(y)]
            wait = f"median; {statistics.median(lost):.0f} % waiting for data" if lost else "median"
            name = "Images per second" if len(run.streams) == 1 else f"{stream.capitalize()}s per second"
            tiles.append((name, show(statistics.median(rates)), wait))
    spent = [number(event.get("step_s")) for event in run.steps]
    if any(math.isfinite(s) for s in spent):
        seconds = sum(s for s in spent if math.isfinite(s))
        tiles.append(("Time in steps", duration(seconds), f"{len(run.steps):,} logged steps"))
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(beside)}</small></dd></div>"
        for name, value, beside in tiles
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


def _panels_say(run: Run) -> str:
    if run.panels is None:
        return ""
    step = run.panels.get("step")
    said = f"Held-out images{f' at step {step:,}' if isinstance(step, int) else ''}; none of them was trained on."
    if not _predicted(run):
        said += " The recipe predicts features, not images, so there is no prediction to look at."
    recipe = run.config.get("recipe")
    if isinstance(recipe, Mapping) and "views" in recipe:
        said += " Each image is shown as the first of its two views, with its crop and its colours."
    return said


def _predicted(run: Run) -> bool:
    """Say whether a prediction was drawn, or no panel yet."""
    names = {column.get("name") for row in (run.panels or {}).get("rows") or [] for column in row.get("columns") or []}
    return not names or bool(names - {"original", "seen", "mask"})


def _panels(run: Run) -> str:
    rows = (run.panels or {}).get("rows") or []
    if not rows:
        return '<p class="soft">No panels were drawn yet.</p>'
    parts, before, shown = [], None, None
    for row in rows:
        if row.get("input") != before:
            before, shown = row.get("input"), None
            parts.append(f'<h3 class="apart">{escape(str(before).capitalize())}</h3>')
        if _shown(row) != shown:
            shown = _shown(row)
            parts.append(shown)
        columns = row.get("columns") or []
        figures = "".join(_picture(run, column, str(before)) for column in columns)
        parts.append(f'<div class="panel" style="--n:{max(1, len(columns))}">{figures}</div>')
    return _SWATCHES + "".join(parts)


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
    caption = f"<figcaption>{escape(heading)}</figcaption>"
    if not path.is_file():
        return f'<figure>{caption}<p class="soft">{escape(path.name)} is missing.</p></figure>'
    size = f'width="{int(number(column.get("width", 1)))}" height="{int(number(column.get("height", 1)))}"'
    return f'<figure>{caption}<img {size} alt="{escape(f"{of}: {heading}")}" src="{_data_uri(path)}"></figure>'


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


def _more(run: Run) -> str:
    figures = [
        f"<figure><figcaption>{escape(p.stem.replace('_', ' '))}</figcaption>"
        f'<img alt="{escape(p.stem)}" src="{_data_uri(p)}"></figure>'
        for p in run.pictures
    ]
    return f'<div class="more">{"".join(figures)}</div>' if figures else ""


def _evaluations(run: Run) -> str:
    if not run.tables and not run.curves:
        return '<p class="soft">Not evaluated yet; the verb <b>evaluate</b> fills this section.</p>'
    tables = [scores(name if len(run.tables) > 1 else "", table) for name, table in run.tables]
    curves = [efficiency(name if len(run.curves) > 1 else "", curve) for name, curve in run.curves]
    return "".join([*tables, *curves])


def _how(run: Run) -> str:
    notes = [*(_OF_RECONSTRUCTIONS if _predicted(run) else ()), *_NOTES]
    if run.tables or run.curves:
        notes.append(
            "Whiskers cover the choice of test groups (patients, scenes, slides). They do not cover another training "
            "seed or another site. Judge a difference by its own paired interval, not by whether two whiskers overlap."
        )
    return f'<ul class="how">{"".join(f"<li>{escape(note)}</li>" for note in notes)}</ul>'


def _configuration(run: Run) -> str:
    return f"<details><summary>config.yaml</summary><pre>{escape(dump(run.config))}</pre></details>"
