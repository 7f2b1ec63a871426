"""What there is: machines joined to their agents, machines on their way, what each holds and costs, and each one's state of life."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mesaform.autoscaler.model import lifecycle
from mesaform.autoscaler.model.cluster_view import (
    Agent,
    ClusterView,
    Constraint,
    QueueEntry,
)
from mesaform.autoscaler.model.constraints import Usage
from mesaform.autoscaler.model.planner_state import PlannerState, is_terminating
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.shape import NOTHING, Shape, shape_of
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.aws.ports import Machine, Offering
from mesaform.aws.pricing import price_book
from mesaform.config.schema import ClusterSpec, Pool
from mesaform.topology.names import Tag
from mesaform.topology.user_data import PROTECT

LIVE = frozenset({"pending", "running"})
LISTING_LAG_S = 120.0
"""How long a machine that CreateFleet named may be missing from DescribeInstances before it counts as gone."""

NodeKind = Literal["settled", "idle", "coming", "leaving"]
_ORDER: dict[NodeKind, int] = {"settled": 0, "idle": 1, "coming": 2, "leaving": 3}


@dataclass(frozen=True, slots=True)
class Node:
    """Somewhere that work fits or will fit. `leaving` nodes are deactivated and can be taken back at no cost."""

    name: (
        str  # instance id, agent id of a machine that EC2 does not list, or launch token and number
    )
    kind: NodeKind
    hostname: str
    attributes: Mapping[str, str]
    free: Shape
    pool: str


@dataclass(frozen=True, slots=True)
class AgentNode:
    """A live agent machine of this cluster with what belongs to it."""

    machine: Machine
    agent: Agent | None
    state: lifecycle.State
    removal: Removal | None
    usd_per_hour: float

    @property
    def pool(self) -> str:
        return self.machine.tags.get(Tag.POOL, "")

    @property
    def is_autoscaled(self) -> bool:
        """Bought by the autoscaler, and so its to remove."""
        return (
            self.machine.tags.get(Tag.MANAGED_BY) == "autoscaler"
            and self.machine.tags.get(Tag.ROLE) == "agent"
        )


@dataclass(frozen=True, slots=True)
class Supply:
    """All of it. `quarantined` maps an instance id to the history nobody thought of."""

    agent_nodes: tuple[AgentNode, ...]
    nodes: tuple[Node, ...]
    usage: Usage
    usd_per_hour: float
    ordered_by_pool: Mapping[str, int]  # by pool: ordered, not listed by EC2 yet
    history: dict[str, tuple[str, ...]]
    quarantined: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[str, tuple[AgentNode, ...]] = field(default_factory=dict)  # `units` by pool
    zones: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict
    )  # how many of each pool's are in each zone

    def in_pool(self, pool: str) -> tuple[AgentNode, ...]:
        return self.pools.get(pool, ())

    def size(self, pool: str) -> int:
        """Machines of a pool that run or are ordered, those on their way out included: what counts against its max."""
        return len(self.in_pool(pool)) + self.ordered_by_pool.get(pool, 0)

    def staying_count(self, pool: str) -> int:
        """Machines of a pool that are not on their way out: what counts for its floor."""
        return sum(
            1 for unit in self.in_pool(pool) if unit.removal is None
        ) + self.ordered_by_pool.get(pool, 0)


def build_supply(snapshot: Snapshot, now: float) -> Supply:
    """Join what EC2, the master and the journal say."""
    memory, view = snapshot.state, snapshot.cluster or ClusterView()
    agents = _by_instance(view.agents)
    sizes = _sizes(snapshot.offerings)
    history: dict[str, tuple[str, ...]] = {}
    quarantined: dict[str, str] = {}
    units: list[AgentNode] = []
    for machine in snapshot.machines:
        if machine.tags.get(Tag.ROLE) != "agent":
            continue
        unit = _unit(machine, agents.get(machine.instance_id), memory, sizes)
        try:
            history[machine.instance_id] = lifecycle.step(
                memory.history.get(machine.instance_id, ()), unit.state
            )
        except lifecycle.UnknownEdge as error:
            history[machine.instance_id] = memory.history[machine.instance_id]
            quarantined[machine.instance_id] = error.where
        if machine.state in LIVE:
            units.append(unit)
    pending = _unlisted(
        snapshot.intents,
        {machine.instance_id for machine in snapshot.machines},
        snapshot.machines,
        now,
    )
    nodes = [node for unit in units for node in _nodes(unit, snapshot, sizes, now)]
    nodes += [_strange(agent) for agent in _without_machine(view.agents, snapshot.machines)]
    nodes += [node for intent, count in pending for node in _ordered(intent, count, snapshot.spec)]
    ordered: dict[str, int] = {}
    for intent, count in pending:
        ordered[intent.request.pool] = ordered.get(intent.request.pool, 0) + count
    usd = sum(price_of(machine, sizes) for machine in snapshot.machines if machine.state in LIVE)
    usd += sum(
        count * max(offering.usd_per_hour for offering in intent.request.offerings)
        for intent, count in pending
    )
    return Supply(
        agent_nodes=tuple(units),
        nodes=tuple(sorted(nodes, key=lambda node: (_ORDER[node.kind], sum(node.free), node.name))),
        usage=_usage(view.agents, snapshot.queue or (), snapshot.app_constraints or {}),
        usd_per_hour=round(usd, 6),
        ordered_by_pool=ordered,
        history=history,
        quarantined=quarantined,
        pools=_by_pool(units),
        zones=_by_zone(units),
    )


def price_of(machine: Machine, sizes: Mapping[str, Offering] | None = None) -> float:
    """USD an hour of a machine: what its offering costs now, else the price book's answer, else nothing."""
    key = f"{machine.instance_type}/{machine.zone}/{machine.capacity}"
    if sizes and key in sizes:
        return sizes[key].usd_per_hour
    return price_book.usd_per_hour(machine.instance_type, machine.capacity) or 0.0


