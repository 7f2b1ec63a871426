"""Builds the supply of a pass from what EC2, the master and the journal say. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesaform.autoscaler.model import lifecycle
from mesaform.autoscaler.model.cluster_view import Agent, ClusterView
from mesaform.autoscaler.model.planner_state import PlannerState, is_terminating
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.shape import shape_of
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.model.supply import (
    LISTING_LAG_S,
    LIVE,
    AgentNode,
    Node,
    NodeKind,
    Supply,
    attributes_of,
    usd_per_hour_of,
)
from mesaform.aws.ports import Machine, Offering
from mesaform.common.resources import EMPTY, Resources
from mesaform.config.schema import ClusterSpec
from mesaform.placement.constraints import Constraint, InstanceCounts
from mesaform.topology.names import Tag

PLACEMENT_ORDER: Mapping[NodeKind, int] = {"settled": 0, "idle": 1, "coming": 2, "leaving": 3}
"""Order in which nodes are filled. Used machines are first, so that idle ones can be removed."""


def build_supply(snapshot: Snapshot, now: float) -> Supply:
    """The supply at `now` (epoch seconds)."""
    view = snapshot.cluster or ClusterView()
    offerings = _by_key(snapshot.offerings)
    histories = _histories(snapshot, view, offerings)
    agent_nodes = [node for node in histories.agent_nodes if node.machine.state in LIVE]
    unlisted = _unlisted(snapshot, now)
    nodes = [
        *_machine_nodes(agent_nodes, snapshot, offerings, now),
        *(_agent_without_machine(agent) for agent in _unknown_agents(view, snapshot.machines)),
        *_ordered_nodes(unlisted, snapshot.spec),
    ]
    return Supply(
        agent_nodes=tuple(agent_nodes),
        nodes=tuple(sorted(nodes, key=_placement_key)),
        usage=_usage(view.agents, snapshot),
        usd_per_hour=round(_usd_per_hour(snapshot, unlisted, offerings), 6),
        ordered_by_pool=_by_order(unlisted),
        history=histories.states,
        quarantined=histories.quarantined,
        pools=_by_pool(agent_nodes),
        zones=_by_zone(agent_nodes, unlisted),
    )


def _machine_nodes(
    agent_nodes: Iterable[AgentNode],
    snapshot: Snapshot,
    offerings: Mapping[str, Offering],
    now: float,
) -> list[Node]:
    nodes = (_node_of(agent_node, snapshot, offerings, now) for agent_node in agent_nodes)
    return [node for node in nodes if node is not None]


def _ordered_nodes(unlisted: Iterable[tuple[Intent, int]], spec: ClusterSpec) -> list[Node]:
    return [node for intent, count in unlisted for node in _ordered(intent, count, spec)]


def _by_order(unlisted: Iterable[tuple[Intent, int]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for intent, count in unlisted:
        pool = intent.request.pool
        counts[pool] = counts.get(pool, 0) + count
    return counts


def _placement_key(node: Node) -> tuple[int, int, str]:
    return (PLACEMENT_ORDER[node.kind], sum(node.free), node.name)


def _by_key(offerings: Mapping[str, tuple[Offering, ...]]) -> dict[str, Offering]:
    return {offering.key: offering for pool in offerings.values() for offering in pool}


def _usd_per_hour(
    snapshot: Snapshot,
    unlisted: Iterable[tuple[Intent, int]],
    offerings: Mapping[str, Offering],
) -> float:
    """The rate of the cluster with all live machines, and ordered ones at their dearest offering.

    Masters and what the cluster costs besides its machines are in it.
    """
    usd = snapshot.standing_usd_per_hour + sum(
        usd_per_hour_of(snapshot, machine, offerings)
        for machine in snapshot.machines
        if machine.state in LIVE
    )
    return usd + sum(
        count * max(offering.usd_per_hour for offering in intent.request.offerings)
        for intent, count in unlisted
    )


@dataclass(slots=True)
class _Histories:
    """Agent machines of any state, and each one's states so far."""

    agent_nodes: list[AgentNode] = field(default_factory=list)
    states: dict[str, tuple[str, ...]] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)


