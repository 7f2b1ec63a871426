"""The leading master's memory: frameworks, agents, tasks, offers; and the few moves that every part of the core shares.

Pure: no clock, no I/O, no randomness. `now` is set by the core before each event; effects collect in `out`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any

from mesaform.common.json_types import as_list, as_object
from mesaform.common.resources import EMPTY, Resources
from mesaform.engine.allocator import Allocation, Allocator
from mesaform.engine.link import FromMaster
from mesaform.engine.master.events import CloseStream, Effect, Publish, SendAgent, SendEvent
from mesaform.engine.registry import AgentRecord, Registry
from mesaform.mesos.messages import (
    TERMINAL_STATES,
    AgentInfo,
    Capability,
    FrameworkInfo,
    TaskInfo,
    TaskStatus,
    from_wire,
    to_wire,
)

HEARTBEAT_S = 15.0
MAX_COMPLETED_FRAMEWORKS = 50
MAX_COMPLETED_TASKS = 1000
MAX_UNREACHABLE_TASKS = 1000
MAX_REMOVED_IDS = 10_000


@dataclass(frozen=True, slots=True)
class Config:
    """Time-outs in seconds. Five pings of 15 s unanswered make an agent unreachable, as in Mesos."""

    allocation_interval_s: float = 1.0
    ping_interval_s: float = 15.0
    max_missed_pings: int = 5
    reregister_timeout_s: float = 600.0


@dataclass(slots=True)
class Task:
    """`state` is the latest; `update_state` and `update_uuid` are of the update that waits for (or last got) its acknowledgement."""

    info: TaskInfo
    framework_id: str
    agent_id: str
    role: str
    resources: Resources
    state: str = "TASK_STAGING"
    statuses: list[TaskStatus] = field(default_factory=list)
    update_state: str | None = None
    update_uuid: bytes | None = None
    unreachable_at: float | None = None

    @property
    def id(self) -> str:
        return self.info.task_id.value

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL_STATES


@dataclass(slots=True)
class Offer:
    id: str
    framework_id: str
    agent_id: str
    role: str
    resources: Resources


@dataclass(slots=True)
class Framework:
    info: FrameworkInfo
    id: str
    registered_at: float
    reregistered_at: float
    stream_id: str | None = None
    active: bool = False
    recovered: bool = False
    unregistered_at: float | None = None
    remove_at: float | None = None
    next_heartbeat_at: float = 0.0
    tasks: dict[str, Task] = field(default_factory=dict)
    unreachable: OrderedDict[str, Task] = field(default_factory=OrderedDict)
    completed: OrderedDict[str, Task] = field(default_factory=OrderedDict)
    offers: dict[str, Offer] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def connected(self) -> bool:
        return self.stream_id is not None

    @property
    def partition_aware(self) -> bool:
        return self.has("PARTITION_AWARE")

    @property
    def roles(self) -> tuple[str, ...]:
        return roles_of(self.info)

    def has(self, capability: str) -> bool:
        return Capability(type=capability) in self.info.capabilities

    def used(self) -> Resources:
        return total(task.resources for task in self.tasks.values() if not task.is_terminal)

    def offered(self) -> Resources:
        return total(offer.resources for offer in self.offers.values())


@dataclass(slots=True)
class Agent:
    id: str
    info: AgentInfo
    total: Resources
    registered_at: float
    link_id: str | None = None
    address: str = ""
    version: str = ""
    reregistered_at: float | None = None
    last_pong_at: float = 0.0
    next_ping_at: float = 0.0
    tasks: dict[tuple[str, str], Task] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    kills: dict[tuple[str, str], float | None] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        return self.link_id is not None

    def used(self) -> Resources:
        return total(task.resources for task in self.tasks.values() if not task.is_terminal)

    def offered(self) -> Resources:
        return total(offer.resources for offer in self.offers.values())


class Ids:
    """Ids of one master process: `<master>-S0`, `<master>-0000`, `<master>-O0`. One for all its terms, so that none comes twice."""

    def __init__(self, master_id: str) -> None:
        self.master_id = master_id
        self._next: Counter[str] = Counter()

    def _take(self, kind: str) -> int:
        self._next[kind] += 1
        return self._next[kind] - 1

    def agent(self) -> str:
        return f"{self.master_id}-S{self._take('S')}"

    def framework(self) -> str:
        return f"{self.master_id}-{self._take('F'):04d}"

    def offer(self) -> str:
        return f"{self.master_id}-O{self._take('O')}"


class State:
    """Everything a term of leadership knows. The core's modules are functions over it."""

    def __init__(
        self,
        info: dict[str, Any],
        ids: Ids,
        registry: Registry,
        allocator: Allocator,
        config: Config,
        *,
        now: float,
    ) -> None:
        self.info = info
        self.ids = ids
        self.registry = registry
        self.allocator = allocator
        self.config = config
        self.now = now
        self.elected_at = now
        self.out: list[Effect] = []
        self.frameworks: dict[str, Framework] = {}
        self.completed_frameworks: OrderedDict[str, Framework] = OrderedDict()
        self.removed_ids: OrderedDict[str, None] = OrderedDict()
        self.agents: dict[str, Agent] = {}
        self.recovered: set[str] = {
            agent_id for agent_id, record in registry.agents.items() if record.state == "admitted"
        }
        self.draining: set[str] = {
            agent_id
            for agent_id, record in registry.agents.items()
            if record.state != "gone"
            and record.drain is not None
            and record.drain.state == "DRAINING"
        }
        self.links: dict[str, str] = {}
        self.registering: set[str] = set()  # links whose agent waits for the registry
        self.offers: dict[str, Offer] = {}
        self.in_flight: dict[str, str] = {}  # agent -> the kind of registry change under way
        self.counters: Counter[str] = Counter()
        self.wants_offers = False

    # --- the registry's word on an agent

    def record(self, agent_id: str) -> AgentRecord | None:
        return self.registry.agents.get(agent_id)

    def is_gone(self, agent_id: str) -> bool:
        record = self.record(agent_id)
        return record is not None and record.state == "gone"

    def is_unreachable(self, agent_id: str) -> bool:
        record = self.record(agent_id)
        return record is not None and record.state == "unreachable" and agent_id not in self.agents

    def is_deactivated(self, agent_id: str) -> bool:
        record = self.record(agent_id)
        return record is not None and record.deactivated

    def drain_state(self, agent_id: str) -> str | None:
        record = self.record(agent_id)
        return record.drain.state if record is not None and record.drain is not None else None

    def may_offer(self, agent: Agent) -> bool:
        return (
            agent.connected and agent.id not in self.in_flight and not self.is_deactivated(agent.id)
        )

    # --- sending

    def send(self, framework: Framework, event: dict[str, Any]) -> None:
        """An event to a scheduler; lost when it is disconnected (agents retry updates, the rest is made again)."""
        if framework.stream_id is None:
            return
        framework.counters["events"] += 1
        framework.counters[f"events/{event['type'].lower()}"] += 1
        self.out.append(SendEvent(framework.stream_id, event))

    def tell(self, agent: Agent, message: FromMaster) -> bool:
        """A message to an agent; False when it is disconnected."""
        if agent.link_id is None:
            return False
        self.out.append(SendAgent(agent.link_id, message))
        return True

    def publish(self, kind: str, body: dict[str, Any]) -> None:
        self.out.append(Publish({"type": kind, kind.lower(): body}))

    def close_stream(self, framework: Framework) -> None:
        if framework.stream_id is not None:
            self.out.append(CloseStream(framework.stream_id))
            framework.stream_id = None

    # --- offers

    def make_offers(self) -> None:
        """Ask the allocator and send each framework its offers, in one event."""
        self.wants_offers = False
        by_framework: dict[str, list[Offer]] = {}
        for allocation in self.allocator.allocate(self.now):
            by_framework.setdefault(allocation.framework_id, []).append(self._offer(allocation))
        for framework_id, offers in by_framework.items():
            framework = self.frameworks[framework_id]
            framework.counters["offers/sent"] += len(offers)
            self.send(
                framework,
                {
                    "type": "OFFERS",
                    "offers": {"offers": [self.offer_json(offer) for offer in offers]},
                },
            )

    def _offer(self, allocation: Allocation) -> Offer:
        offer = Offer(
            self.ids.offer(),
            allocation.framework_id,
            allocation.agent_id,
            allocation.role,
            allocation.resources,
        )
        self.offers[offer.id] = offer
        self.frameworks[offer.framework_id].offers[offer.id] = offer
        self.agents[offer.agent_id].offers[offer.id] = offer
        return offer

    def offer_json(self, offer: Offer) -> dict[str, Any]:
        """An offer as the wire has it."""
        agent = self.agents[offer.agent_id]
        ip, _, port = agent.address.rpartition(":")
        address = {
            "hostname": agent.info.hostname,
            "ip": ip,
            "port": int(port) if port.isdigit() else agent.info.port,
        }
        document: dict[str, Any] = {
            "id": {"value": offer.id},
            "framework_id": {"value": offer.framework_id},
            "agent_id": {"value": offer.agent_id},
            "hostname": agent.info.hostname,
            "url": {"scheme": "http", "address": address, "path": "/slave(1)"},
            "resources": to_wire(offer.resources, role="*", allocated_to=offer.role),
            "allocation_info": {"role": offer.role},
        }
        if agent.info.attributes:
            document["attributes"] = agent.info.attributes
        if agent.info.domain:
            document["domain"] = agent.info.domain
        return document

    def drop_offer(
        self,
        offer: Offer,
        *,
        rescind: bool = False,
        refuse_s: float | None = None,
        returned: Resources | None = None,
    ) -> None:
        """Forget an offer and give back its resources (or only `returned` of them)."""
        del self.offers[offer.id]
        framework = self.frameworks[offer.framework_id]
        del framework.offers[offer.id]
        agent = self.agents.get(offer.agent_id)
        if agent is not None:
            agent.offers.pop(offer.id, None)
        resources = offer.resources if returned is None else returned
        self.allocator.recover(
            offer.framework_id,
            offer.role,
            offer.agent_id,
            resources,
            now=self.now,
            refuse_s=refuse_s,
        )
        if rescind:
            framework.counters["offers/rescinded"] += 1
            self.send(framework, {"type": "RESCIND", "rescind": {"offer_id": {"value": offer.id}}})

    # --- tasks

    def add_task(self, framework: Framework, agent: Agent, task: Task) -> None:
        framework.tasks[task.id] = task
        agent.tasks[framework.id, task.id] = task

    def end_task(self, framework: Framework, task: Task) -> None:
        """The record goes to the completed ones; resources that it still holds return."""
        if not task.is_terminal:
            self.allocator.recover(
                framework.id, task.role, task.agent_id, task.resources, now=self.now
            )
        framework.tasks.pop(task.id, None)
        agent = self.agents.get(task.agent_id)
        if agent is not None:
            agent.tasks.pop((framework.id, task.id), None)
            agent.kills.pop((framework.id, task.id), None)

    def keep_completed(self, framework: Framework, task: Task) -> None:
        framework.completed[task.id] = task
        framework.completed.move_to_end(task.id)
        while len(framework.completed) > MAX_COMPLETED_TASKS:
            framework.completed.popitem(last=False)

    def is_removed_framework(self, framework_id: str) -> bool:
        return framework_id in self.removed_ids


