"""Cards of published encoders: one release family per file, found by looking; nothing is loaded before it is asked for."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from core.encoders.cards._table import CardList
from core.encoders.cards.base import Card
from core.errors import ConfigError, nearest


@cache
def cards() -> dict[str, Card]:
    """Read every card, by name, in the order of the names."""
    found: dict[str, Card] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.name == "base" or module.name.startswith("_"):
            continue
        for card in importlib.import_module(f"{__name__}.{module.name}").CARDS:
            assert card.name not in found, f"two cards are called {card.name}"
            found[card.name] = card
    return dict(sorted(found.items()))


def list_encoders() -> CardList:
    """List every published encoder that `load_encoder` knows by name; nothing is fetched."""
    return CardList(cards().values())


def get_card(name: str) -> Card:
    """Find a card by its name or an alias; letter case, and `_` for `-`, do not matter.

    Raises:
        ConfigError: no such card; the message names the nearest.
    """
    wanted = name.lower().replace("_", "-")
    for card in cards().values():
        if wanted in (card.name, *card.aliases):
            return card
    known = [each for card in cards().values() for each in (card.name, *card.aliases)]
    close = nearest(wanted, known)
    if close.startswith("did you mean"):
        raise ConfigError(f"no encoder is called '{name}': {close}")
    raise ConfigError(
        f"expected a run folder, or a published encoder, got '{name}': `python -m core.zoo list` names all of them."
    )
