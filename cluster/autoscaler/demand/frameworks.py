"""Demand of frameworks whose queue is not read, inferred from their offers. Pure.

Evidence: the smallest useful offer that a framework declares, its counters, the probe framework.
Each case counts once it lasts longer than a refusal (5 s):

- starving: no agent has as much free as the framework declares, or as its tasks take. An offer to
  the probe framework refutes it.
- declines all: it declines every offer, and no agent has as much free as its tasks take.
- unserved: it gets no offer although enough seems free and no refusal is in force. This counts only
  if the probe framework gets no offer either: other offers or reservations hold what seems free.

Nothing is inferred shortly after a change of master, while agents are expected back, or while the
allocator is late. One small purchase tests the need: a framework that uses nothing of it gets no
more until it asks again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mesaform.autoscaler.demand import rates
from mesaform.autoscaler.demand.quota import applies
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView, Framework
from mesaform.autoscaler.model.demand_item import BlockedKind, DemandItem
from mesaform.autoscaler.model.planner_state import Finding, PlannerState, Probe
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import NOTHING, Shape, contains, plus, text
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.placement.constraints import InstanceCounts, room

DRY_FOR_S = 5.0
"""Time that a framework lacks offers before it counts (s): the default duration of a refusal."""

PROBE_MOST = 16
"""Most pieces of a purchase. A framework that used its last one gets twice as much, up to this."""

SETTLE_S = 30.0
"""Time after a change of master without inference (s): counters begin anew, agents return."""

LAG_MOST_S = 5.0
"""Lag of the allocator (s) above which every framework seems to lack offers."""

_USAGE = InstanceCounts()


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A framework that seems to lack offers, and the shape that it lacks."""

    code: ReasonCode
    shape: Shape


def units(snapshot: Snapshot, now: float) -> list[DemandItem]:
    """The demand of all frameworks."""
    view = snapshot.cluster
    if view is None:
        return []
    return [
        unit
        for framework in view.frameworks
        if framework.framework_id not in snapshot.framework_demand
        and (unit := _item_of(framework, view, snapshot.state, now)) is not None
    ]


def suspicion(
    framework: Framework, view: ClusterView, memory: PlannerState, now: float
) -> Suspicion | None:
    """The case in which a framework seems to lack offers; None for none."""
    shape = _needed_shape(framework)
    if shape is None:
        return None
    if not _free_somewhere(framework, shape, view.agents):
        return Suspicion(ReasonCode.FRAMEWORK_STARVING, shape)
    lately = rates.of(framework, memory.marks, now)
    if lately is None:
        return None
    larger = framework.task_shape
    if larger and _declines_all(framework, lately, larger, view):
        return Suspicion(ReasonCode.FRAMEWORK_DECLINES_ALL, larger)
    is_unserved = not lately.sent and not framework.refusals
    return Suspicion(ReasonCode.FRAMEWORK_UNSERVED, shape) if is_unserved else None


def _needed_shape(framework: Framework) -> Shape | None:
    """The smallest shape that a framework which asks for offers can use; None if not known."""
    shape = framework.minimal or framework.task_shape
    is_asking = framework.active and not framework.suppressed
    return shape if is_asking and shape and shape != NOTHING else None


def _declines_all(
    framework: Framework, lately: rates.Rates, shape: Shape, view: ClusterView
) -> bool:
    """Whether a framework declines all its offers, and none is as large as its tasks."""
    has_only_declined = bool(lately.declined) and not lately.accepted
    return has_only_declined and not _free_somewhere(framework, shape, view.agents)


def dry_since(snapshot: Snapshot, now: float) -> dict[str, float]:
    """Since when each framework seems to lack offers (epoch s), by framework id."""
    view, memory = snapshot.cluster, snapshot.state
    if view is None:
        return memory.dry_since
    dry = [
        framework.framework_id
        for framework in view.frameworks
        if suspicion(framework, view, memory, now)
    ]
    return {name: memory.dry_since.get(name, now) for name in dry}


def suspects(snapshot: Snapshot, now: float) -> tuple[Shape, ...]:
    """The shapes that the probe framework asks for."""
    view = snapshot.cluster
    if view is None:
        return ()
    suspicions = (suspicion(framework, view, snapshot.state, now) for framework in view.frameworks)
    return tuple(
        dict.fromkeys(suspected.shape for suspected in suspicions if suspected is not None)
    )


def probes(snapshot: Snapshot) -> dict[str, Probe]:
    """The last purchase for each framework, and whether its machine registered, by framework id."""
    view, memory = snapshot.cluster, snapshot.state
    if view is None:
        return memory.probes
    purchases = {
        framework.framework_id: (framework, probe)
        for framework in view.frameworks
        if (probe := memory.probes.get(framework.framework_id)) is not None
    }
    return {
        name: replace(
            probe, has_registered=probe.has_registered or _came(framework, probe, view, memory)
        )
        for name, (framework, probe) in purchases.items()
    }


def _came(framework: Framework, probe: Probe, view: ClusterView, memory: PlannerState) -> bool:
    shape = framework.minimal or framework.task_shape or NOTHING
    return any(
        memory.registered_at.get(agent.instance_id, 0.0) > probe.at and contains(agent.total, shape)
        for agent in view.agents
    )


def probe_after(unit: DemandItem, framework: Framework, now: float) -> Probe:
    """The state to keep of a purchase for a framework."""
    return Probe(at=now, accepted=framework.accepted, asked=framework.asked, size=unit.count)


