"""What the result of a health check means for its task. Pure; `checks` runs the checks."""

from __future__ import annotations

from dataclasses import dataclass

from mesaform.engine.agent.events import HealthChecked
from mesaform.mesos.messages import HealthCheck


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """The timings of a v1 HealthCheck, with Mesos' defaults (mesos.proto)."""

    delay_s: float
    interval_s: float
    timeout_s: float
    grace_period_s: float
    consecutive_failures: int

    @classmethod
    def of(cls, check: HealthCheck) -> HealthPolicy:
        """The policy of a HealthCheck message. A `timeout_s` of 0 means no limit."""
        return cls(
            delay_s=_or_default(check.delay_seconds, 15.0),
            interval_s=_or_default(check.interval_seconds, 10.0),
            timeout_s=_or_default(check.timeout_seconds, 20.0),
            grace_period_s=_or_default(check.grace_period_seconds, 10.0),
            consecutive_failures=int(_or_default(check.consecutive_failures, 3)),
        )


class HealthTracker:
    """The health of one task.

    Failures do not count during the grace period, which ends early with the first success.

    Args:
        container_id: the task's container.
        policy: the timings.
        running_since: when the task began to run, in seconds since the epoch.

    """

    def __init__(self, container_id: str, policy: HealthPolicy, running_since: float) -> None:
        self._container_id = container_id
        self._policy = policy
        self._grace_until = running_since + policy.grace_period_s
        self._healthy: bool | None = None
        self._failures = 0

    def result(self, now: float, *, healthy: bool) -> HealthChecked | None:
        """The event for a check's result: each failure, and the first success after one."""
        if healthy:
            is_change = self._healthy is not True
            self._healthy, self._failures = True, 0
            return HealthChecked(self._container_id, healthy=True) if is_change else None
        if self._healthy is None and now < self._grace_until:
            return None
        self._healthy = False
        self._failures += 1
        kill = self._failures >= self._policy.consecutive_failures
        return HealthChecked(self._container_id, healthy=False, kill=kill)


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else value
