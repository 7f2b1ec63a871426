"""Stage "fit onto existing capacity": places demand on nodes, and reserves capacity. Pure."""

from __future__ import annotations

from mesaform.autoscaler.disruption.rescheduling import reserve
from mesaform.autoscaler.packing import place
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.autoscaler.planner.observed_state import observe
from mesaform.autoscaler.planner.pass_context import CollectedDemand, PassContext, Prepared


def fit(prepared: Prepared, demand: CollectedDemand) -> PassContext:
    """Place the items, reserve capacity for tasks of leaving machines, and note what is idle."""
    snapshot, supply = prepared.snapshot, prepared.supply
    placement = place(demand.items, supply.nodes, supply.usage)
    free_capacity = FreeCapacity(supply, demand.items, placement)
    reservations = reserve(snapshot, supply, free_capacity)
    demanded = frozenset(name for counts in placement.placed.values() for name in counts)
    needed = demanded | reservations.hosts
    return PassContext(
        snapshot=snapshot,
        supply=supply,
        holds=prepared.holds,
        items=demand.items,
        placement=placement,
        free_capacity=free_capacity,
        reservations=reservations,
        demanded=demanded,
        needed=needed,
        observed=observe(snapshot, supply, needed, prepared.now),
        now=prepared.now,
    )
