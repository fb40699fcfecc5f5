"""The published encoders on the command line: which there are, what one expects of images, and whether a file is one.

    python -m core.zoo list [WORD ...]
    python -m core.zoo show NAME
    python -m core.zoo verify NAME --weights FILE

`list` prints those whose line holds every WORD. `verify` reads a file as `load_encoder` would, without taking the memory of
the encoder, and says what became of each key. Exit code 2 and a sentence on standard error where something does not fit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

import torch

from core.contract import Input
from core.encoders.cards import get_card, list_encoders
from core.encoders.cards._table import CardList, row, short_count, terms
from core.encoders.cards.base import Card, Source
from core.errors import HalfseenError, MissingDataError
from core.hub import address, found_here, place_of
from core.registry import name_of_class

_WIDEST = 120
_INDENT = 14


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with 2 where something is the user's to mend."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        print(given.run(given))
    except HalfseenError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def listed(words: Iterable[str] = ()) -> str:
    """Give the table of encoders whose line holds every word, whatever its case.

    Raises:
        MissingDataError: there is none.
    """
    wanted = [word.lower() for word in words]
    lines = ((card, " ".join((*row(card), card.modality, *card.aliases)).lower()) for card in list_encoders())
    found = CardList(card for card, line in lines if all(word in line for word in wanted))
    if not found:
        raise MissingDataError(f"expected words of a published encoder, found none with {' and '.join(wanted)}.")
    return f"{found!r}\n\n{len(found)} encoders; more of one: python -m core.zoo show NAME"


def shown(card: Card) -> str:
    """Describe one encoder: what it reads, in which units, what its vectors are, where it lies and on which terms."""
    spec = card.spec()
    with torch.device("meta"):
        backbone = spec.build()
    also = f"also: {', '.join(card.aliases)}" if card.aliases else ""
    blocks = [
        _fact("architecture", f"{name_of_class(type(spec))}, {_counted(card.parameters)}"),
        *(_fact("input", _input(entry)) for entry in spec.contract.inputs),
        _fact("vectors", f"{backbone.num_features} numbers, pooled by '{card.pool}'"),
        _fact("weights", _where(card.source)),
        _fact("terms", terms(card)),
        _fact("source", card.citation + (f", arXiv {card.paper}" if card.paper else "")),
        *(_fact("reported", f"{task}, {metric}: {value}") for task, metric, value in card.reported),
        *(_fact("note", note) for note in card.notes),
        _fact("in Python", _call(card)),
    ]
    heading = "\n".join(line for line in (card.name, card.title, also) if line)
    return f"{heading}\n\n" + "\n".join(blocks)


def verified(card: Card, path: Path) -> str:
    """Read a file as `load_encoder` does and say what became of each key; nothing of the encoder's size is allocated.

    Raises:
        HalfseenError: the file is not this encoder; the message names what does not fit.
    """
    from core.foreign import read_encoder
    from core.weights import check

    spec = card.spec()
    found = read_encoder(path, spec, card.layout, sha256=card.source.sha256)
    with torch.device("meta"):
        backbone = spec.build()
    placement = check(backbone, found.weights, source=str(path))
    numbers = sum(value.numel() for key, value in found.weights.items() if not key.endswith(".nodata"))
    rules: Counter[str] = Counter()
    for key in found.dropped:
        rules[next((rule for rule in card.layout.drop if fnmatchcase(_last(key, found.prefix), rule)), "a rule")] += 1
    dropped = ", ".join(f"{count} by {rule}" for rule, count in rules.most_common())
    digest = "as on the card" if card.source.sha256 else "the card knows none to compare with"
    blocks = [
        _fact("file", f"{path}, {_bytes(path.stat().st_size)}"),
        _fact("sha256", f"{found.sha256}, {digest}"),
        _fact("keys", f"{len(found.placed)} placed, {len(found.dropped)} dropped{f': {dropped}' if dropped else ''}"),
        _fact("prefix", f"'{found.prefix}'" if found.prefix else "none"),
        _fact("encoder", f"{len(placement.placed)} tensors filled, none left; {_counted(numbers)}"),
        _fact("numbers", f"{found.source_dtype}, all finite"),
    ]
    return f"{card.name}: this file is that encoder\n\n" + "\n".join(blocks)


def _last(key: str, prefix: str) -> str:
    """Shorten a key by as much of a prefix as it has."""
    pieces = prefix.split(".")[:-1]
    while pieces and key.startswith(f"{pieces[0]}."):
        key = key.removeprefix(f"{pieces.pop(0)}.")
    return key


def _fact(name: str, text: str) -> str:
    """Lay out one fact: its name, then its text in a column of its own."""
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    lines = [
        line
        for part in text.split("\n")
        for line in (
            textwrap.wrap(part, width - _INDENT, break_long_words=False, break_on_hyphens=False)
            if "  " not in part
            else [part]
        )
    ]
    return textwrap.indent("\n".join(lines), " " * _INDENT).replace(" " * _INDENT, name.ljust(_INDENT), 1)


def _input(entry: Input) -> str:
    """Describe an input, and how each of its bands becomes what the encoder reads."""
    size, patch = (" x ".join(map(str, numbers)) for numbers in (entry.size, entry.patch))
    spacing = "" if entry.unit == "px" else f" of {' x '.join(f'{s:g}' for s in entry.spacing)} {entry.unit}"
    sensor = f" of {entry.sensor}" if entry.sensor else ""
    head = f"{entry.name}: {len(entry.bands)} bands{sensor}, {size} voxels{spacing}, patch {patch}"
    return "\n".join([head, *_bands(entry)])


def _bands(entry: Input) -> list[str]:
    space = entry.normalisation
    if space.method == "per_image":
        return [f"bands {', '.join(entry.bands)}; mean 0 and deviation 1 in each image"]
    units: list[str] = [band.unit for band in entry.described] or ["value"] * len(entry.bands)
    rows: list[tuple[str, ...]] = [("band", "unit", "becomes 0", "becomes 1", "cut off beyond")]
    for number, (band, unit) in enumerate(zip(entry.bands, units, strict=True)):
        zero, one = space.mean[number], space.mean[number] + space.std[number]
        clip = "{:g} .. {:g}".format(*space.clip[number]) if space.clip else ""
        rows.append((band, unit, f"{zero:.6g}", f"{one:.6g}", clip))
    rows = rows if space.clip else [row[:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _where(source: Source) -> str:
    facts = [_bytes(source.size_bytes)] if source.size_bytes else []
    facts += [f"sha256 {source.sha256}"] if source.sha256 else []
    place = address(source) or f"{source.file}: {source.page}"
    told = f" ({', '.join(facts)})" if facts else ""
    here = found_here(source)
    return f"{place}{told}\n" + (f"fetched: {here}" if here else f"not fetched; its place is {place_of(source)}")


def _call(card: Card) -> str:
    accept = ", accept=('non_commercial',)" if card.non_commercial else ""
    weights = "" if address(card.source) else ", weights=PATH"
    return f"core.load_encoder('{card.name}'{weights}{accept if not weights else ''})"


def _counted(parameters: int) -> str:
    return f"{parameters:,} parameters ({short_count(parameters)}, {_bytes(4 * parameters)} as float32)"


def _bytes(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def _parser() -> argparse.ArgumentParser:
    pages = (__doc__ or "").partition("\n")
    parser = _Parser(prog="python -m core.zoo", description=pages[0])
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    one = verbs.add_parser("list", help="list the encoders, or those whose line holds every WORD")
    one.add_argument("words", nargs="*", metavar="WORD")
    one.set_defaults(run=lambda given: listed(given.words))
    one = verbs.add_parser("show", help="describe one encoder: bands, units, terms, where its weights lie")
    one.add_argument("name", metavar="NAME")
    one.set_defaults(run=lambda given: shown(get_card(given.name)))
    one = verbs.add_parser("verify", help="say whether a file holds the weights of an encoder, whole and unchanged")
    one.add_argument("name", metavar="NAME")
    one.add_argument("--weights", metavar="FILE", type=Path, required=True, help="the file as it was fetched")
    one.set_defaults(run=lambda given: verified(get_card(given.name), given.weights))
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what was wrong in one line, as every verb of the house does."""

    def error(self, message: str) -> NoReturn:
        """End with one line."""
        print(f"error: {message}; see {self.prog} --help.", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
