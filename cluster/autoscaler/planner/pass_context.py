"""Values that the stages of a pass hand to each other. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesaform.autoscaler.disruption.rescheduling import Reservations
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.planner_state import BilledMachine, PlannerState
from mesaform.autoscaler.model.reason import Reason
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import Supply
from mesaform.autoscaler.packing import Placement
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.aws.ports import Offering


@dataclass(frozen=True, slots=True)
class Holds:
    """What keeps the pass from acting. None in a field: it does not.

    A freeze stops everything. A pause stops purchases and new removals. `waiting` stops purchases
    until the master's view is complete. `removals_blocked` stops removals.
    """

    freeze: Reason | None
    paused: Reason | None
    waiting: Reason | None
    removals_blocked: Reason | None

    @property
    def of_purchases(self) -> Reason | None:
        """Why nothing is bought."""
        return self.freeze or self.paused or self.waiting

    @property
    def of_removals(self) -> Reason | None:
        """Why no removal begins or advances, except those of announced ends."""
        return self.freeze or self.paused or self.removals_blocked


@dataclass(frozen=True, slots=True)
class Prepared:
    """Output of "prepare".

    `snapshot` has the bounds in force, offerings as agents advertise them, and the state with its
    `leader_since`, `replacements` and `launch_failures` of this pass. `stated_offerings` are as the
    cloud states them, `state_before` is the state of the last pass.
    """

    snapshot: Snapshot
    stated_offerings: Mapping[str, tuple[Offering, ...]]
    supply: Supply
    holds: Holds
    now: float
    state_before: PlannerState


@dataclass(frozen=True, slots=True)
class CollectedDemand:
    """Output of "collect demand": the items, and the state that demand keeps for the next pass."""

    items: tuple[DemandItem, ...]
    state: PlannerState


@dataclass(frozen=True, slots=True)
class ObservedState:
    """The part of the planner state that follows from the supply of this pass."""

    idle_since: dict[str, float]
    idle_s: dict[str, float]
    underused_since: dict[str, float]
    registered_at: dict[str, float]
    lost_since: dict[str, float]
    removals: dict[str, Removal]
    billed_machines: dict[str, BilledMachine]
    cooldown_until: dict[str, float]


@dataclass(frozen=True, slots=True)
class PassContext:
    """Output of "fit onto existing capacity", and the input of the stages that plan.

    `placement` is where items were placed. `demanded` are the nodes that hold some; `needed` are
    those and the nodes with reservations.
    `free_capacity` is what is left; policies that place tasks there take it. `reservations` keep
    capacity for tasks of machines that leave.
    """

    snapshot: Snapshot
    supply: Supply
    holds: Holds
    items: tuple[DemandItem, ...]
    placement: Placement
    free_capacity: FreeCapacity
    reservations: Reservations
    demanded: frozenset[str]
    needed: frozenset[str]
    observed: ObservedState
    now: float

    @property
    def state(self) -> PlannerState:
        """The planner state at the beginning of the pass."""
        return self.snapshot.state

    @property
    def has_master(self) -> bool:
        """Whether the snapshot has an elected master's view."""
        return self.snapshot.cluster is not None
