"""Frameworks whose queue nobody reads: are they dry? Inferred from what they declared, counters and the probe framework.

Three cases, each only once it has lasted longer than a refusal (5 s):

- starving: no agent has as much free as it declared (or as its tasks take). The probe framework can say that this is not so.
- too small: it declines all that it is offered, takes nothing, and no agent has as much free as its tasks take.
- unserved: it is sent nothing although enough looks free and no refusal stands; only the probe framework, offered nothing either, makes
  this demand: what looks free is held by other frameworks' offers, or reserved.

Never believed: within half a minute of a change of master, while agents are expected back, while the allocator lags. And what is
believed is tested by one small purchase: a framework that takes nothing of it gets no more until it asks again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from mesaform.autoscaler.demand import rates
from mesaform.autoscaler.demand.quota import applies
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView, Framework
from mesaform.autoscaler.model.constraints import Usage, room
from mesaform.autoscaler.model.demand_item import BlockedKind, DemandItem
from mesaform.autoscaler.model.planner_state import Finding, PlannerState, Probe
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, plus, text
from mesaform.autoscaler.model.snapshot import Snapshot

DRY_FOR_S = 5.0
"""How long a framework must find nothing before it counts: as long as a refusal lasts by default."""

PROBE_MOST = 16
"""A framework that took what it was bought gets twice as much the next time, up to this many of its shape."""

SETTLE_S = 30.0
"""How long after a change of master nothing is inferred: counters began anew, agents and frameworks are coming back."""

LAG_MOST_S = 5.0
"""An allocator that begins its rounds later than this makes everybody look dry."""

_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Suspicion:
    """That a framework is dry, and at what shape."""

    case: Literal["starving", "too small", "unserved"]
    shape: Shape
    why: str


def units(snapshot: Snapshot, now: float) -> list[DemandItem]:
    """What frameworks seem to want."""
    view = snapshot.cluster
    if view is None:
        return []
    return [
        unit
        for framework in view.frameworks
        if (unit := _hungry(framework, view, snapshot.state, now)) is not None
    ]


def suspicion(
    framework: Framework, view: ClusterView, memory: PlannerState, now: float
) -> Suspicion | None:
    """Whether a framework that can say what it needs looks dry."""
    shape = framework.minimal or framework.task_shape
    if shape is None or shape == NOTHING or not framework.active or framework.suppressed:
        return None
    if not _free_somewhere(framework, shape, view.agents):
        return Suspicion(
            "starving", shape, f"{framework.name} finds no agent with {text(shape)} free"
        )
    lately, bigger = rates.of(framework, memory.marks, now), framework.task_shape
    if lately is None:
        return None
    if (
        bigger
        and lately.declined
        and not lately.accepted
        and not _free_somewhere(framework, bigger, view.agents)
    ):
        return Suspicion(
            "too small",
            bigger,
            f"{framework.name} takes nothing it is offered, and no agent has the {text(bigger)} of its tasks",
        )
    if not lately.sent and not framework.refusals:
        return Suspicion(
            "unserved",
            shape,
            f"{framework.name} is offered nothing, though {text(shape)} looks free",
        )
    return None


def dry_since(snapshot: Snapshot, now: float) -> dict[str, float]:
    """Since when each framework that looks dry has done so."""
    view, memory = snapshot.cluster, snapshot.state
    if view is None:
        return memory.dry_since
    dry = [one.framework_id for one in view.frameworks if suspicion(one, view, memory, now)]
    return {name: memory.dry_since.get(name, now) for name in dry}


def suspects(snapshot: Snapshot, now: float) -> tuple[Shape, ...]:
    """The shapes that the probe framework should try to be offered."""
    view = snapshot.cluster
    if view is None:
        return ()
    found = (suspicion(one, view, snapshot.state, now) for one in view.frameworks)
    return tuple(dict.fromkeys(one.shape for one in found if one is not None))


def probes(snapshot: Snapshot) -> dict[str, Probe]:
    """The purchases made for frameworks that are there, and whether what was bought has come."""
    view, memory = snapshot.cluster, snapshot.state
    if view is None:
        return memory.probes
    found = {
        one.framework_id: (one, probe)
        for one in view.frameworks
        if (probe := memory.probes.get(one.framework_id)) is not None
    }
    return {
        name: replace(probe, has_registered=probe.has_registered or _came(one, probe, view, memory))
        for name, (one, probe) in found.items()
    }


def _came(framework: Framework, probe: Probe, view: ClusterView, memory: PlannerState) -> bool:
    shape = framework.minimal or framework.task_shape or NOTHING
    return any(
        memory.registered_at.get(agent.instance_id, 0.0) > probe.at and contains(agent.total, shape)
        for agent in view.agents
    )


def probe_after(unit: DemandItem, framework: Framework, now: float) -> Probe:
    """What to remember when something is bought for a framework."""
    return Probe(at=now, accepted=framework.accepted, asked=framework.asked, size=unit.count)


def _hungry(
    framework: Framework, view: ClusterView, memory: PlannerState, now: float
) -> DemandItem | None:
    suspected = suspicion(framework, view, memory, now)
    since = memory.dry_since.get(framework.framework_id, now)
    if suspected is None or now - since < DRY_FOR_S:
        return None
    finding = memory.findings.get(text(suspected.shape))
    finding = finding if finding is not None and finding.at >= since else None
    if suspected.case == "unserved" and (finding is None or finding.offered):
        return None
    size, why = _probe_size(framework, memory.probes.get(framework.framework_id))
    if not why:
        return None
    blocked, kind = _not_believed(view, memory, finding, now)
    if not blocked and not size:
        blocked, kind = why, "untaken"
    parts = [f"{suspected.why} since {now - since:.0f} s"]
    parts += [str(lately)] if (lately := rates.of(framework, memory.marks, now)) is not None else []
    parts += (
        ["the probe framework was offered none either"]
        if finding is not None and not finding.offered
        else []
    )
    reason = "; ".join(parts if kind == "untaken" else (*parts, why))
    role = next(
        (
            role
            for role in framework.roles
            if not any(applies(quota, role) for quota in view.quotas)
        ),
        framework.roles[0],
    )
    count = max(1, size)
    return DemandItem(
        "framework",
        framework.name,
        suspected.shape,
        count,
        reason,
        framework.constraints,
        blocked,
        kind,
        framework.framework_id,
        role,
    )


def _not_believed(
    view: ClusterView, memory: PlannerState, finding: Finding | None, now: float
) -> tuple[str, BlockedKind]:
    """What must be settled before a framework's hunger is believed."""
    changed_s = now - max(view.elected_at, memory.leader_since or 0.0)
    if changed_s < SETTLE_S:
        return (
            f"a master was elected {max(0.0, changed_s):.0f} s ago: counters and offers have only begun",
            "failover",
        )
    if view.recovered:
        return f"{view.recovered} agents are expected back", "recovering"
    if view.allocator_lag_s > LAG_MOST_S:
        return (
            f"the allocator is {view.allocator_lag_s:.0f} s late: everybody looks dry",
            "allocator",
        )
    if finding is not None and finding.offered:
        return (
            f"the probe framework was offered as much on {finding.where} {now - finding.at:.0f} s ago",
            "not_dry",
        )
    return "", ""