def _histories(
    snapshot: Snapshot, view: ClusterView, offerings: Mapping[str, Offering]
) -> _Histories:
    """Each machine's history with its present state. An unknown transition quarantines it."""
    state, agents, result = snapshot.state, _by_instance(view.agents), _Histories()
    for machine in snapshot.machines:
        if machine.tags.get(Tag.ROLE) != "agent":
            continue
        name = machine.instance_id
        agent, removal = agents.get(name), state.removals.get(name)
        present = _state(machine, agent, removal, state)
        result.agent_nodes.append(
            AgentNode(
                machine, agent, present, removal, usd_per_hour_of(snapshot, machine, offerings)
            )
        )
        try:
            result.states[name] = lifecycle.step(state.history.get(name, ()), present)
        except lifecycle.UnknownEdge as error:
            result.states[name] = state.history[name]
            result.quarantined[name] = error.where
    return result


def _by_instance(agents: Iterable[Agent]) -> dict[str, Agent]:
    """Agents by instance id; of several agents of one machine the active, then the newest one."""
    ranked = sorted(
        agents, key=lambda agent: (agent.active, agent.deactivated, agent.registered_at)
    )
    return {agent.instance_id: agent for agent in ranked if agent.instance_id}


def _by_pool(agent_nodes: Iterable[AgentNode]) -> dict[str, tuple[AgentNode, ...]]:
    pools: dict[str, list[AgentNode]] = {}
    for node in agent_nodes:
        pools.setdefault(node.pool, []).append(node)
    return {pool: tuple(members) for pool, members in pools.items()}


def _by_zone(
    agent_nodes: Iterable[AgentNode], unlisted: Iterable[tuple[Intent, int]]
) -> dict[str, dict[str, int]]:
    """Machines that stay, and ordered ones in the zone that their order names first."""
    counts: dict[str, dict[str, int]] = {}
    staying = [(node.pool, node.machine.zone, 1) for node in agent_nodes if node.removal is None]
    ordered = [
        (intent.request.pool, intent.request.offerings[0].zone, count) for intent, count in unlisted
    ]
    for pool, zone, count in (*staying, *ordered):
        zones = counts.setdefault(pool, {})
        zones[zone] = zones.get(zone, 0) + count
    return counts


def _state(
    machine: Machine, agent: Agent | None, removal: Removal | None, state: PlannerState
) -> lifecycle.State:
    """A machine's state in `lifecycle`."""
    if machine.state == "terminated":
        return "gone"
    if machine.state not in LIVE:
        return "terminating"
    if removal is not None and removal.phase == "terminating":
        return "terminating"
    if removal is not None and removal.phase == "draining":
        return _draining_state(agent)
    return _state_of_agent(agent, removal) if agent else _state_without_agent(machine, state)


def _draining_state(agent: Agent | None) -> lifecycle.State:
    return "draining" if agent and agent.drain_state != "DRAINED" else "drained"


def _state_without_agent(machine: Machine, state: PlannerState) -> lifecycle.State:
    if machine.instance_id in state.registered_at:
        return "lost"
    return "bought" if machine.state == "pending" else "booting"


def _state_of_agent(agent: Agent, removal: Removal | None) -> lifecycle.State:
    if removal is not None and removal.phase != "abandoned":
        return "deactivated"
    if removal is not None and agent.drain_state:
        return "drained" if agent.drain_state == "DRAINED" else "draining"
    return "idle" if agent.is_empty else "busy"


def _node_of(
    agent_node: AgentNode, snapshot: Snapshot, offerings: Mapping[str, Offering], now: float
) -> Node | None:
    """The node of a machine; None when no task may be placed on it."""
    if is_terminating(snapshot.state, agent_node.name, now):
        return None
    if agent_node.agent is not None:
        kind = _registered_kind(agent_node, agent_node.agent)
        return _registered_node(agent_node, agent_node.agent, kind) if kind else None
    return _booting_node(agent_node, snapshot, offerings, now)


def _registered_kind(agent_node: AgentNode, agent: Agent) -> NodeKind | None:
    if agent.drain_state:
        return None
    if agent_node.state in lifecycle.REGISTERED:
        return _in_service_kind(agent_node, agent)
    is_lasting = agent_node.removal is not None and agent_node.removal.is_lasting
    return "leaving" if agent_node.state == "deactivated" and not is_lasting else None


def _in_service_kind(agent_node: AgentNode, agent: Agent) -> NodeKind | None:
    if not agent.active or agent.deactivated:
        return None
    return "idle" if agent_node.state == "idle" and agent_node.is_autoscaled else "settled"


def _registered_node(agent_node: AgentNode, agent: Agent, kind: NodeKind) -> Node:
    return Node(
        agent_node.name,
        kind,
        agent.hostname,
        agent.attributes,
        agent.free,
        agent_node.pool,
        agent.ports,
    )


