"""Pictures of held-out images of a fine-tuning: the scene, its labels, what was answered, and where that was wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.batch import Batch
from core.contract import Input
from core.finetune import Examined, Sections
from core.heads.load import Colour, Model
from core.viz import NATURAL, Column, Pixels, Row, classes_over, clear_nodata, colours, faded, natural
from datasets import LazyImage
from domains.satellite.cells import Cell
from domains.satellite.products import colours as class_colours
from domains.satellite.windows import LabelWindows

_SHOWN = 6  # images
_RIGHT: Colour = (58, 63, 72)
_WRONG: Colour = (230, 100, 0)  # apart from dark grey, and from grey, in every colour vision
_GROUND = 232  # grey of a section where nothing was measured
_OF_SECTIONS: tuple[tuple[str, Colour], ...] = (("clear", (86, 180, 233)), ("cloud", (90, 90, 96)))

Legend = list[tuple[str, Colour]]


def from_worst_to_best(found: Examined) -> NDArray[np.int64]:
    """Choose rows that stand for all: evenly by the share of their labelled places that was answered rightly."""
    tables = found.summary
    share = np.trace(tables, axis1=1, axis2=2) / np.maximum(tables.sum((1, 2)), 1)
    order = np.lexsort((found.rows, share))
    places = np.unique(np.linspace(0, len(order) - 1, min(_SHOWN, len(order))).round().astype(np.int64))
    return found.rows[order[places]]


def window_rows(
    model: Model, windows: LabelWindows, cells: Sequence[Cell], scenes: Mapping[int, LazyImage], found: Examined
) -> tuple[list[Row], Legend]:
    """Draw windows of the test part with the labels of their cell, from the worst to the best."""
    chosen = class_colours(len(model.classes))
    drawn = []
    for example in windows.whole(from_worst_to_best(found).tolist(), 1):
        batch = example.batch
        answer = answered(model, batch).argmax(1)[0].cpu().numpy()
        known = batch.valid[0].any(0).numpy()
        truth = np.where(known, example.label[0].numpy(), -1)
        cell = cells[int(batch.row[0])]
        scene = preview(batch, windows.entry)
        over = [
            ("label", "Label", classes_over(faded(scene), truth, chosen)),
            ("answer", "Prediction", classes_over(scene, answer, chosen)),
            ("errors", "Right and wrong", errors(faded(scene), truth, answer)),
        ]
        columns = [
            Column(name, heading, clear_nodata(rgb, known)) for name, heading, rgb in (("scene", "Scene", scene), *over)
        ]
        said = f"{scenes[cell.scene].path.name}, {cell.block}: {right_of(truth, answer)}"
        drawn.append(_row(windows.entry, columns, said))
    return drawn, [*zip(model.classes, chosen, strict=True), ("right", _RIGHT), ("wrong", _WRONG)]


def section_rows(
    model: Model, entry: Input, targets: Sections, found: Examined, batches: Iterator[Batch], names: Sequence[str]
) -> tuple[list[Row], Legend]:
    """Draw sections of the test part beside their scene, from the worst to the best: the track to the right, height upwards.

    Sections are (length, height) with the lowest level first, as `read_sections` gives them.
    """
    chosen = from_worst_to_best(found).tolist()
    legend = [colour for _, colour in _OF_SECTIONS]
    drawn: dict[int, Row] = {}
    for batch in batches:
        wanted = [place for place, row in enumerate(batch.row.tolist()) if row in chosen]
        answers = answered(model, batch)[:, 0].cpu().numpy() > 0 if wanted else np.zeros(0)
        for place in wanted:
            row = int(batch.row[place])
            truth, answer = (
                upright(section.astype(np.int64)) for section in (targets.clouds[row].numpy(), answers[place])
            )
            ground = np.full((*truth.shape, 3), _GROUND, np.uint8)
            scene = clear_nodata(preview(batch, entry, place), batch.valid[place].any(0).numpy())
            columns = [
                Column("scene", "Scene", scene),
                Column("label", "Label, height over track", classes_over(ground, truth, legend)),
                Column("answer", "Prediction, height over track", classes_over(ground, answer, legend)),
                Column("errors", "Right and wrong", errors(ground, truth, answer)),
            ]
            drawn[row] = _row(entry, columns, f"{names[row]}: {right_of(truth, answer)}")
    return [drawn[row] for row in chosen], [*_OF_SECTIONS, ("right", _RIGHT), ("wrong", _WRONG)]


def upright(section: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn a section (length, height), the lowest level first, into a picture's rows and columns: the highest is on top."""
    return section.T[::-1]


@torch.no_grad()
def answered(model: Model, batch: Batch) -> Tensor:
    """Answer as the test did."""
    answer: Tensor = model(batch.to(next(model.parameters()).device).normalised())
    return answer


def preview(batch: Batch, entry: Input, place: int = 0) -> Pixels:
    """Draw one image of a batch in raw values for the eye."""
    return natural(batch.image[place].float(), batch.valid[place], entry.bands, entry.sensor)


def errors(ground: Pixels, truth: NDArray[np.integer], answer: NDArray[np.integer]) -> Pixels:
    """Colour the labelled places, those that were answered rightly and those that were not."""
    return classes_over(ground, np.where(truth < 0, -1, np.where(truth == answer, 0, 1)), (_RIGHT, _WRONG))


def right_of(truth: NDArray[np.integer], answer: NDArray[np.integer]) -> str:
    """Say how much was right."""
    known = truth >= 0
    return f"{int((answer == truth)[known].sum()):,} of {int(known.sum()):,} labelled places are right."


def _row(entry: Input, columns: Sequence[Column], said: str) -> Row:
    shown = colours(entry.bands, entry.sensor)
    names = tuple(entry.bands[band] for band in shown.bands)
    return Row(entry.name, names, tuple(columns), f"{shown.kind}: {NATURAL}", said=said)