def pool_of(spec: ClusterSpec, name: str) -> Pool | None:
    return next((pool for pool in spec.agents if pool.name == name), None)


def _by_pool(units: Iterable[AgentNode]) -> dict[str, tuple[AgentNode, ...]]:
    found: dict[str, list[AgentNode]] = {}
    for unit in units:
        found.setdefault(unit.pool, []).append(unit)
    return {pool: tuple(mine) for pool, mine in found.items()}


def _by_zone(units: Iterable[AgentNode]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for unit in units:
        zones = found.setdefault(unit.pool, {})
        zones[unit.machine.zone] = zones.get(unit.machine.zone, 0) + 1
    return found


def _by_instance(agents: Iterable[Agent]) -> dict[str, Agent]:
    """Agents by instance id. A machine that registered twice is its active, then its newest agent."""
    ranked = sorted(
        agents, key=lambda agent: (agent.active, agent.deactivated, agent.registered_at)
    )
    return {agent.instance_id: agent for agent in ranked if agent.instance_id}


def _sizes(offerings: Mapping[str, tuple[Offering, ...]]) -> dict[str, Offering]:
    return {offering.key: offering for pool in offerings.values() for offering in pool}


def _unit(
    machine: Machine, agent: Agent | None, memory: PlannerState, sizes: Mapping[str, Offering]
) -> AgentNode:
    removal = memory.removals.get(machine.instance_id)
    return AgentNode(
        machine, agent, _state(machine, agent, removal, memory), removal, price_of(machine, sizes)
    )


def _state(
    machine: Machine, agent: Agent | None, removal: Removal | None, memory: PlannerState
) -> lifecycle.State:
    if machine.state == "terminated":
        return "gone"
    if machine.state not in LIVE or (removal and removal.phase == "terminating"):
        return "terminating"
    if removal and removal.phase == "draining":
        return "draining" if agent and agent.drain_state != "DRAINED" else "drained"
    if agent is None:
        if machine.instance_id in memory.registered_at:
            return "lost"
        return "bought" if machine.state == "pending" else "booting"
    if removal and removal.phase == "abandoned" and agent.drain_state:
        return "drained" if agent.drain_state == "DRAINED" else "draining"
    if removal and removal.phase != "abandoned":
        return "deactivated"
    return "idle" if agent.is_empty else "busy"


def _nodes(
    unit: AgentNode, snapshot: Snapshot, sizes: Mapping[str, Offering], now: float
) -> list[Node]:
    """The node of a machine, if work may still go there."""
    machine, agent = unit.machine, unit.agent
    if is_terminating(snapshot.state, machine.instance_id, now):
        return []
    if unit.state in lifecycle.REGISTERED and agent is not None:
        if not agent.active or agent.deactivated or agent.drain_state:
            return []
        kind: NodeKind = "idle" if unit.state == "idle" and unit.is_autoscaled else "settled"
        return [
            Node(machine.instance_id, kind, agent.hostname, agent.attributes, agent.free, unit.pool)
        ]
    taken_out = unit.removal is not None and unit.removal.is_lasting
    if (
        unit.state == "deactivated"
        and agent is not None
        and not agent.drain_state
        and not taken_out
    ):
        return [
            Node(
                machine.instance_id,
                "leaving",
                agent.hostname,
                agent.attributes,
                agent.free,
                unit.pool,
            )
        ]
    started = max(machine.launched_at, snapshot.state.leader_since or 0.0)
    if (
        unit.state in {"bought", "booting"}
        and now - started <= snapshot.spec.autoscaler.boot_timeout_s
    ):
        offering = _offering_like(machine, sizes)
        free = shape_of(offering.resources) if offering else NOTHING
        attributes = attributes_of(
            snapshot.spec, unit.pool, machine.instance_type, machine.zone, machine.capacity
        )
        return [
            Node(
                machine.instance_id,
                "coming",
                machine.private_address or machine.instance_id,
                attributes,
                free,
                unit.pool,
            )
        ]
    return []


def _offering_like(machine: Machine, sizes: Mapping[str, Offering]) -> Offering | None:
    exact = sizes.get(f"{machine.instance_type}/{machine.zone}/{machine.capacity}")
    return exact or next(
        (
            offering
            for offering in sizes.values()
            if offering.instance_type == machine.instance_type
        ),
        None,
    )


def attributes_of(
    spec: ClusterSpec, pool: str, instance_type: str, zone: str, capacity: str
) -> dict[str, str]:
    """The attributes that an agent of this pool will register with, as far as they are known before it exists."""
    found = pool_of(spec, pool)
    own = dict(found.attributes) if found else {}
    return {
        **own,
        "instance_type": instance_type,
        "zone": zone,
        "pool": pool,
        "lifecycle": capacity,
    }


def _without_machine(agents: Iterable[Agent], machines: Iterable[Machine]) -> list[Agent]:
    """Agents that work but are not in EC2's list: it lags, or they are not EC2's at all. Their room counts; they are never removed."""
    listed = {machine.instance_id for machine in machines}
    return [
        agent
        for agent in agents
        if agent.active and not agent.deactivated and agent.instance_id not in listed
    ]


def _strange(agent: Agent) -> Node:
    return Node(
        agent.instance_id or agent.agent_id,
        "settled",
        agent.hostname,
        agent.attributes,
        agent.free,
        agent.attributes.get("pool", ""),
    )


def _unlisted(
    intents: Iterable[Intent], listed: set[str], machines: Iterable[Machine], now: float
) -> list[tuple[Intent, int]]:
    """Journaled launches with the number of machines that EC2 does not list yet."""
    seen: dict[str, int] = {}
    for machine in machines:
        token = machine.tags.get(Tag.LAUNCH, "")
        seen[token] = seen.get(token, 0) + 1
    waiting = []
    for intent in intents:
        if intent.instance_ids is None:
            count = intent.request.count - seen.get(intent.request.token, 0)
        else:
            count = (
                sum(1 for name in intent.instance_ids if name not in listed)
                if now - intent.at <= LISTING_LAG_S
                else 0
            )
        if count > 0:
            waiting.append((intent, count))
    return waiting


def _ordered(intent: Intent, count: int, spec: ClusterSpec) -> list[Node]:
    request = intent.request
    least = min(request.offerings, key=lambda offering: shape_of(offering.resources))
    attributes = attributes_of(spec, request.pool, least.instance_type, least.zone, least.capacity)
    free = shape_of(least.resources)
    return [
        Node(
            f"{request.token}/{n}", "coming", f"{request.token}/{n}", attributes, free, request.pool
        )
        for n in range(count)
    ]


def _usage(
    agents: Iterable[Agent], queue: Iterable[QueueEntry], apps: Mapping[str, tuple[Constraint, ...]]
) -> Usage:
    """Where the instances of apps with constraints are."""
    usage = Usage()
    wanted: dict[str, tuple[Constraint, ...]] = {
        app: constraints for app, constraints in apps.items() if constraints
    }
    wanted.update({entry.app: entry.constraints for entry in queue if entry.constraints})
    for agent in agents:
        for app, count in agent.apps.items():
            if app in wanted:
                usage.add(app, wanted[app], agent, count)
    return usage


PROTECT_TAG = "mesaform:protect"


def is_protected(unit: AgentNode) -> bool:
    """Whether a machine is not to be disturbed, whatever runs on it."""
    attributes = unit.agent.attributes if unit.agent else {}
    return attributes.get(PROTECT) == "true" or unit.machine.tags.get(PROTECT_TAG) == "true"
