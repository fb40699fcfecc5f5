"""Images that look like labels of others: label volumes and class maps that a folder holds beside its images."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from datasets.manifest import Manifest

_FILE = re.compile(
    r"[._-](d?seg|segmentation|labels?|labelmap|masks?|instances?|annotations?)(?=[._-]|$)", re.IGNORECASE
)
_FOLDER = re.compile(r"(labels?|masks?|segmentations?|instances?|annotations?)(Tr|Ts|Va)?", re.IGNORECASE)
_CLASSES = 255  # the most that a class map is taken to have


def look_like_labels(manifest: Manifest) -> list[tuple[int, str]]:
    """Give the row of each image that looks so, and a sentence: why, and the `--exclude` that leaves it out.

    They have one band and a name that says it, or whole numbers up to 255 and the size of a stack of bands beside them.
    Where all images look so, they are what somebody wants to read.
    """
    rows = manifest.table.select(["root", "file", "shape", "dtype", "low", "high"]).to_pylist()
    stacks = defaultdict(list)
    for row in rows:
        if row["shape"][0] > 1:
            stacks[_place(row), *row["shape"][1:]].append(PurePosixPath(row["file"]).name)
    found = []
    for number, row in enumerate(rows):
        if row["shape"][0] > 1:
            continue
        stack = stacks.get((_place(row), *row["shape"][1:]))
        text = _name(row["file"]) or (_classes(row, stack[0]) if stack else "")
        if text:
            found.append((number, text))
    return found if len(found) < len(rows) else []


def holds_labels(folder: str) -> bool:
    """Whether a folder is called as those that hold labels are: `labels`, `labelsTr`, `masks`, `instances`."""
    return _FOLDER.fullmatch(folder) is not None


def _name(file: str) -> str:
    path = PurePosixPath(file)
    folder = next((part for part in path.parts[:-1] if holds_labels(part)), None)
    if folder is not None:
        return f"it lies in a folder '{folder}' (datasets.convert --exclude {shlex.quote(folder)})."
    word = _FILE.search(path.name)
    return f"its name has '{word[0]}' (datasets.convert --exclude {shlex.quote(f'*{word[0]}*')})." if word else ""


def _place(row: dict[str, Any]) -> tuple[str, str]:
    return row["root"], str(PurePosixPath(row["file"]).parent)


def _classes(row: dict[str, Any], stack: str) -> str:
    if row["dtype"][:1] not in ("i", "u") or row["low"] is None or not 0 <= row["low"][0] < row["high"][0] <= _CLASSES:
        return ""
    name = PurePosixPath(row["file"]).name
    numbers = f"whole numbers from {row['low'][0]:g} to {row['high'][0]:g}"
    return f"it holds {numbers} beside the bands of {stack} (datasets.convert --exclude {shlex.quote(name)})."
