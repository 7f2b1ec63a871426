"""The cluster's machines as EC2 lists them, read again when that is due.

Reading a thousand machines takes a processor more than a second, mostly for the XML of the answer.
The list is therefore kept for some passes, unless something is under way that a pass must see at
once: while EC2's events about machines arrive for `KEPT_MOST_S`, else by the size of the cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mesaform.aws.ports import Fleet, Machine

FRESH_BELOW = 100
"""Machines below which every pass reads them while no events arrive."""
KEPT_S_PER_MACHINE = 0.03
"""At most about a twentieth of one processor reads machines."""
KEPT_MOST_S = 30.0
SETTLED_STATES = frozenset({"running", "terminated"})


@dataclass(slots=True)
class MachineReader:
    """Reads the machines of one cluster. Calls block; they do not overlap.

    `clock` is seconds with any origin. `has_events` says whether EC2's events about the ends of
    machines arrive; a pass after one reads fresh.
    """

    fleet: Fleet
    clock: Callable[[], float]
    has_events: Callable[[], bool] = lambda: False
    _machines: tuple[Machine, ...] = ()
    _read_at: float = field(default=float("-inf"))
    _agents: frozenset[str] = frozenset()

    def read(self, cluster: str, *, must_be_fresh: bool) -> tuple[Machine, ...]:
        """The machines: from EC2 if they must be fresh or are due, else as they were read last.

        Raises:
            CloudError: EC2 does not answer.

        """
        now = self.clock()
        if must_be_fresh or now - self._read_at >= self._kept_s():
            self._machines = tuple(self.fleet.machines(cluster))
            self._read_at = now
        return self._machines

    def forget(self) -> None:
        """Read at the next pass: the cluster's machines change."""
        self._read_at = float("-inf")

    def saw_agents(self, instance_ids: frozenset[str]) -> None:
        """Read at the next pass if other agents are registered than before."""
        if instance_ids != self._agents:
            self._agents = instance_ids
            self.forget()

    def _kept_s(self) -> float:
        """For how long the list is kept; not at all while a machine starts or ends."""
        if any(machine.state not in SETTLED_STATES for machine in self._machines):
            return 0.0
        if self.has_events():
            return KEPT_MOST_S
        if len(self._machines) < FRESH_BELOW:
            return 0.0
        return min(KEPT_MOST_S, KEPT_S_PER_MACHINE * len(self._machines))