def total(parts: Any) -> Resources:
    """The sum of resource vectors."""
    result = EMPTY
    for part in parts:
        result = result + part
    return result


def roles_of(info: FrameworkInfo) -> tuple[str, ...]:
    """The roles a framework subscribes to: `roles` of a multi-role one, else `role`, else the default role."""
    if info.roles or Capability(type="MULTI_ROLE") in info.capabilities:
        return tuple(info.roles)
    return (info.role or "*",)


def min_allocatable_of(info: FrameworkInfo) -> dict[str, tuple[Resources, ...]]:
    """The smallest useful offers by role, as `offer_filters` declares them.

    An offer is useful when it contains one of a role's vectors. Roles without a vector are left
    out. Shape: OfferFilters of mesos.proto; parts of another shape are ignored.
    """
    vectors: dict[str, tuple[Resources, ...]] = {}
    for role, filters in (info.offer_filters or {}).items():
        minimal = as_object(as_object(filters).get("min_allocatable_resources"))
        quantities = tuple(_quantities(entry) for entry in as_list(minimal.get("quantities")))
        if quantities:
            vectors[role] = quantities
    return vectors


def _quantities(entry: object) -> Resources:
    scalars: dict[str, float] = {}
    for name, scalar in as_object(as_object(entry).get("quantities")).items():
        value = as_object(scalar).get("value")
        if isinstance(value, int | float):
            scalars[name] = float(value)
    return Resources.from_scalars(scalars)


def agent_total(info: AgentInfo) -> Resources:
    return from_wire(info.resources)
