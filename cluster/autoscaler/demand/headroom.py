"""Demand of headroom: spare capacity on top of everything that runs or waits. Pure."""

from __future__ import annotations

from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.placement.constraints import Constraint


def units(snapshot: Snapshot) -> list[DemandItem]:
    """The headroom that the spec asks for."""
    return _percent(snapshot) + _slots(snapshot)


def in_pool(pool: str | None) -> tuple[Constraint, ...]:
    """The constraint that pins an item to a pool; none for no pool."""
    return (Constraint("pool", "IS", pool),) if pool else ()


def _percent(snapshot: Snapshot) -> list[DemandItem]:
    """A percentage of what is in use, in slots of one cpu with the average memory of a used cpu."""
    percent, view = snapshot.spec.autoscaler.headroom_percent, snapshot.cluster
    if not percent or view is None:
        return []
    cpus = sum(agent.allocated[0] for agent in view.agents) / 1000
    mem_mib = sum(agent.allocated[1] for agent in view.agents) / 1000
    if not cpus:
        return []
    slots = max(1, round(cpus * percent / 100))
    reason = Reason.of(ReasonCode.HEADROOM_PERCENT, percent=percent, used_cpus=cpus)
    shape = make(cpus=1, mem_mib=mem_mib / cpus)
    return [DemandItem("headroom", "headroom", shape, slots, (reason,))]


def _slots(snapshot: Snapshot) -> list[DemandItem]:
    """Slots of a shape that are kept free."""
    return [
        DemandItem(
            "headroom",
            f"slots {index}" + (f" in {slot.pool}" if slot.pool else ""),
            make(cpus=slot.cpus, mem_mib=slot.mem_mib),
            slot.count,
            (
                Reason.of(
                    ReasonCode.HEADROOM_SLOTS,
                    count=slot.count,
                    cpus=slot.cpus,
                    mem_mib=slot.mem_mib,
                ),
            ),
            in_pool(slot.pool),
        )
        for index, slot in enumerate(snapshot.spec.autoscaler.headroom_slots)
    ]
