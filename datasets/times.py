"""When an image was taken: ISO 8601 in UTC, as precise as it is known and no more, and what `Batch.times` holds of it."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np

# Read here, not by `fromisoformat`: what that accepts depends on Python's version, and it takes half a minute for half a
# second and a week for its Monday.
_DAY = re.compile(r"(\d{4})(-?)(\d\d)\2(\d\d)", re.ASCII)
_CLOCK = re.compile(
    r"(\d\d)(?:(:?)(\d\d)(?:\2(\d\d)(?:[.,](\d{1,9}))?)?)?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII | re.IGNORECASE
)


def as_time(value: object) -> str:
    """Bring a time to one form: `2020-08-23T10:15:00Z`, or `2020-08-23` where only the day is known.

    Args:
        value: ISO 8601 text (a day of the calendar, alone or with a time of day), a datetime or a date; a time of day
            without a zone is taken for UTC. A leap second is taken for the second before it.

    Raises:
        ValueError: it is no such thing, or lies beyond the years 1 to 9999.
    """
    when = value if isinstance(value, date) else _read(str(value).strip())  # a datetime is a date too
    if not isinstance(when, datetime):
        return when.isoformat()
    try:
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{value} lies beyond the years 1 to 9999") from None
    return when.isoformat().removesuffix("+00:00") + "Z"


def frame_of(time: str | None) -> np.ndarray | None:
    """Give (1, 3) float32, year, month from 1 and full hour of the day in UTC; None where the hour is not known."""
    if time is None or "T" not in time:
        return None
    when = datetime.fromisoformat(time)
    return np.array([[when.year, when.month, when.hour]], dtype=np.float32)


def _read(text: str) -> date:
    day = _DAY.match(text)
    if day is None:
        raise ValueError(f"{text!r} does not begin with a day such as 2020-08-23")
    found = date(int(day[1]), int(day[3]), int(day[4]))
    rest = text[day.end() :]
    if not rest:
        return found
    clock = _CLOCK.fullmatch(rest, 1) if rest[0] in "Tt " else None
    if clock is None:
        raise ValueError(f"{text!r} does not end with a time of day such as T10:15:00Z")
    hour, _, minute, second, fraction, zone = clock.groups()
    seconds = 59 if second == "60" else int(second or 0)
    micro = int((fraction or "").ljust(6, "0")[:6])
    when = datetime(found.year, found.month, found.day, int(hour), int(minute or 0), seconds, micro)
    if zone is None:
        return when
    return when.replace(tzinfo=UTC if zone in "Zz" else _zone(zone))


def _zone(text: str) -> timezone:
    minutes = 60 * int(text[1:3]) + int(text[3:].lstrip(":") or 0)
    return timezone(timedelta(minutes=minutes if text[0] == "+" else -minutes))
