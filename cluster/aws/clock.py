"""The cloud's clock: every answer of AWS carries its `Date`, so machines whose own clocks are apart can agree on one time.

Launch times come from EC2, and the journal's timers from whichever master led: a leader whose clock is wrong would give up machines that
boot and remove machines that just became idle. Beyond five minutes AWS refuses to talk at all (`RequestTimeTooSkewed`), so nothing is done.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from statistics import median
from typing import Any

MATTERS_S = 3.0
"""Less than this is not corrected: the header has whole seconds, and an answer takes its time."""

KEPT = 9
"""Answers whose median counts: one that was held up on its way must not move the clock."""


class CloudClock:
    """The cloud's time as far as it is known. Any thread may tell it and ask it.

    Args:
        local: this machine's clock, seconds since the epoch.

    """

    def __init__(self, local: Callable[[], float] = time.time) -> None:
        self._local = local
        self._lock = threading.Lock()
        self._seen: deque[float] = deque(maxlen=KEPT)

    def listen_to(self, client: Any) -> None:
        """Take the date of every answer that a botocore client gets from now on."""
        client.meta.events.register("after-call", self._answered, unique_id=f"clock-{id(self)}")

    def heard(self, date: str) -> None:
        """An answer with this `Date` header came just now. What is no date is passed over."""
        try:
            theirs_s = parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError):
            return
        with self._lock:
            self._seen.append(theirs_s + 0.5 - self._local())

    @property
    def offset_s(self) -> float:
        """Seconds to add to this machine's clock; 0 while it is right, or nothing was heard."""
        with self._lock:
            found = median(self._seen) if self._seen else 0.0
        return found if abs(found) >= MATTERS_S else 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._local() + self.offset_s

    def _answered(self, http_response: Any = None, **_: Any) -> None:
        headers: Mapping[str, str] = getattr(http_response, "headers", None) or {}
        if date := headers.get("Date") or headers.get("date"):
            self.heard(date)
