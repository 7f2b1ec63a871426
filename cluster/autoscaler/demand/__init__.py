"""What is wanted and not served, fused from every source without counting twice; each unit knows why it is there. Pure.

| Source | Module | Counts |
|---|---|---|
| services, jobs | `queue` | exact shapes that wait for an offer; backing off after failures is no demand |
| framework | `frameworks` | one small purchase for a framework that runs dry, believed more as it takes what it gets |
| hint, calendar, profile | `ahead` | room for work to come, satisfied by what already runs or waits |
| displaced | `displaced` | the tasks of machines whose end was announced, until a queue shows them |
| headroom | `headroom` | room on top of everything |

A framework whose queue is read is never looked at through its counters as well, and what its role's quota forbids is blocked.
"""

from __future__ import annotations

from dataclasses import replace

from mesaform.autoscaler.demand import (
    displaced,
    frameworks,
    headroom,
    queue,
    quota,
    rates,
    scheduled,
)
from mesaform.autoscaler.demand.frameworks import probe_after, suspects
from mesaform.autoscaler.demand.usage import in_use
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.snapshot import Snapshot

__all__ = ["collect", "probe_after", "remember", "suspects"]


def collect(snapshot: Snapshot, now: float) -> list[DemandItem]:
    """All demand of this moment."""
    view = snapshot.cluster
    if view is None:
        return []
    waiting = quota.within(queue.units(snapshot.queue or (), now), view.quotas)
    hungry = frameworks.units(snapshot, now)
    moving = displaced.units(snapshot, now)
    real = moving + waiting + quota.within(hungry, view.quotas, after=waiting)
    return (
        real + scheduled.units(snapshot, in_use(snapshot, waiting), now) + headroom.units(snapshot)
    )


def remember(memory: PlannerState, snapshot: Snapshot, now: float) -> PlannerState:
    """What demand needs to know next time: who is dry since when, counters to make rates of, what was in use when a hint was given."""
    if snapshot.cluster is None:
        return memory
    used = in_use(snapshot, queue.units(snapshot.queue or (), now))
    return replace(
        memory,
        probes=frameworks.probes(snapshot),
        dry_since=frameworks.dry_since(snapshot, now),
        marks=rates.marks(snapshot.cluster, snapshot.state.marks, now),
        hint_baselines=scheduled.baselines(snapshot, used, now),
    )