def _booting_node(
    agent_node: AgentNode, snapshot: Snapshot, offerings: Mapping[str, Offering], now: float
) -> Node | None:
    """A machine that boots; None once it took longer than `boot_timeout_s`."""
    machine = agent_node.machine
    started_at = max(machine.launched_at, snapshot.state.leader_since or 0.0)
    is_late = now - started_at > snapshot.spec.autoscaler.boot_timeout_s
    if agent_node.state not in {"bought", "booting"} or is_late:
        return None
    attributes = attributes_of(
        snapshot.spec, agent_node.pool, machine.instance_type, machine.zone, machine.capacity
    )
    hostname = machine.private_address or machine.instance_id
    expected = _expected_resources(machine, offerings)
    return Node(
        machine.instance_id,
        "coming",
        hostname,
        attributes,
        shape_of(expected),
        agent_node.pool,
        expected.ports,
    )


def _expected_resources(machine: Machine, offerings: Mapping[str, Offering]) -> Resources:
    """Resources of a machine by its offering, else by another offering of its type."""
    exact = offerings.get(f"{machine.instance_type}/{machine.zone}/{machine.capacity}")
    same_type = (o for o in offerings.values() if o.instance_type == machine.instance_type)
    offering = exact or next(same_type, None)
    return offering.resources if offering else EMPTY


def _unknown_agents(view: ClusterView, machines: Iterable[Machine]) -> list[Agent]:
    """Active agents whose machine EC2 does not list: its list lags, or they are not EC2's.

    Their capacity counts; they are never removed.
    """
    listed = {machine.instance_id for machine in machines}
    return [
        agent
        for agent in view.agents
        if agent.active and not agent.deactivated and agent.instance_id not in listed
    ]


def _agent_without_machine(agent: Agent) -> Node:
    name = agent.instance_id or agent.agent_id
    pool = agent.attributes.get("pool", "")
    return Node(name, "settled", agent.hostname, agent.attributes, agent.free, pool, agent.ports)


def _unlisted(snapshot: Snapshot, now: float) -> list[tuple[Intent, int]]:
    """Journaled launches, each with the number of its machines that EC2 does not list yet."""
    listed = {machine.instance_id for machine in snapshot.machines}
    by_token = Counter(machine.tags.get(Tag.LAUNCH, "") for machine in snapshot.machines)
    missing = (
        (intent, _missing_count(intent, listed, by_token, now)) for intent in snapshot.intents
    )
    return [(intent, count) for intent, count in missing if count > 0]


def _missing_count(
    intent: Intent, listed: set[str], by_token: Mapping[str, int], now: float
) -> int:
    if intent.instance_ids is None:
        return intent.request.count - by_token.get(intent.request.token, 0)
    if now - intent.at > LISTING_LAG_S:
        return 0
    return sum(1 for name in intent.instance_ids if name not in listed)


def _ordered(intent: Intent, count: int, spec: ClusterSpec) -> list[Node]:
    """Nodes of ordered machines, each as the smallest offering that the order names."""
    request = intent.request
    smallest = min(request.offerings, key=lambda offering: shape_of(offering.resources))
    attributes = attributes_of(
        spec, request.pool, smallest.instance_type, smallest.zone, smallest.capacity
    )
    shape, ports = shape_of(smallest.resources), smallest.resources.ports
    names = [f"{request.token}/{number}" for number in range(count)]
    return [Node(name, "coming", name, attributes, shape, request.pool, ports) for name in names]


def _usage(agents: Iterable[Agent], snapshot: Snapshot) -> InstanceCounts:
    """Where the instances of apps with constraints run, those of the present configurations."""
    usage = InstanceCounts()
    constrained = _constrained_apps(snapshot)
    configs = dict(snapshot.app_configs)
    configs.update({entry.app: entry.config for entry in snapshot.queue or ()})
    for agent in agents:
        for app, count in agent.apps.items():
            if app in constrained:
                current = count - _outdated(agent, app, configs.get(app, ""))
                usage.add(app, constrained[app], agent, current)
    return usage


def _constrained_apps(snapshot: Snapshot) -> dict[str, tuple[Constraint, ...]]:
    """The apps that have constraints, with them; those of the queue are newer."""
    apps = {app: own for app, own in (snapshot.app_constraints or {}).items() if own}
    apps.update(
        {entry.app: entry.constraints for entry in snapshot.queue or () if entry.constraints}
    )
    return apps


def _outdated(agent: Agent, app: str, config: str) -> int:
    """An app's instances on an agent that have another configuration than the present one."""
    if not config:
        return 0
    by_config = agent.app_configs.get(app, {})
    return sum(count for version, count in by_config.items() if version != config)
