"""Clock that follows the `Date` header of AWS's answers.

Machines whose own clocks differ agree on one time. EC2 states launch times, and the journal's
timers come from whichever master led: a leader with a wrong clock would give up booting machines
and remove machines that just became idle. AWS refuses calls of clocks that are off by five minutes
or more (`RequestTimeTooSkewed`). Between answers it counts on a clock that nobody sets, so that a
jump of the machine's own moves nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.client import BaseClient

MIN_OFFSET_S = 3.0
"""Smaller offsets are not corrected: the header has whole seconds, and an answer takes time."""

SAMPLES = 9
"""Answers whose median counts, so that one delayed answer does not move the clock."""


def seconds_since_boot() -> float:
    """Seconds since the machine booted, with those in which it slept (clock_gettime(2))."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class CloudClock:
    """AWS's time as far as it is known. Safe to use from several threads.

    Args:
        local: this machine's clock, in seconds since the epoch.
        steady: a clock that counts seconds and is never set.

    """

    def __init__(
        self,
        local: Callable[[], float] = time.time,
        steady: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self._local = local
        self._steady = steady
        self._lock = threading.Lock()
        self._starts_s: deque[float] = deque(maxlen=SAMPLES)
        """AWS's time at the start of `steady`, by each of the last answers."""

    def observe(self, client: BaseClient) -> None:
        """Take the date of every further answer of a botocore client."""
        client.meta.events.register("after-call", self._on_answer, unique_id=f"clock-{id(self)}")

    def add_sample(self, date: str) -> None:
        """Add the `Date` header of an answer that arrived now; ignore other texts."""
        try:
            aws_s = parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError):
            return
        with self._lock:
            self._starts_s.append(aws_s + 0.5 - self._steady())

    @property
    def offset_s(self) -> float:
        """Seconds to add to this machine's clock; 0 if it is right or no answer arrived."""
        with self._lock:
            start_s = median(self._starts_s) if self._starts_s else None
        if start_s is None:
            return 0.0
        offset_s = start_s + self._steady() - self._local()
        return offset_s if abs(offset_s) >= MIN_OFFSET_S else 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._local() + self.offset_s

    def _on_answer(self, http_response: object = None, **_: object) -> None:
        headers: Mapping[str, str] = getattr(http_response, "headers", None) or {}
        if date := headers.get("Date") or headers.get("date"):
            self.add_sample(date)
