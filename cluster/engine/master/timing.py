"""How long something took, lately: the last value, and percentiles of the last thousand under Mesos' keys."""

from __future__ import annotations

from collections import deque

WINDOW = 1000
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
        self._values.append(ms)
        self.count += 1

    def metrics(self) -> dict[str, float]:
        """The latest value (0 before the first), and from the second on what is known of the last thousand."""
        found = {self._name: self._values[-1] if self._values else 0.0}
        if len(self._values) > 1:
            ordered = sorted(self._values)
            found[f"{self._name}/count"] = self.count
            found[f"{self._name}/min"], found[f"{self._name}/max"] = ordered[0], ordered[-1]
            for key, share in _PERCENTILES:
                found[f"{self._name}/{key}"] = _at(ordered, share)
        return found


def _at(ordered: list[float], share: float) -> float:
    """The value that this share of the others does not exceed, interpolated."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
