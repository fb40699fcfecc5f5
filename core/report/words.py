"""What happened, in plain sentences: the headline of a run, and what an evaluation shows against its baselines."""

from __future__ import annotations

import math

from core.evaluate.table import Table
from core.report.charts import show
from core.report.read import Run


def headline(run: Run) -> list[str]:
    """Say what became of the fixed-mask validation loss, one sentence per stream; never more than was measured."""
    streams = [s for s in run.streams if run.curve("validation", s, "loss")]
    if not streams:
        return ["No validation loss was measured yet."]
    alone = len(streams) == 1
    return [_fate("Validation loss" if alone else f"{s.capitalize()} validation loss", run, s) for s in streams]


def _fate(what: str, run: Run, stream: str) -> str:
    points = run.curve("validation", stream, "loss")
    (first_step, first), (last_step, last) = points[0], points[-1]
    if len(points) == 1:
        return f"{what} was measured once: {show(first)} at step {show(first_step)}."
    if not (math.isfinite(first) and math.isfinite(last)):
        return f"{what} is not finite at step {show(last_step if not math.isfinite(last) else first_step)}."
    over = f"from {show(first)} to {show(last)} between step {show(first_step)} and step {show(last_step)}"
    if first_step == 0:
        over = f"from {show(first)} to {show(last)} over {show(last_step)} steps"
    change = f" ({100 * abs(last / first - 1):.1f} %)" if first > 0 else ""
    if last < first:
        best_step, best = min((p for p in points if math.isfinite(p[1])), key=lambda p: p[1])
        again = f" Its lowest value was {show(best)}, at step {show(best_step)}." if best < 0.98 * last else ""
        return f"{what} fell {over}{change}.{again}"
    if last == first:
        return f"{what} did not fall: {show(last)} at step {show(first_step)} and at step {show(last_step)}."
    return f"{what} did not fall: it rose {over}{change}."


def progress(run: Run) -> str:
    """Say how far the run is."""
    if run.last_step is None:
        return "No step was logged yet."
    of = f" of {run.planned_steps:,}" if run.planned_steps is not None else ""
    state = "finished" if run.ended else "not finished"
    again = "" if not run.resumes else f", resumed {'once' if run.resumes == 1 else f'{run.resumes} times'}"
    return f"Step {run.last_step:,}{of}, {state}{again}."


def verdict(table: Table) -> list[str]:
    """Count, per baseline, the scores on which the first feature set is better, worse or undecided."""
    sentences = []
    for baseline in dict.fromkeys(d.baseline for d in table.differences):
        against = [d for d in table.differences if d.baseline == baseline]
        better = sum(d.excludes_zero and d.value > 0 for d in against)
        worse = sum(d.excludes_zero and d.value < 0 for d in against)
        counts = ((better, "better"), (worse, "worse"), (len(against) - better - worse, "undecided"))
        said = ", ".join(f"{word} on {count} of {len(against)} scores" for count, word in counts if count)
        sentences.append(f"{against[0].features.capitalize()} against {baseline}: {said}.")
    if sentences:
        sentences.append(
            f"Better, worse: the {100 * table.level:.0f} % interval of the paired difference lies on one side of zero."
        )
    return sentences


def duration(seconds: float) -> str:
    """Write a span of time for people."""
    if not math.isfinite(seconds):
        return "not measured"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def counted(number: int, noun: str) -> str:
    """Count things by their noun in the singular."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
