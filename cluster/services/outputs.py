"""What a server of services counts and reports: faults, records set aside, conditions. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from mesaform.common.conditions import Condition
from mesaform.common.errors import MesaformError
from mesaform.common.faults import Fault
from mesaform.common.leader_health import LeaderHealth
from mesaform.services.effects import Store

NEEDED = (Condition.PASSES, Condition.ZOOKEEPER)


class Outputs(LeaderHealth):
    """The outputs of one process. `clock`: seconds with any origin, not going back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(NEEDED, clock)

    def report_refusal(self, store: Store, error: MesaformError) -> None:
        """Report a change that could not be stored as a record."""
        self.faults.report([Fault("record", f"{store.kind}/{store.key}", error)])
