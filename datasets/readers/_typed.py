"""How errors and flags name a reader's option: as a person types it, on any command line of `datasets` and `domains`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from core.errors import HalfseenError


def typed(*options: str) -> str:
    """Say how to give options: `typed("geotiff.bands=[a,b]")` is `--options 'geotiff.bands=[a,b]'`, quoted for a shell.

    In Python the same texts go to `build_manifest(options=[...])` and `configured([...])`.
    """
    return f"--options {' '.join(map(shlex.quote, options))}"


@contextmanager
def on_behalf_of(reader: str, options: Collection[str]) -> Iterator[None]:
    """Let errors of the GeoTIFF reader name the options of a reader that works through it, as far as that has them."""

    def own(found: re.Match[str]) -> str:
        return f"{reader}.{found[1]}" if found[1] in options else found[0]

    try:
        yield
    except HalfseenError as error:
        raise type(error)(re.sub(r"\bgeotiff\.([a-z]\w*)(?==)", own, str(error))) from None
