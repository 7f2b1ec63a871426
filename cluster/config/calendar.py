"""Parts of the week in UTC: days (`mon-fri`, `sat,sun`) and hours (`22:00-06:00`). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from mesaform.config.field_types import text_error

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60


def checked_days(text: str) -> str:
    """Return the text.

    Raises:
        PydanticCustomError: it names no days.

    """
    if not days_of(text):
        raise text_error(f"{text!r} names no days; write mon-fri, or sat,sun")
    return text


def checked_hours(text: str) -> str:
    """Return the text.

    Raises:
        PydanticCustomError: it is not a part of a day, or an empty one.

    """
    if hours_of(text) is None:
        raise text_error(f"{text!r} is not a part of a day that opens; write 22:00-06:00")
    return text


def days_of(text: str) -> frozenset[int]:
    """Return the days that a text names (Monday is 0); none if a part of it is wrong.

    `fri-mon` continues over the end of the week.
    """
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            return frozenset()
        start = DAYS.index(first)
        length = (DAYS.index(last or first) - start) % 7 + 1
        days |= {(start + day) % 7 for day in range(length)}
    return frozenset(days)


def hours_of(text: str) -> tuple[int, int] | None:
    """Return the first minute and the minute after the last.

    The second is above 1440 if the span continues over midnight. None if the text is wrong or the
    span is empty.
    """
    match = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", text)
    if match is None:
        return None
    hour, minute, to_hour, to_minute = (int(part) for part in match.groups())
    start, end = hour * 60 + minute, to_hour * 60 + to_minute
    if start == end or max(minute, to_minute) > 59 or start >= DAY_MINUTES or end > DAY_MINUTES:
        return None
    return (start, end) if end > start else (start, end + DAY_MINUTES)


def is_open(days: str, hours: str, at: float) -> bool:
    """Whether a moment (epoch s) is in the part of the week that begins on these days.

    After midnight the span belongs to the day on which it began.
    """
    span = hours_of(hours)
    if span is None:
        return False
    moment = datetime.fromtimestamp(at, UTC)
    minute, day, named = moment.hour * 60 + moment.minute, moment.weekday(), days_of(days)
    return (day in named and span[0] <= minute < span[1]) or (
        (day - 1) % 7 in named and minute + DAY_MINUTES < span[1]
    )


def next_change(days: str, hours: str, after: float) -> float | None:
    """Return the first moment (epoch s) after `after` at which the part of the week begins or ends.

    None if it never does.
    """
    candidates = (
        at
        for at in _boundaries(days, hours, after)
        if at > after and is_open(days, hours, at) != is_open(days, hours, at - 60)
    )
    return min(candidates, default=None)


def _boundaries(days: str, hours: str, near: float) -> Iterator[float]:
    """Begins and ends of the spans from the day before a moment to a week after it."""
    span, named = hours_of(hours), days_of(days)
    midnight = datetime.fromtimestamp(near, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    for day in range(-1, 9):
        date = midnight + timedelta(days=day)
        if date.weekday() in named:
            yield from ((date + timedelta(minutes=minute)).timestamp() for minute in span or ())
