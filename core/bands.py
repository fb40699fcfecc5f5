"""Bands by name: the order of a file's channels never decides anything, their names do."""

from __future__ import annotations

from core.errors import BandError

BandNames = tuple[str, ...]

RGB: BandNames = ("red", "green", "blue")


def align(have: BandNames, want: BandNames) -> list[int] | None:
    """Give the index into `have` of each wanted band, or None when the order already agrees.

    Raises:
        BandError: a wanted band is missing, or a name occurs twice.
    """
    if len(set(have)) != len(have):
        raise BandError(f"expected each band once, got {have}.")
    if have == want:
        return None
    missing = [band for band in want if band not in have]
    if missing:
        raise BandError(f"expected bands {want}, but {missing} are not among the image's bands {have}.")
    return [have.index(band) for band in want]
