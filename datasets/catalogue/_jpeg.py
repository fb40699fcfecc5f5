"""Comments in JPEG headers: some published photographs carry record numbers and dates of examinations there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from datasets.image import Flag


def has_comment(path: Path) -> bool:
    """Say whether a JPEG has a comment before its first scan; the text itself is not read."""
    with path.open("rb") as file:
        if file.read(2) != b"\xff\xd8":
            return False
        while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
            if head[1] == 0xFE:
                return True
            file.seek(int.from_bytes(head[2:]) - 2, 1)
    return False


def flagged(paths: Iterable[Path]) -> list[Flag]:
    """A note that counts and names the photographs with comments; none, if none has one."""
    found = [path for path in paths if has_comment(path)]
    if not found:
        return []
    text = (
        f"{len(found)} photographs carry text in the comment of their JPEG header (first: {found[0].name}), in this set "
        "record numbers and dates of examinations: remove it before you pass files on."
    )
    return [Flag("header_text", text)]
