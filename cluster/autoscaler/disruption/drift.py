"""Policy "drift": replaces machines that differ from one bought now, or that are too old. Pure.

It acts only where `autoscaler.drift` says so. `planner.advertised_capacity` reports every drifted
machine, whatever the spec says.
"""

from __future__ import annotations

from collections.abc import Collection

from mesaform.autoscaler.disruption.context import DRIFT_NUMBER, Budget, DisruptionContext
from mesaform.autoscaler.disruption.eligibility import movable
from mesaform.autoscaler.disruption.removal_start import start_removal
from mesaform.autoscaler.disruption.replacements import replace_command
from mesaform.autoscaler.disruption.rescheduling import work_of
from mesaform.autoscaler.model.command import Command
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.supply import AgentNode, is_protected
from mesaform.common.architecture import architecture_of
from mesaform.config.schema import ClusterSpec
from mesaform.topology.names import Tag, template_key


def propose(context: DisruptionContext, budget: Budget) -> tuple[list[Command], Budget]:
    """Drifted machines, the longest running first, as the disruption budget allows.

    At most one replacement is bought at a time; machines whose tasks fit elsewhere need none.
    """
    commands: list[Command] = []
    is_buying = bool(context.snapshot.state.replacements)
    drifted = _drifted(context, budget)
    names = {node.name for node, _ in drifted}
    for node, reason in drifted:
        if budget.disruptions <= 0:
            break
        closed = {*context.closed_to_tasks(budget), *names}
        command = _command(node, reason, context, closed, may_buy=not is_buying)
        if command is not None:
            is_buying = is_buying or command.replacement is not None
            budget = budget.after(node, is_disruptive=True)
            commands.append(command)
    return commands, budget


def _drifted(context: DisruptionContext, budget: Budget) -> list[tuple[AgentNode, Reason]]:
    excluded = (
        budget.taken
        | context.free_capacity.hosts
        | context.needed
        | context.supply.quarantined.keys()
        | _being_replaced(context)
    )
    drifted = [
        (node, reason)
        for node in context.supply.agent_nodes
        if node.name not in excluded
        and _is_replaceable(node)
        and not context.is_cooling_down(node)
        and (reason := _reason(node, context)) is not None
    ]
    return sorted(drifted, key=lambda item: (item[0].machine.launched_at, item[0].name))


def _being_replaced(context: DisruptionContext) -> set[str]:
    return {
        name
        for replacement in context.snapshot.state.replacements.values()
        for name in replacement.old_instance_ids
    }


def _is_replaceable(node: AgentNode) -> bool:
    if node.state not in {"idle", "busy"} or node.removal is not None:
        return False
    return node.is_autoscaled and not is_protected(node)


def _reason(node: AgentNode, context: DisruptionContext) -> Reason | None:
    settings = context.snapshot.spec.autoscaler.drift
    drift = drift_of(node, context.snapshot) if settings.replace else None
    most_hours = max_age_hours(context.snapshot.spec, node.pool)
    if drift is not None or most_hours is None:
        return drift
    age_hours = (context.now - node.machine.launched_at) / 3600
    if age_hours <= most_hours:
        return None
    return Reason.of(ReasonCode.MAX_AGE, age_hours=age_hours, max_age_hours=most_hours)


def max_age_hours(spec: ClusterSpec, pool_name: str) -> float | None:
    """The age from which machines of a pool are replaced: the pool's own, else the cluster's."""
    own = next((pool.max_age_hours for pool in spec.agents if pool.name == pool_name), None)
    return spec.autoscaler.drift.max_age_hours if own is None else own


def _command(
    node: AgentNode,
    reason: Reason,
    context: DisruptionContext,
    closed: Collection[str],
    *,
    may_buy: bool,
) -> Command | None:
    """Remove the machine where its tasks fit on nodes that are not `closed`, else replace it."""
    agent = node.agent
    if agent is None or not agent.active:
        return None
    if not agent.is_empty and not movable(agent, context.snapshot):
        return None
    work = work_of(agent, context.snapshot.app_constraints)
    if context.free_capacity.fit(work, closed) is not None:
        return start_removal(node, "drift", reason, context.now)
    if not may_buy:
        return None
    left = context.free_capacity.remaining(work, closed)
    purchase = context.find_replacement(node.pool, work, left, number=DRIFT_NUMBER)
    return replace_command(purchase, (node,), "drift", reason) if purchase else None


def drift_of(node: AgentNode, snapshot: Snapshot) -> Reason | None:
    """Why a machine differs from one bought now; None when it does not, or when that is unknown.

    A reading of the templates that is older than the machine says nothing of it.
    """
    architecture = architecture_of(node.machine.instance_type)
    template = snapshot.templates.get(template_key(node.pool, architecture))
    version = node.machine.tags.get(Tag.TEMPLATE_VERSION, "")
    if template is not None and template.is_outdated(version, node.machine.launched_at):
        return Reason.of(ReasonCode.TEMPLATE_OUTDATED, version=version, latest=template.latest)
    return attribute_drift_of(node)


def attribute_drift_of(node: AgentNode) -> Reason | None:
    """In what an agent's attributes differ from its instance; None for nothing."""
    if node.agent is None:
        return None
    machine, registered = node.machine, node.agent.attributes
    actual = {
        "pool": node.pool,
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "lifecycle": machine.capacity,
    }
    differing = [name for name, value in actual.items() if registered.get(name, value) != value]
    if not differing:
        return None
    return Reason.of(
        ReasonCode.ATTRIBUTES_DIFFER,
        registered=tuple(f"{name} {registered[name]}" for name in differing),
        actual=tuple(f"{name} {actual[name]}" for name in differing),
    )
