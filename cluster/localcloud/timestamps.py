"""Times as AWS writes them. Standard library only."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime


def seconds(moment: datetime) -> float:
    """Seconds since the epoch of a time of moto's: without a time zone, it is UTC."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def iso(moment: float) -> str:
    """Seconds since the epoch as `2026-11-21T12:00:00Z`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def http_date(moment: float) -> str:
    """AWS Health's and scheduled events' form: `Sat, 21 Nov 2026 12:00:00 GMT`."""
    return format_datetime(datetime.fromtimestamp(moment, UTC), usegmt=True)
