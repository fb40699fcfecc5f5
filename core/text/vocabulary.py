"""What a tokenizer's file says about its word pieces. Making such files and cutting texts is in `datasets.reports`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ConfigError, MissingDataError

PAD = 0
"""Fills up short texts, in every vocabulary."""


@dataclass(frozen=True)
class Vocabulary:
    """The word pieces of a tokenizer.

    Attributes:
        mask: the piece that stands for a hidden one.
        special: per piece, True = no part of any text ([PAD], [UNK], [CLS], [MASK] and the like).
        continues: per piece, True = goes on with the word that an earlier piece began.
    """

    mask: int
    special: tuple[bool, ...]
    continues: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.special)


def read_vocabulary(path: str | Path) -> Vocabulary:
    """Read a WordPiece tokenizer as the tokenizers library stores it, `tokenizer.json`; plain JSON, nothing is run.

    Raises:
        MissingDataError: there is no such file.
        ConfigError: it is no WordPiece tokenizer, [PAD] is not piece 0, or there is no [MASK].
    """
    path = Path(path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingDataError(f"expected a tokenizer, but {path} does not exist.") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected a tokenizer as JSON, got: {error}.") from None
    pieces, special, prefix = _parsed(tree, path)
    size = max(pieces.values()) + 1
    if pieces.get("[PAD]") != PAD or "[MASK]" not in pieces:
        raise ConfigError(
            f"{path}: expected [PAD] as piece {PAD} and a piece [MASK], got {pieces.get('[PAD]')} and "
            f"{pieces.get('[MASK]')}: make a tokenizer with datasets.reports.train_tokenizer."
        )
    continues = {number for piece, number in pieces.items() if piece.startswith(prefix) and number not in special}
    return Vocabulary(
        mask=pieces["[MASK]"],
        special=tuple(number in special or number == PAD for number in range(size)),
        continues=tuple(number in continues for number in range(size)),
    )


def _parsed(tree: Any, path: Path) -> tuple[dict[str, int], set[int], str]:
    """Take from the file what each piece's number is, which are special, and what continuing pieces begin with."""
    try:
        model, added = tree["model"], tree["added_tokens"]
        pieces = {str(piece): int(number) for piece, number in model["vocab"].items()}
        pieces |= {str(token["content"]): int(token["id"]) for token in added}
        special = {int(token["id"]) for token in added if token["special"]}
        prefix = str(model["continuing_subword_prefix"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{path}: expected a WordPiece tokenizer of the tokenizers library, but {error!r}: make one with "
            "datasets.reports.train_tokenizer."
        ) from None
    if not pieces or not prefix or min(pieces.values()) < 0:
        raise ConfigError(f"{path}: expected pieces numbered from 0 and a prefix of continuing ones, got '{prefix}'.")
    return pieces, special, prefix
