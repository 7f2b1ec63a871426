"""What a process that may lead reports of itself: conditions, faults, records set aside. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from mesaform.common import conditions, faults, set_aside
from mesaform.common.conditions import Condition, Conditions, Limit, Resignations
from mesaform.common.faults import FaultLog
from mesaform.common.json_types import JsonObject
from mesaform.common.set_aside import SetAsideLog

WARNINGS_METRIC = "mesaform_leader_warning"
"""Gauge with the label `subject`."""


class LeaderHealth:
    """The health of one process. `warnings` are by subject what fails and stops no work.

    Args:
        needed: the conditions of this kind of leader.
        clock: seconds with any origin, not going back.
        limits: by condition, see `Conditions`.

    """

    def __init__(
        self,
        needed: Collection[Condition],
        clock: Callable[[], float],
        limits: Mapping[Condition, Limit] | None = None,
    ) -> None:
        self._clock = clock
        self.faults = FaultLog()
        self.records = SetAsideLog()
        self.conditions = Conditions(needed, clock, limits)
        self.resignations = Resignations()
        self.warnings: dict[str, str] = {}

    def reasons(self) -> list[str]:
        """Why this process cannot work now; empty if it can."""
        resigned = self.resignations.reason(self._clock())
        return [*self.conditions.reasons(), *([resigned] if resigned else [])]

    def view(self, *, is_leading: bool) -> JsonObject:
        """The part of the answer of `/health` that all leaders share."""
        reasons = self.reasons()
        return {
            "able": not reasons,
            "leading": is_leading,
            "reasons": list(reasons),
            "conditions": {name: bool(value) for name, value in self.conditions.gauge().items()},
            "set_aside": dict(self.records.counts),
            "faults": dict(self.faults.counts),
            "warnings": [f"{subject}: {text}" for subject, text in self.warnings.items()],
        }

    def metrics(self) -> str:
        """The counters and conditions in Prometheus' text format."""
        lines = [
            *faults.metric_lines(self.faults.counts),
            *set_aside.metric_lines(self.records.counts),
            *conditions.metric_lines(self.conditions, self.resignations),
            f"# HELP {WARNINGS_METRIC} 1 while something fails that stops no work",
            f"# TYPE {WARNINGS_METRIC} gauge",
            *(f'{WARNINGS_METRIC}{{subject="{subject}"}} 1' for subject in self.warnings),
        ]
        return "".join(f"{line}\n" for line in lines)