def _free_somewhere(framework: Framework, shape: Shape, agents: Iterable[Agent]) -> bool:
    """Whether an agent that takes work and that the framework's own constraints allow has this much free."""
    return any(
        agent.active
        and not agent.deactivated
        and contains(_offered(agent, framework), shape)
        and room(framework.name, framework.constraints, agent, _USAGE) > 0
        for agent in agents
    )


def _offered(agent: Agent, framework: Framework) -> Shape:
    """What a framework may be offered of an agent: what is free, and what is reserved for its roles or those above them."""
    free = agent.free
    for role, shape in agent.reserved.items():
        if any(mine == role or mine.startswith(f"{role}/") for mine in framework.roles):
            free = plus(free, shape)
    return free


def _probe_size(framework: Framework, probe: Probe | None) -> tuple[int, str]:
    """How many of its shape to want, and why; 0 when its hunger was tested and it took nothing; no reason when it never asked."""
    if probe is None:
        if framework.minimal is not None:
            return 1, "it declared that as its smallest useful offer"
        return (
            (1, "it revived offers, and its tasks are of that size") if framework.asked else (0, "")
        )
    if not probe.has_registered and framework.accepted <= probe.accepted:
        return probe.size, "what was bought for it has not come yet"
    if framework.accepted < probe.accepted or (
        framework.asked < probe.asked and framework.accepted == probe.accepted
    ):
        # another leader's counters
        probe = replace(probe, accepted=0, asked=0, size=1)
    if framework.accepted > probe.accepted:
        return min(PROBE_MOST, probe.size * 2), f"it took the {probe.size} bought before"
    if framework.asked > probe.asked:
        return 1, "it revived offers since the last purchase"
    return (
        0,
        "it took nothing of what was bought for it; it must revive offers or accept some first",
    )
