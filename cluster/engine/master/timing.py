"""Durations of recent operations: the last one, and percentiles under Mesos' metric keys."""

from __future__ import annotations

from collections import deque

WINDOW = 1000
"""How many durations the percentiles cover, as in Mesos' process::metrics::Timer."""
_PERCENTILES = (
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
)


class Timings:
    """Durations in milliseconds.

    Args:
        name: the metric's key, such as `registrar/state_store_ms`.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._values: deque[float] = deque(maxlen=WINDOW)
        self.count = 0

    def add(self, ms: float) -> None:
        """Add a duration."""
        self._values.append(ms)
        self.count += 1

    def metrics(self) -> dict[str, float]:
        """The last duration (0 without one); with two or more also count, extremes, percentiles."""
        values = {self._name: self._values[-1] if self._values else 0.0}
        if len(self._values) > 1:
            ordered = sorted(self._values)
            values[f"{self._name}/count"] = self.count
            values[f"{self._name}/min"], values[f"{self._name}/max"] = ordered[0], ordered[-1]
            for key, share in _PERCENTILES:
                values[f"{self._name}/{key}"] = _percentile(ordered, share)
        return values


def _percentile(ordered: list[float], share: float) -> float:
    """The value that this share (0 to 1) of the others does not exceed, interpolated."""
    position = share * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
