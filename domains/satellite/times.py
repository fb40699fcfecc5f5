"""When a scene was taken, as the names of published products say; nothing is guessed from anything else."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_CALENDAR = re.compile(r"(?:^|[_.-])(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})(?=\D|$)")  # Sentinel-1 and -2
_YEAR_DAY = re.compile(r"\.(\d{4})(\d{3})T(\d{2})(\d{2})(\d{2})(?=\D|$)")  # HLS
_GRANULE = re.compile(r"\.A(\d{4})(\d{3})(?:\.(\d{2})(\d{2}))?\.")  # MODIS and VIIRS, with the minute of a swath
_COLLECTION = re.compile(r"^L[COTEM]0\d_\w{4}_\d{6}_(\d{4})(\d{2})(\d{2})_")  # Landsat since its Collection 1
_SCENE_ID = re.compile(r"^L[COTEM]\d\d{6}(\d{4})(\d{3})[A-Z]{3}\d{2}")  # Landsat before: path, row, year, day


def time_of(name: str) -> datetime | None:
    """Read the time of acquisition in UTC from a product's name; None where the name is of no known product.

    Products that name a day only give its first moment.
    """
    for pattern, of_year in (
        (_CALENDAR, False),
        (_YEAR_DAY, True),
        (_GRANULE, True),
        (_COLLECTION, False),
        (_SCENE_ID, True),
    ):
        found = pattern.search(name)
        if found is None:
            continue
        numbers = [int(text) for text in found.groups() if text is not None]
        try:
            return _of_day(*numbers) if of_year else datetime(*numbers, tzinfo=UTC)  # type: ignore[arg-type,misc]
        except ValueError:  # a thirteenth month: not such a name after all
            return None
    return None


def _of_day(year: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> datetime:
    if not 1 <= day <= 366:
        raise ValueError(day)
    return datetime(year, 1, 1, hour, minute, second, tzinfo=UTC) + timedelta(days=day - 1)
