"""The part of the planner state that follows from what a pass observed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from mesaform.autoscaler.disruption.underutilization import share_used
from mesaform.autoscaler.forecasting.lifetimes import learned
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView
from mesaform.autoscaler.model.lifetimes import Ended
from mesaform.autoscaler.model.planner_state import BilledMachine, PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LIVE, AgentNode, Supply, usd_per_hour_of
from mesaform.autoscaler.planner.pass_context import ObservedState
from mesaform.topology.names import Tag


def observe(
    snapshot: Snapshot, supply: Supply, needed: Collection[str], now: float
) -> ObservedState:
    """Timers and records of machines. A machine in `needed` is not idle."""
    state = snapshot.state
    live = {node.name: node for node in supply.agent_nodes}
    idle_since = _idle_since(snapshot, supply, needed, now)
    return ObservedState(
        idle_since=idle_since,
        idle_s=_idle_s(state, idle_since, now),
        underused_since=_underused_since(snapshot, supply, now),
        registered_at=_registered_at(state, live, now),
        lost_since=_lost_since(state, live, now),
        removals=_removals(state, live),
        billed_machines=_billed_machines(snapshot),
        cooldown_until=_cooldown_until(state, live, now),
    )


def _lost_since(state: PlannerState, live: Mapping[str, AgentNode], now: float) -> dict[str, float]:
    lost = (name for name, node in live.items() if node.state == "lost")
    return {name: state.lost_since.get(name, now) for name in lost}


def _removals(state: PlannerState, live: Mapping[str, AgentNode]) -> dict[str, Removal]:
    return {
        name: removal
        for name, removal in state.removals.items()
        if name in live and not _is_returned(live[name].agent, removal)
    }


def _cooldown_until(
    state: PlannerState, live: Mapping[str, AgentNode], now: float
) -> dict[str, float]:
    return {
        name: until for name, until in state.cooldown_until.items() if until > now and name in live
    }


def with_lifetimes(state: PlannerState, view: ClusterView) -> PlannerState:
    """The state with the lifetimes of tasks that ended since the last pass.

    The master lists each ended task for a while; those counted before are skipped. Tasks of agents
    that gave no offers or are gone do not count: they were moved, and would have gone on.
    """
    new = [task for task in view.ended if task.at > state.lifetimes_until]
    if not new:
        return state
    lifetimes = learned(state.lifetimes, _ended_in_service(new, view))
    return replace(state, lifetimes=lifetimes, lifetimes_until=max(task.at for task in new))


def _ended_in_service(ended: Sequence[Ended], view: ClusterView) -> list[Ended]:
    in_service = {agent.agent_id for agent in view.agents if _is_in_service(agent)} | {""}
    return [task for task in ended if task.agent_id in in_service]


def _is_in_service(agent: Agent) -> bool:
    return agent.active and not agent.deactivated and not agent.drain_state


def _is_returned(agent: Agent | None, removal: Removal) -> bool:
    """Whether an agent is in service again after its drain was given up."""
    return removal.phase == "abandoned" and agent is not None and _is_in_service(agent)


def _idle_since(
    snapshot: Snapshot, supply: Supply, needed: Collection[str], now: float
) -> dict[str, float]:
    before = snapshot.state.idle_since
    if snapshot.cluster is None:
        return before
    idle = (node.name for node in supply.agent_nodes if node.state == "idle")
    return {name: before.get(name, now) for name in idle if name not in needed}


def _idle_s(state: PlannerState, idle_since: Mapping[str, float], now: float) -> dict[str, float]:
    """Seconds that each machine was idle in periods that are over, those of this pass included.

    A machine's entry stays one pass longer than the machine, for its last ledger row.
    """
    ended = {
        name: now - since for name, since in state.idle_since.items() if name not in idle_since
    }
    names = {name for name in (*state.idle_s, *ended) if name in state.billed_machines}
    return {
        name: round(state.idle_s.get(name, 0.0) + ended.get(name, 0.0), 1) for name in sorted(names)
    }


def _underused_since(snapshot: Snapshot, supply: Supply, now: float) -> dict[str, float]:
    """Since when each busy autoscaled machine has been used below `underused_percent`."""
    settings, before = snapshot.spec.autoscaler.consolidation, snapshot.state.underused_since
    if snapshot.cluster is None:
        return before
    if not settings.enabled:
        return {}
    return {
        node.name: before.get(node.name, now)
        for node in supply.agent_nodes
        if node.state == "busy"
        and node.is_autoscaled
        and node.agent
        and share_used(node.agent) * 100 < settings.underused_percent
    }


def _registered_at(
    state: PlannerState, live: Mapping[str, AgentNode], now: float
) -> dict[str, float]:
    known = {name: at for name, at in state.registered_at.items() if name in live}
    new = (name for name, node in live.items() if node.agent is not None and name not in known)
    return {**known, **dict.fromkeys(new, now)}


def _billed_machines(snapshot: Snapshot) -> dict[str, BilledMachine]:
    """Live machines, with what their last ledger row will need."""
    offerings = {
        offering.key: offering for pool in snapshot.offerings.values() for offering in pool
    }
    planned = {
        intent.request.token: intent.request.offerings[0].usd_per_hour
        for intent in snapshot.intents
    }
    return {
        machine.instance_id: snapshot.state.billed_machines.get(machine.instance_id)
        or BilledMachine(
            instance_type=machine.instance_type,
            zone=machine.zone,
            capacity=machine.capacity,
            usd_per_hour=usd_per_hour_of(snapshot, machine, offerings),
            pool=machine.tags.get(Tag.POOL, ""),
            managed_by=machine.tags.get(Tag.MANAGED_BY, ""),
            role=machine.tags.get(Tag.ROLE, ""),
            launched_at=machine.launched_at,
            planned_usd_per_hour=planned.get(machine.tags.get(Tag.LAUNCH, ""), 0.0),
        )
        for machine in snapshot.machines
        if machine.state in LIVE
    }
