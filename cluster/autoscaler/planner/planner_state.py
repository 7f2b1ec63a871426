"""What a pass remembers: the memory that the world of this pass leads to, before anything is done. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mesaform.autoscaler import demand
from mesaform.autoscaler.disruption.underutilization import share_used
from mesaform.autoscaler.forecasting.lifetimes import learned
from mesaform.autoscaler.model.cluster_view import ClusterView
from mesaform.autoscaler.model.command import Purchase
from mesaform.autoscaler.model.demand_item import DemandItem as Demanded
from mesaform.autoscaler.model.planner_state import BilledMachine, PlannerState
from mesaform.autoscaler.model.removal import Removal, Replacement
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import LIVE, AgentNode, Supply, price_of
from mesaform.topology.names import Tag

REPLACEMENT_SEEN_S = 5.0
"""How long after its decision a replacement may be without an order in the journal."""


def leader(snapshot: Snapshot, now: float) -> PlannerState:
    """Since when a master leads, as seen from here: timers of machines do not run without one."""
    memory = snapshot.state
    if snapshot.cluster is None:
        return replace(memory, leader_since=None)
    return memory if memory.leader_since is not None else replace(memory, leader_since=now)


def replacements(snapshot: Snapshot, now: float) -> dict[str, Replacement]:
    """Replacements still under way: their machines are ordered, boot or have registered, and an old one is still there."""
    tokens = {
        machine.tags.get(Tag.LAUNCH, "") for machine in snapshot.machines if machine.state in LIVE
    }
    tokens |= {intent.request.token for intent in snapshot.intents}
    live = {machine.instance_id for machine in snapshot.machines if machine.state in LIVE}
    return {
        token: one
        for token, one in snapshot.state.replacements.items()
        if live & set(one.old_instance_ids)
        and (token in tokens or now - one.at < REPLACEMENT_SEEN_S)
    }


def underused_since(snapshot: Snapshot, supply: Supply, now: float) -> dict[str, float]:
    """Since when each busy machine of ours has been little used."""
    settings, before = snapshot.spec.autoscaler.consolidation, snapshot.state.underused_since
    if snapshot.cluster is None:
        return before
    if not settings.enabled:
        return {}
    return {
        unit.machine.instance_id: before.get(unit.machine.instance_id, now)
        for unit in supply.agent_nodes
        if unit.state == "busy"
        and unit.is_autoscaled
        and unit.agent
        and share_used(unit.agent) * 100 < settings.underused_percent
    }


def after_pass(
    snapshot: Snapshot,
    supply: Supply,
    units: Sequence[Demanded],
    purchases: Sequence[Purchase],
    idle: dict[str, float],
    now: float,
) -> PlannerState:
    """What the world taught in this pass."""
    memory, view = snapshot.state, snapshot.cluster or ClusterView()
    live = {unit.machine.instance_id: unit for unit in supply.agent_nodes}
    registered = {name: at for name, at in memory.registered_at.items() if name in live}
    registered.update(
        {
            name: now
            for name, unit in live.items()
            if unit.agent is not None and name not in registered
        }
    )
    lost = {
        name: memory.lost_since.get(name, now)
        for name, unit in live.items()
        if unit.state == "lost"
    }
    frameworks = {framework.framework_id: framework for framework in view.frameworks}
    remembered = with_lives(demand.remember(memory, snapshot, now), view)
    probes = dict(remembered.probes)
    for index in {index for purchase in purchases for index in purchase.load}:
        unit = units[index]
        if unit.framework_id in frameworks:
            probes[unit.framework_id] = demand.probe_after(unit, frameworks[unit.framework_id], now)
    return replace(
        remembered,
        idle_since=idle,
        idle_s=_idle_so_far(memory, idle, now),
        registered_at=registered,
        lost_since=lost,
        removals={
            name: removal
            for name, removal in memory.removals.items()
            if name in live and not _is_back(live[name], removal)
        },
        history=supply.history,
        billed_machines=_rented(snapshot, memory),
        probes=probes,
        underused_since=underused_since(snapshot, supply, now),
        cooldown_until={
            name: until
            for name, until in memory.cooldown_until.items()
            if until > now and name in live
        },
    )


def with_lives(memory: PlannerState, view: ClusterView) -> PlannerState:
    """How long the tasks lasted that ended since the last pass. The engine tells of each for a while, so those counted are skipped.

    Tasks of agents that gave no offers or are gone teach nothing: they were moved, and would have gone on.
    """
    new = [one for one in view.ended if one.at > memory.lifetimes_until]
    if not new:
        return memory
    working = {
        "",
        *(
            agent.agent_id
            for agent in view.agents
            if agent.active and not agent.deactivated and not agent.drain_state
        ),
    }
    lives = learned(memory.lifetimes, (one for one in new if one.agent_id in working))
    return replace(memory, lifetimes=lives, lifetimes_until=max(one.at for one in new))


def _is_back(unit: AgentNode, removal: Removal) -> bool:
    """Whether a machine whose drain was given up works again."""
    agent = unit.agent
    return (
        removal.phase == "abandoned"
        and agent is not None
        and agent.active
        and not agent.deactivated
        and not agent.drain_state
    )


def _idle_so_far(memory: PlannerState, idle: Mapping[str, float], now: float) -> dict[str, float]:
    """Seconds that each machine was idle, with the periods that ended in this pass. Kept a pass longer than the machine."""
    ended = {name: now - since for name, since in memory.idle_since.items() if name not in idle}
    names = {name for name in (*memory.idle_s, *ended) if name in memory.billed_machines}
    return {
        name: round(memory.idle_s.get(name, 0.0) + ended.get(name, 0.0), 1)
        for name in sorted(names)
    }


def _rented(snapshot: Snapshot, memory: PlannerState) -> dict[str, BilledMachine]:
    """Machines that cost money now, with what the ledger will need when they no longer do."""
    sizes = {offering.key: offering for pool in snapshot.offerings.values() for offering in pool}
    planned = {
        intent.request.token: intent.request.offerings[0].usd_per_hour
        for intent in snapshot.intents
    }
    return {
        machine.instance_id: memory.billed_machines.get(machine.instance_id)
        or BilledMachine(
            instance_type=machine.instance_type,
            zone=machine.zone,
            capacity=machine.capacity,
            usd_per_hour=price_of(machine, sizes),
            pool=machine.tags.get(Tag.POOL, ""),
            managed_by=machine.tags.get(Tag.MANAGED_BY, ""),
            role=machine.tags.get(Tag.ROLE, ""),
            launched_at=machine.launched_at,
            planned_usd_per_hour=planned.get(machine.tags.get(Tag.LAUNCH, ""), 0.0),
        )
        for machine in snapshot.machines
        if machine.state in LIVE
    }