def _item_of(
    framework: Framework, view: ClusterView, memory: PlannerState, now: float
) -> DemandItem | None:
    """The demand of a framework that lacks offers for long enough; None for no such need."""
    suspected = suspicion(framework, view, memory, now)
    since = memory.dry_since.get(framework.framework_id, now)
    if suspected is None or now - since < DRY_FOR_S:
        return None
    finding = _finding_since(suspected, memory, since)
    if _needs_evidence(suspected) and not _has_no_offer(finding):
        return None
    size, trust = _probe_size(framework, memory.probes.get(framework.framework_id))
    if trust is None:
        return None
    blocked, kind = _not_believed(view, memory, finding, now)
    reasons = _evidence(framework, suspected, finding, memory, now - since, now)
    if blocked is None and not size:
        blocked, kind = trust, "offer_declined"
    else:
        reasons = (*reasons, trust)
    return DemandItem(
        "framework",
        framework.name,
        suspected.shape,
        max(1, size),
        reasons,
        framework.constraints,
        blocked,
        kind,
        framework.framework_id,
        _role_without_quota(framework, view),
    )


def _needs_evidence(suspected: Suspicion) -> bool:
    """Whether only the probe framework can confirm a suspicion."""
    return suspected.code is ReasonCode.FRAMEWORK_UNSERVED


def _finding_since(suspected: Suspicion, memory: PlannerState, since: float) -> Finding | None:
    """What the probe framework was offered of a shape since a time (epoch s)."""
    finding = memory.findings.get(text(suspected.shape))
    return finding if finding is not None and finding.at >= since else None


def _has_no_offer(finding: Finding | None) -> bool:
    """Whether the probe framework asked for such an offer and got none."""
    return finding is not None and not finding.offered


def _evidence(
    framework: Framework,
    suspected: Suspicion,
    finding: Finding | None,
    memory: PlannerState,
    wait_s: float,
    now: float,
) -> tuple[Reason, ...]:
    """Why a framework seems to lack offers: what it finds, its rates, the probe framework."""
    reasons = [
        Reason.of(
            suspected.code,
            framework=framework.name,
            resources=text(suspected.shape),
            wait_s=wait_s,
        )
    ]
    lately = rates.of(framework, memory.marks, now)
    if lately is not None:
        reasons.append(lately.reason())
    if _has_no_offer(finding):
        reasons.append(Reason.of(ReasonCode.PROBE_NOT_OFFERED))
    return tuple(reasons)


def _role_without_quota(framework: Framework, view: ClusterView) -> str:
    """The first role of a framework that no quota limits, else its first role."""
    free = (
        role for role in framework.roles if not any(applies(quota, role) for quota in view.quotas)
    )
    return next(free, framework.roles[0])


def _not_believed(
    view: ClusterView, memory: PlannerState, finding: Finding | None, now: float
) -> tuple[Reason | None, BlockedKind]:
    """Why a framework's need is not certain yet, with its verdict."""
    changed_s = now - max(view.elected_at, memory.leader_since or 0.0)
    if changed_s < SETTLE_S:
        recent = Reason.of(ReasonCode.MASTER_ELECTED_RECENTLY, elected_s=max(0.0, changed_s))
        return recent, "failover"
    if view.recovered:
        return Reason.of(ReasonCode.AGENTS_EXPECTED, count=view.recovered), "recovering"
    if view.allocator_lag_s > LAG_MOST_S:
        return Reason.of(ReasonCode.ALLOCATOR_LATE, lag_s=view.allocator_lag_s), "allocator"
    if finding is not None and finding.offered:
        offered = Reason.of(ReasonCode.PROBE_OFFERED, agent=finding.where, age_s=now - finding.at)
        return offered, "offers_available"
    return None, ""


def _free_somewhere(framework: Framework, shape: Shape, agents: Iterable[Agent]) -> bool:
    """Whether an active agent that the framework's constraints allow has this much free."""
    return any(
        agent.active
        and not agent.deactivated
        and contains(_offered(agent, framework), shape)
        and room(framework.name, framework.constraints, agent, _USAGE) > 0
        for agent in agents
    )


def _offered(agent: Agent, framework: Framework) -> Shape:
    """What an agent may offer a framework: free resources, and reservations for its roles."""
    free = agent.free
    for role, shape in agent.reserved.items():
        if any(mine == role or mine.startswith(f"{role}/") for mine in framework.roles):
            free = plus(free, shape)
    return free


def _probe_size(framework: Framework, probe: Probe | None) -> tuple[int, Reason | None]:
    """How many of its shape to buy for a framework, and why.

    0 with a reason when it used nothing of the last purchase; without a reason when it never
    asked for offers.
    """
    if probe is None:
        return _first_probe_size(framework)
    if not probe.has_registered and framework.accepted <= probe.accepted:
        return probe.size, Reason.of(ReasonCode.PURCHASE_PENDING)
    if _counters_restarted(framework, probe):
        probe = replace(probe, accepted=0, asked=0, size=1)
    if framework.accepted > probe.accepted:
        size = min(PROBE_MOST, probe.size * 2)
        return size, Reason.of(ReasonCode.PURCHASE_ACCEPTED, count=probe.size)
    if framework.asked > probe.asked:
        return 1, Reason.of(ReasonCode.FRAMEWORK_REVIVED_AGAIN)
    return 0, Reason.of(ReasonCode.PURCHASE_DECLINED)


def _first_probe_size(framework: Framework) -> tuple[int, Reason | None]:
    if framework.minimal is not None:
        return 1, Reason.of(ReasonCode.FRAMEWORK_MINIMUM_OFFER)
    return (1, Reason.of(ReasonCode.FRAMEWORK_REVIVED)) if framework.asked else (0, None)


def _counters_restarted(framework: Framework, probe: Probe) -> bool:
    """Whether the counters are those of another leading master."""
    return framework.accepted < probe.accepted or (
        framework.asked < probe.asked and framework.accepted == probe.accepted
    )
