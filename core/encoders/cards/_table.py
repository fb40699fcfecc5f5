"""The list of cards as people read it."""

from __future__ import annotations

from core.encoders.cards.base import Card

_HEAD = ("name", "size", "licence", "what it is")


class CardList(tuple[Card, ...]):
    """Cards; prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        rows = [_HEAD, *map(row, self)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD) - 1)]
        return "\n".join(
            "  ".join([*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1]])
            for row in rows
        )

    def to_markdown(self) -> str:
        """Give the table as Markdown."""
        rows = [_HEAD, ("---",) * len(_HEAD), *map(row, self)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def row(card: Card) -> tuple[str, ...]:
    """Give the cells of a card's line."""
    return (card.name, short_count(card.parameters), terms(card), card.title)


def short_count(number: int) -> str:
    """Write a number of parameters in three digits: `86.6 M`, `2.60 B`."""
    value, unit = (number / 1e9, "B") if number >= 999.5e6 else (number / 1e6, "M")
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"


def terms(card: Card) -> str:
    """Write the licence and what it asks for: `CC-BY-NC-4.0, not commercial, account needed`."""
    told = [card.licence] + ["not commercial"] * card.non_commercial + ["account needed"] * card.gated
    return ", ".join(told)
