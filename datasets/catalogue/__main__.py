"""`python -m datasets.catalogue list | show NAME | locate NAME ROOT [--out LIST] | unpack NAME ROOT TARGET`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence

from datasets.catalogue import get, names
from datasets.catalogue.base import Entry, Listing
from datasets.program import exit_code
from datasets.readers._typed import typed


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; gives the exit code: 0, or 2 for what the user has to mend."""
    given = _parser().parse_args(words)
    return exit_code(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
    if given.verb == "show":
        print(described(get(given.name)))
    elif given.verb == "locate":
        listing = get(given.name).locate(given.root)
        if given.out:
            listing.write(given.out)
        print(summarised(listing, given.out))
    elif given.verb == "unpack":
        get(given.name).unpacked(given.root, given.target)
        print(f"unpacked into {given.target}; next: python -m datasets.catalogue locate {given.name} {given.target}")
    else:
        print("\n".join(_line(get(name)) for name in names()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.catalogue", description="Public data sets: facts and layouts."
    )
    verbs = parser.add_subparsers(dest="verb")
    verbs.add_parser("list", help="one line per set (the default)")
    verbs.add_parser("show", help="all that is known of one set").add_argument("name")
    locate = verbs.add_parser("locate", help="find a set's images and write the list that build_manifest takes")
    locate.add_argument("name")
    locate.add_argument("root", help="folder that the set was unpacked into")
    locate.add_argument("--out", help="list to write (.csv), best inside the root")
    unpack = verbs.add_parser("unpack", help="write the single images of a set that packs many into one file")
    unpack.add_argument("name")
    unpack.add_argument("root")
    unpack.add_argument("target", help="new folder")
    return parser


def _line(entry: Entry) -> str:
    images = "" if entry.size.images is None else f"{entry.size.images:,}"
    return f"{entry.name:24} {entry.domain:10} {images:>9}  {entry.licence.name:28.28}  {entry.title}"


def described(entry: Entry) -> str:
    """All that is known of a set, for the terminal."""
    use = {True: "commercial use allowed", False: "no commercial use", None: "commercial use unclear"}[
        entry.licence.commercial
    ]
    counts = (("images", entry.size.images), ("groups", entry.size.groups), ("GB", entry.size.gigabytes))
    size = [f"{count:,} {what}" for what, count in counts if count is not None]
    facts = {
        "name": entry.name,
        "domain": entry.domain,
        "images": entry.modality,
        "size": ", ".join(size) or "unknown",
        "licence": f"{entry.licence.name} ({use})",
        "before download": entry.licence.registration or "nothing",
        "get it from": entry.homepage,
        "cite": str(entry.citation),
        "reader options": typed(*entry.options) if entry.options else "none",
        "not verified": "; ".join(entry.unverified) or "nothing",
    }
    lines = [entry.title, "=" * len(entry.title)]
    lines += [_folded(f"{key + ':':17}{value}", 17) for key, value in facts.items()]
    lines += ["", "labels", *(_folded(f"  {name}: {text}", 6) for name, text in entry.labels.items())]
    lines += ["", "traps", *(_folded(f"  - {trap}", 4) for trap in entry.traps)]
    return "\n".join([*lines, "", "layout", textwrap.indent(entry.tree, "  ")])


def _folded(text: str, indent: int) -> str:
    return textwrap.fill(text, 118, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def summarised(listing: Listing, out: str | None) -> str:
    """What was found, and what to do with it."""
    rows = listing.rows
    lines = [f"{listing.entry.name}: {len(rows):,} images in {len({row.group for row in rows}):,} groups"]
    splits = Counter(row.split for row in rows if row.split is not None)
    lines += [f"  split: {', '.join(f'{name} {count:,}' for name, count in splits.items())}"] * bool(splits)
    lines += [f"  note ({note.code}): {note.text}" for note in listing.notes]
    lines += [f"  reader options: {typed(*listing.entry.options)}"] * bool(listing.entry.options)
    lines += [f"  written: {out}" if out else "  give --out LIST to write the list that build_manifest takes"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
