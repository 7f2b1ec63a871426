"""Conditions that a leader needs to do its work, and when it resigns for want of one. Pure.

A leader that cannot work keeps every other candidate from working. Each leader reports how its work
goes, asks `reason_to_resign` after each attempt, and gives its leadership up when there is one.
`Resignations` delays its next candidacy, so that another process leads first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from mesaform.common.backoff import Backoff, Delay
from mesaform.common.errors import MesaformError

METRIC = "mesaform_leader_condition"
"""Gauge with the label `condition`: 1 while it holds, 0 while it does not."""

RESIGNATIONS_METRIC = "mesaform_leader_resignations_total"
"""Counter with the label `condition`."""


class Condition(StrEnum):
    """What a leader needs."""

    CREDENTIALS = "credentials"
    ORDERS = "orders readable"
    PASSES = "passes succeed"
    ZOOKEEPER = "ZooKeeper writable"
    LAUNCHES = "machines register"


@dataclass(frozen=True, slots=True)
class Limit:
    """A leader resigns after this many failures in a row that last at least `seconds`."""

    failures: int
    seconds: float


NEVER = Limit(failures=0, seconds=float("inf"))
"""The limit of a condition that another leader would lack as well."""

DEFAULT_LIMIT = Limit(failures=5, seconds=30.0)
CANDIDACY = Backoff(first_s=1.0, cap_s=30.0, factor=2.0, jitter=0.5)


@dataclass(frozen=True, slots=True)
class Failures:
    """Failures in a row of one condition; none: it holds. `since` is in seconds of the clock."""

    count: int = 0
    since: float = 0.0
    detail: str = ""


class Resigned(MesaformError):
    """The leader cannot work and gives its leadership up; `condition` is what it lacks."""

    def __init__(self, condition: Condition, detail: str) -> None:
        super().__init__(f"{condition}: {detail}")
        self.condition = condition


class Conditions:
    """The conditions of one process; those of a standby all hold.

    Args:
        needed: the conditions of this kind of leader.
        clock: seconds with any origin, not going back.
        limits: by condition; `DEFAULT_LIMIT` for the others.

    """

    def __init__(
        self,
        needed: Collection[Condition],
        clock: Callable[[], float],
        limits: Mapping[Condition, Limit] | None = None,
    ) -> None:
        self._clock = clock
        self._limits = dict(limits or {})
        self._failures = {condition: Failures() for condition in needed}

    def reset(self) -> None:
        """Begin or end a term: nothing has failed."""
        self._failures = dict.fromkeys(self._failures, Failures())

    def satisfied(self, condition: Condition) -> None:
        """Note that the condition holds."""
        self._failures[condition] = Failures()

    def failed(self, condition: Condition, detail: str) -> None:
        """Note one more failure. `detail` is a sentence for people."""
        known = self._failures[condition]
        since = known.since if known.count else self._clock()
        self._failures[condition] = replace(
            known, count=known.count + 1, since=since, detail=detail
        )

    @property
    def unmet(self) -> dict[Condition, Failures]:
        """The conditions that do not hold now."""
        return {condition: item for condition, item in self._failures.items() if item.count}

    def check(self) -> None:
        """Return while the leader may go on.

        Raises:
            Resigned: a condition has failed for too long.

        """
        for condition, failures in self.unmet.items():
            limit = self._limits.get(condition, DEFAULT_LIMIT)
            lasted_s = self._clock() - failures.since
            if failures.count >= limit.failures and lasted_s >= limit.seconds:
                raise Resigned(condition, failures.detail)

    def reasons(self) -> list[str]:
        """One sentence for each condition that does not hold."""
        now = self._clock()
        return [
            f"{condition}: {item.detail} ({item.count} times in {now - item.since:.0f} s)"
            for condition, item in self.unmet.items()
        ]

    def gauge(self) -> dict[str, int]:
        """The values of `METRIC` by condition."""
        return {str(name): int(not item.count) for name, item in self._failures.items()}


class Resignations:
    """The delay of a process's next candidacy after it resigned."""

    def __init__(self, policy: Backoff = CANDIDACY) -> None:
        self._policy = policy
        self._delay = Delay()
        self.counts: dict[str, int] = {}
        self.last = ""

    def add(self, resigned: Resigned, now: float, fraction: float = 1.0) -> None:
        """Note a resignation. `fraction` is a random number from 0 to 1 for the jitter."""
        self._delay = self._delay.after_failure(self._policy, now, fraction)
        self.counts[resigned.condition] = self.counts.get(resigned.condition, 0) + 1
        self.last = str(resigned)

    def worked(self) -> None:
        """Note that this process led and did its work: the next delay is the first one again."""
        self._delay = Delay()

    def reason(self, now: float) -> str:
        """Why this process is no candidate now; empty if it is one."""
        return f"resigned: {self.last}" if self.pause_s(now) > 0 else ""

    def pause_s(self, now: float) -> float:
        """Seconds until this process may be a candidate again."""
        return self._delay.remaining_s(now)


def metric_lines(conditions: Conditions, resignations: Resignations) -> list[str]:
    """The conditions and resignations in Prometheus' text format."""
    return [
        f"# HELP {METRIC} 1 while the condition holds that a leader needs",
        f"# TYPE {METRIC} gauge",
        *(f'{METRIC}{{condition="{name}"}} {value}' for name, value in conditions.gauge().items()),
        f"# HELP {RESIGNATIONS_METRIC} Terms given up for want of a condition",
        f"# TYPE {RESIGNATIONS_METRIC} counter",
        *(
            f'{RESIGNATIONS_METRIC}{{condition="{name}"}} {count}'
            for name, count in resignations.counts.items()
        ),
    ]
