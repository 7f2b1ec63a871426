"""What is wanted and not served, fused from every source without counting twice; each unit knows why it is there.

The services' queue is exact. A framework's hunger is inferred from what it declared and from counters, and tested with one
small purchase before it is believed. Backing off after failures is not demand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.autoscaler.model import Agent, Constraint, Framework, Memory, Probe, QueueEntry, Snapshot, Source
from cluster.autoscaler.shape import NOTHING, Shape, contains, make, text
from cluster.cloud.orders import describe, in_force

NOT_CURED_BY_MACHINES = {
    "UnfulfilledRole": "role",
    "NoCorrespondingReservationFound": "reservation",
    "AgentMaintenance": "maintenance",
}
"""Reasons of the services' queue that another machine of the same kind cannot change."""

DRY_FOR_S = 1.0
"""How long a framework must find nothing before it counts: the allocator's own interval."""

PROBE_MOST = 16
"""A framework that took what it was bought gets twice as much the next time, up to this many of its shape."""


@dataclass(frozen=True, slots=True)
class Unit:
    """`count` equal pieces of work. `blocked` says what no machine can cure; then nothing is bought for it."""

    source: Source
    name: str
    shape: Shape
    count: int
    reason: str
    constraints: tuple[Constraint, ...] = ()
    blocked: str = ""
    blocked_kind: str = ""
    framework_id: str = ""

    @property
    def key(self) -> str:
        return f"{self.source}:{self.name}"

    def __str__(self) -> str:
        return f"{self.count} x {self.name} ({text(self.shape)})"


def fuse(snapshot: Snapshot, now: float) -> list[Unit]:
    """All demand of this moment."""
    if snapshot.cluster is None:
        return []
    units = [unit for entry in snapshot.queue or () for unit in _queued(entry, now)]
    units += [unit for framework in snapshot.cluster.frameworks for unit in _hungry(framework, snapshot, now)]
    return units + _hinted(snapshot, now) + _headroom(snapshot) + _slots(snapshot)


def _queued(entry: QueueEntry, now: float) -> list[Unit]:
    if not entry.overdue or entry.count <= 0:
        return []
    waiting = f"for {now - entry.since:.0f} s" if 0 < entry.since <= now else "for an offer"
    refusals = ", ".join(f"{reason} {count}" for reason, count in sorted(entry.rejections.items()) if count)
    reason = f"{entry.app} waits {waiting} with {entry.count} instances" + (f"; offers refused: {refusals}" if refusals else "")
    blocked, kind = _incurable(entry)
    return [Unit("services", entry.app, entry.shape, entry.count, reason, entry.constraints, blocked, kind)]


def _incurable(entry: QueueEntry) -> tuple[str, str]:
    """Whether every refusal so far had a reason that a new machine would meet with as well."""
    refused = {reason for reason, count in entry.rejections.items() if count}
    if refused and refused <= NOT_CURED_BY_MACHINES.keys():
        kinds = sorted(NOT_CURED_BY_MACHINES[reason] for reason in refused)
        return f"its {' and '.join(kinds)} ({entry.role}) matches no offer; a new machine would offer the same", kinds[0]
    return "", ""


def starving(framework: Framework, agents: Iterable[Agent]) -> bool:
    """Whether a framework that can say what it needs finds no agent with that much free."""
    shape = framework.minimal or framework.task_shape
    if shape is None or shape == NOTHING or not framework.active or framework.suppressed:
        return False
    return not any(agent.active and not agent.deactivated and contains(agent.free, shape) for agent in agents)


def _hungry(framework: Framework, snapshot: Snapshot, now: float) -> list[Unit]:
    view, memory = snapshot.cluster, snapshot.memory
    shape = framework.minimal or framework.task_shape
    if view is None or shape is None or not starving(framework, view.agents):
        return []
    since = memory.dry_since.get(framework.framework_id, now)
    if now - since < DRY_FOR_S:
        return []
    size, why = _probe_size(framework, memory.probes.get(framework.framework_id))
    if not why:
        return []
    reason = f"{framework.name} finds no agent with {text(shape)} free {_dry(since, now)}; {why}"
    blocked, kind = ("", "") if size else (why, "probe")
    return [Unit("framework", framework.name, shape, max(1, size), reason, (), blocked, kind, framework.framework_id)]


def _dry(since: float, now: float) -> str:
    return f"since {now - since:.0f} s"


def _probe_size(framework: Framework, probe: Probe | None) -> tuple[int, str]:
    """How many of its shape to want, and why; 0 when its hunger was tested and it took nothing; no reason when it never asked."""
    if probe is None:
        if framework.minimal is not None:
            return 1, "it declared that as its smallest useful offer"
        return (1, "it revived offers, and its tasks are of that size") if framework.asked else (0, "")
    if framework.accepted > probe.accepted:
        return min(PROBE_MOST, probe.size * 2), f"it took the {probe.size} bought before"
    if framework.asked > probe.asked:
        return 1, "it revived offers since the last purchase"
    return 0, "it took nothing of what was bought for it; it must revive offers or accept some first"


def probe_after(unit: Unit, framework: Framework, now: float) -> Probe:
    """What to remember when something is bought for a framework."""
    return Probe(at=now, accepted=framework.accepted, asked=framework.asked, size=unit.count)


def _headroom(snapshot: Snapshot) -> list[Unit]:
    """Spare slots: a percentage of what is used, in slots of one cpu with the memory that used cpus have on average."""
    percent, view = snapshot.spec.autoscaler.headroom_percent, snapshot.cluster
    if not percent or view is None:
        return []
    cpus = sum(agent.allocated[0] for agent in view.agents) / 1000
    mem_mib = sum(agent.allocated[1] for agent in view.agents) / 1000
    if not cpus:
        return []
    slots = max(1, round(cpus * percent / 100))
    reason = f"{percent:g} % above the {cpus:g} cpus in use"
    return [Unit("headroom", "headroom", make(cpus=1, mem_mib=mem_mib / cpus), slots, reason)]


def _slots(snapshot: Snapshot) -> list[Unit]:
    """Spare slots of a shape, kept free at all times."""
    return [
        Unit(
            "headroom",
            f"slots {index}" + (f" in {slot.pool}" if slot.pool else ""),
            make(cpus=slot.cpus, mem_mib=slot.mem_mib),
            slot.count,
            f"{slot.count} spare slots of {slot.cpus:g} cpus and {slot.mem_mib:g} MiB are kept (autoscaler.headroom_slots)",
            _in_pool(slot.pool),
        )
        for index, slot in enumerate(snapshot.spec.autoscaler.headroom_slots)
    ]


def _hinted(snapshot: Snapshot, now: float) -> list[Unit]:
    """Room that operators asked for ahead of the work, until their orders run out."""
    return [
        Unit("hint", f"hint {order.id}", make(order.cpus, order.mem_mib), order.count, f"hint: {describe(order)}", _in_pool(order.pool))
        for order in in_force(snapshot.orders, now)
        if order.kind == "hint"
    ]


def _in_pool(pool: str | None) -> tuple[Constraint, ...]:
    return (Constraint("pool", "IS", pool),) if pool else ()


def still_dry(snapshot: Snapshot, memory: Memory, now: float) -> dict[str, float]:
    """Since when each starving framework has been so."""
    if snapshot.cluster is None:
        return memory.dry_since
    hungry = [f.framework_id for f in snapshot.cluster.frameworks if starving(f, snapshot.cluster.agents)]
    return {name: memory.dry_since.get(name, now) for name in hungry}
