"""The section that says what the features are worth: every table and curve that `evaluate` left in the folder."""

from __future__ import annotations

from core.report.efficiency import efficiency
from core.report.read import Run
from core.report.scores import scores


def evaluations(run: Run) -> str:
    """Draw every evaluation, each under its file's name where there are several."""
    if not run.tables and not run.curves:
        return '<p class="soft">Not evaluated yet; the verb <b>evaluate</b> fills this section.</p>'
    tables = [scores(name if len(run.tables) > 1 else "", table) for name, table in run.tables]
    curves = [efficiency(name if len(run.curves) > 1 else "", curve) for name, curve in run.curves]
    return "".join([*tables, *curves])
