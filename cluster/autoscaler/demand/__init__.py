"""Demand: what is wanted and not served, from every source, counted once. Pure. Depends on `model`.

| Source | Module | Counts |
|---|---|---|
| services | `queue` | exact shapes that wait for an offer, without work that backs off |
| reported | `reported` | exact shapes that an adapter read of a framework |
| framework | `frameworks` | one machine for a framework that lacks offers, more if it is used |
| hint, calendar, profile | `scheduled` | capacity for work to come, less what runs or waits |
| displaced | `displaced` | tasks of machines with a notice, until a queue shows them |
| headroom | `headroom` | spare capacity on top of everything |

A framework whose queue is read is not inferred from its counters as well. Demand that the quota of
its role forbids is blocked.
"""

from __future__ import annotations

from dataclasses import replace

from mesaform.autoscaler.demand import (
    displaced,
    failing_apps,
    frameworks,
    headroom,
    queue,
    quota,
    rates,
    reported,
    scheduled,
)
from mesaform.autoscaler.demand.frameworks import suspects
from mesaform.autoscaler.demand.usage import in_use
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.framework_demand import FrameworkDemand
from mesaform.autoscaler.model.planner_state import PlannerState
from mesaform.autoscaler.model.snapshot import Snapshot

__all__ = ["collect", "of_frameworks", "remember", "suspects"]


def collect(snapshot: Snapshot, now: float) -> list[DemandItem]:
    """All demand of this moment (epoch s)."""
    view = snapshot.cluster
    if view is None:
        return []
    exact = queue.units(snapshot.queue or (), now) + reported.units(snapshot)
    waiting = quota.within(exact, view.quotas)
    hungry = frameworks.units(snapshot, now)
    moving = displaced.units(snapshot, now)
    real = moving + waiting + quota.within(hungry, view.quotas, after=waiting)
    return (
        real + scheduled.units(snapshot, in_use(snapshot, waiting), now) + headroom.units(snapshot)
    )


def of_frameworks(snapshot: Snapshot, now: float) -> dict[str, FrameworkDemand]:
    """What is known of each framework, by framework id: an adapter's answer, else an inference."""
    return {**frameworks.assess(snapshot, now), **reported.of(snapshot)}


def remember(memory: PlannerState, snapshot: Snapshot, now: float) -> PlannerState:
    """The state that demand needs next time.

    It holds since when frameworks lack offers, their counters, what was in use at each hint, and
    which apps fail.
    """
    if snapshot.cluster is None:
        return memory
    used = in_use(snapshot, queue.units(snapshot.queue or (), now))
    return replace(
        memory,
        experiments=frameworks.study(snapshot, now).experiments,
        dry_since=frameworks.dry_since(snapshot, now),
        marks=rates.marks(snapshot.cluster, snapshot.state.marks, now, snapshot.framework_demand),
        hint_baselines=scheduled.baselines(snapshot, used, now),
        failing_apps=failing_apps.observe(snapshot, now),
    )
