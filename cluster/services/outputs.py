"""What a server of services counts and reports: faults, records set aside, conditions. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from mesaform.common import conditions, faults, set_aside
from mesaform.common.conditions import Condition, Conditions, Resignations
from mesaform.common.errors import MesaformError
from mesaform.common.faults import Fault, FaultLog
from mesaform.common.json_types import JsonObject
from mesaform.common.set_aside import SetAsideLog
from mesaform.services.effects import Store

NEEDED = (Condition.PASSES, Condition.ZOOKEEPER)


class Outputs:
    """The outputs of one process. `clock`: seconds with any origin, not going back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.faults = FaultLog()
        self.records = SetAsideLog()
        self.conditions = Conditions(NEEDED, clock)
        self.resignations = Resignations()

    def report_refusal(self, store: Store, error: MesaformError) -> None:
        """Report a change that could not be stored as a record."""
        self.faults.report([Fault("record", f"{store.kind}/{store.key}", error)])

    def reasons(self) -> list[str]:
        """Why this server cannot work now; empty if it can."""
        resigned = self.resignations.reason(self._clock())
        return [*self.conditions.reasons(), *([resigned] if resigned else [])]

    def health(self, *, is_leading: bool) -> JsonObject:
        """The answer of `/health`."""
        reasons = self.reasons()
        return {
            "able": not reasons,
            "leading": is_leading,
            "reasons": list(reasons),
            "conditions": {name: bool(value) for name, value in self.conditions.gauge().items()},
            "set_aside": dict(self.records.counts),
            "faults": dict(self.faults.counts),
        }

    def metrics(self) -> str:
        """The counters and conditions in Prometheus' text format."""
        lines = [
            *faults.metric_lines(self.faults.counts),
            *set_aside.metric_lines(self.records.counts),
            *conditions.metric_lines(self.conditions, self.resignations),
        ]
        return "".join(f"{line}\n" for line in lines)
