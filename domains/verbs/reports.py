"""Reports beside images: the tokenizer that a run makes for itself, and batches with the reports of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from core.batch import Batch
from core.engine.config import Pretrain
from core.recipes.base import RecipeSpec
from datasets import Manifest, Reports, train_tokenizer, with_reports

Read = Callable[[Iterable[Batch]], Iterator[Batch]]

FILE = "tokenizer.json"
"""In the run folder; the config does not name it, so that a run can be moved, continued, and repeated from its config."""


def own_tokenizer(config: Pretrain, manifest: Manifest, run: Path, *, resume: bool) -> str | None:
    """Make the tokenizer of a run that names none, from the reports that it trains on, and give the file's text.

    None where the recipe reads no text or names its tokenizer. A run that is continued has the one that it began with.

    Raises:
        ConfigError: no such column, or it holds no texts.
        DataError: no image that is trained on has a report.
        MissingDataError: the tokenizers library is not installed.
    """
    data, text = config.data, getattr(config.recipe, "text", None)
    if text is None or text.tokenizer or data.report is None:
        return None
    if resume and (run / FILE).is_file():
        return (run / FILE).read_text(encoding="utf-8")
    with TemporaryDirectory() as folder:
        file = Path(folder) / FILE
        train_tokenizer(manifest, data.report, file, form=data.report_form, template=data.report_template)
        return file.read_text(encoding="utf-8")


def told(recipe: RecipeSpec, tokenizer: str | None, folder: Path) -> RecipeSpec:
    """Give the recipe with its own tokenizer, written into a folder of this process; without one, as it is."""
    if tokenizer is None:
        return recipe
    file, known = folder / FILE, cast(Any, recipe)
    file.write_text(tokenizer, encoding="utf-8")
    changed: RecipeSpec = replace(known, text=replace(known.text, tokenizer=str(file)))
    return changed


def beside(config: Pretrain, recipe: RecipeSpec, manifest: Manifest) -> Read:
    """Give what adds the reports to batches; without reports it changes nothing."""
    data, text = config.data, getattr(recipe, "text", None)
    if text is None or data.report is None:
        return iter
    reports = Reports(
        manifest, data.report, text.tokenizer, text.length, form=data.report_form, template=data.report_template
    )
    return lambda batches: with_reports(batches, reports)
