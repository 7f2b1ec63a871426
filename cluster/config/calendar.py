"""Parts of the week as people write them: days (`mon-fri`, `sat,sun`) and hours (`22:00-06:00`), in UTC. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from pydantic_core import PydanticCustomError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES = 24 * 60


def checked_days(text: str) -> str:
    """The text, if it names days."""
    if not days_of(text):
        raise PydanticCustomError(
            "text", "{given} names no days; write mon-fri, or sat,sun", {"given": repr(text)}
        )
    return text


def checked_hours(text: str) -> str:
    """The text, if it is a part of a day that is ever open."""
    if hours_of(text) is None:
        raise PydanticCustomError(
            "text",
            "{given} is not a part of a day that opens; write 22:00-06:00",
            {"given": repr(text)},
        )
    return text


def days_of(text: str) -> frozenset[int]:
    """The days that a text names, Monday 0; none when any of it is wrong. `fri-mon` goes over the week's end."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            return frozenset()
        start = DAYS.index(first)
        found |= {(start + day) % 7 for day in range((DAYS.index(last or first) - start) % 7 + 1)}
    return frozenset(found)


def hours_of(text: str) -> tuple[int, int] | None:
    """First minute and minute after the last; the second is past 1440 when it goes over midnight. None when it is wrong or empty."""
    match = re.fullmatch(r"(\d\d):(\d\d)-(\d\d):(\d\d)", text)
    if match is None:
        return None
    hour, minute, to_hour, to_minute = (int(part) for part in match.groups())
    start, end = hour * 60 + minute, to_hour * 60 + to_minute
    if start == end or max(minute, to_minute) > 59 or start >= DAY_MINUTES or end > DAY_MINUTES:
        return None
    return (start, end) if end > start else (start, end + DAY_MINUTES)


def is_open(days: str, hours: str, at: float) -> bool:
    """Whether a moment (epoch seconds) is in the part of the week that begins on these days at the first of these hours."""
    span = hours_of(hours)
    if span is None:
        return False
    moment = datetime.fromtimestamp(at, UTC)
    minute, day, named = moment.hour * 60 + moment.minute, moment.weekday(), days_of(days)
    return (day in named and span[0] <= minute < span[1]) or (
        (day - 1) % 7 in named and minute + DAY_MINUTES < span[1]
    )


def next_change(days: str, hours: str, after: float) -> float | None:
    """The first moment (epoch seconds) after `after` at which that part of the week begins or ends; None if it never does."""
    span, named = hours_of(hours), days_of(days)
    if span is None or not named:
        return None
    midnight = datetime.fromtimestamp(after, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    ends = (
        (midnight + timedelta(days=day, minutes=minute)).timestamp()
        for day in range(-1, 9)
        if (midnight + timedelta(days=day)).weekday() in named
        for minute in span
    )
    return min(
        (
            at
            for at in ends
            if at > after and is_open(days, hours, at) != is_open(days, hours, at - 60)
        ),
        default=None,
    )
