"""Health checks, decided: what a result means for its task. Running them is `checks`' work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mesaform.engine.agent.events import HealthChecked


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The v1 HealthCheck's timings, with Mesos' defaults."""

    delay_s: float
    interval_s: float
    timeout_s: float
    grace_period_s: float
    consecutive_failures: int

    @classmethod
    def of(cls, check: Mapping[str, Any]) -> HealthPolicy:
        """`timeout_s` of 0 means no limit."""
        return cls(
            delay_s=_seconds(check, "delay_seconds", 15.0),
            interval_s=_seconds(check, "interval_seconds", 10.0),
            timeout_s=_seconds(check, "timeout_seconds", 20.0),
            grace_period_s=_seconds(check, "grace_period_seconds", 10.0),
            consecutive_failures=int(check.get("consecutive_failures", 3)),
        )


class HealthTracker:
    """One task's health: failures do not count during its grace period, until it was healthy once.

    Args:
        container_id: whose.
        policy: the timings.
        running_since: when the task began to run, seconds since the epoch.

    """

    def __init__(self, container_id: str, policy: HealthPolicy, running_since: float) -> None:
        self._container_id = container_id
        self._policy = policy
        self._grace_until = running_since + policy.grace_period_s
        self._healthy: bool | None = None
        self._failures = 0

    def result(self, now: float, *, healthy: bool) -> HealthChecked | None:
        """What a check's result tells the core: good news once, bad news each time."""
        if healthy:
            news = self._healthy is not True
            self._healthy, self._failures = True, 0
            return HealthChecked(self._container_id, healthy=True) if news else None
        if self._healthy is None and now < self._grace_until:
            return None
        self._healthy = False
        self._failures += 1
        kill = self._failures >= self._policy.consecutive_failures
        return HealthChecked(self._container_id, healthy=False, kill=kill)


def _seconds(check: Mapping[str, Any], name: str, default: float) -> float:
    try:
        value = float(check.get(name, default))
    except (TypeError, ValueError):
        return default
    return value if math.isfinite(value) and value >= 0 else default
