"""When an image was taken: ISO 8601 in UTC, as precise as it is known and no more, and what `Batch.times` holds of it."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np


def as_time(value: object) -> str:
    """Bring a time to one form: `2020-08-23T10:15:00Z`, or `2020-08-23` where only the day is known.

    Args:
        value: ISO 8601 text, a datetime or a date; a time of day without a zone is taken for UTC.

    Raises:
        ValueError: it is no such thing.
    """
    if not isinstance(value, date):  # which a datetime is too
        text = str(value).strip()
        day = len(text) in (8, 10) and "T" not in text  # 20200823, 2020-08-23
        value = date.fromisoformat(text) if day else datetime.fromisoformat(text)
    if not isinstance(value, datetime):
        return value.isoformat()
    value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value.isoformat().removesuffix("+00:00") + "Z"


def frame_of(time: str | None) -> np.ndarray | None:
    """Give (1, 3) float32, year, month from 1 and full hour of the day in UTC; None where the hour is not known."""
    if time is None or "T" not in time:
        return None
    when = datetime.fromisoformat(time)
    return np.array([[when.year, when.month, when.hour]], dtype=np.float32)
