"""What each recipe is, for people who choose one."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from core import registry

_HEAD = ("recipe", "compute", "needs of the encoder", "paper", "what it does")


@dataclass(frozen=True)
class RecipeFacts:
    """One recipe.

    Attributes:
        name: as in `--recipe NAME`.
        summary: the first line of its file.
        paper: authors, year and arXiv id.
        cost: compute of a step over that of `mae`.
        needs: abilities of its encoder.
    """

    name: str
    summary: str
    paper: str
    cost: float
    needs: tuple[str, ...]


class RecipeList(tuple[RecipeFacts, ...]):
    """All recipes; prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return _table([_HEAD, *map(_row, self)])

    def to_markdown(self) -> str:
        """Give the table as Markdown."""
        rows = [_HEAD, ("---",) * len(_HEAD), *map(_row, self)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def list_recipes() -> RecipeList:
    """List every recipe of the folder with its paper, its compute beside MAE, and what its encoder must be able to do."""
    found = []
    for name in registry.names("recipes"):
        part = registry.get("recipes", name)
        about = inspect.getdoc(inspect.getmodule(part)) or ""
        summary = about.partition("\n")[0].partition(": ")[2] or about.partition("\n")[0]
        found.append(RecipeFacts(name, summary.rstrip("."), part.paper, part.cost, tuple(sorted(part.needs))))
    return RecipeList(found)


def _row(facts: RecipeFacts) -> tuple[str, ...]:
    return (facts.name, f"{facts.cost:.2f}", ", ".join(facts.needs), facts.paper, facts.summary)


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]]) for row in rows
    )
