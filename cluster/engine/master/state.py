"""State of one term of leadership: frameworks, agents, tasks and offers, and operations on them.

Pure: no I/O, no clock, no randomness. `core` sets `now` before each event. The operations append
to `effects`, which `core` returns. Depends on `allocator`, `registry`, `link` and `events`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from mesaform.common.resources import EMPTY, Resources
from mesaform.engine.allocator import Allocation, Allocator
from mesaform.engine.documents import Document
from mesaform.engine.link import FromMaster
from mesaform.engine.master.authorization import Acls
from mesaform.engine.master.events import (
    CloseLink,
    CloseStream,
    Effect,
    Publish,
    SendAgent,
    SendEvent,
)
from mesaform.engine.registry import AgentRecord, Registry
from mesaform.engine.validation.frameworks import roles_of
from mesaform.mesos.messages import (
    TERMINAL_STATES,
    AgentInfo,
    Capability,
    FrameworkInfo,
    ResourceQuantities,
    TaskInfo,
    TaskStatus,
    from_wire,
    to_wire,
)

HEARTBEAT_S = 15.0  # Mesos' own interval (DEFAULT_HEARTBEAT_INTERVAL)
MAX_COMPLETED_FRAMEWORKS = 50  # the default of --max_completed_frameworks
MAX_COMPLETED_TASKS = 1000  # the default of --max_completed_tasks_per_framework
MAX_UNREACHABLE_TASKS = 1000  # the default of --max_unreachable_tasks_per_framework
MAX_REMOVED_IDS = 10_000
"""Ids of removed frameworks that are remembered. It bounds the memory of a long term."""

INTERNAL_ERROR = "Internal error of the master; its log has the details"
"""The answer to a caller or an agent after an unexpected exception."""

TaskKey = tuple[str, str]
"""Framework id and task id."""


@dataclass(frozen=True, slots=True)
class Config:
    """Time-outs in seconds, with the defaults of Mesos.

    An agent is unreachable after `max_missed_pings` pings without an answer. `acls` gives the lists
    that are in force. `max_frameworks` bounds those that are registered, connected or not:
    Mesos has no such limit, and whoever reaches port 5050 could fill the master's memory.
    """

    allocation_interval_s: float = 1.0
    ping_interval_s: float = 15.0
    max_missed_pings: int = 5
    reregister_timeout_s: float = 600.0
    max_frameworks: int = 5_000
    acls: Callable[[], Acls] = Acls


@dataclass(slots=True)
class Task:
    """A task that the master knows.

    `state` is the latest. `update_state` and `update_uuid` belong to the update that waits for its
    acknowledgement, or that got the last one. `unreachable_at` is in seconds since the epoch.
    """

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
        """The task id that the framework chose."""
        return self.info.task_id.value

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended and holds no resources."""
        return self.state in TERMINAL_STATES


@dataclass(slots=True)
class Offer:
    """Resources of one agent, offered to one framework in one of its roles."""

    id: str
    framework_id: str
    agent_id: str
    role: str
    resources: Resources


@dataclass(slots=True)
class Framework:
    """A framework of this term. Times are in seconds since the epoch.

    `stream_id` is None while it is disconnected. `is_recovered`: its tasks were reported by agents
    and it has not subscribed in this term. `remove_at` is set while it is disconnected.
    """

    info: FrameworkInfo
    id: str
    registered_at: float
    reregistered_at: float
    stream_id: str | None = None
    is_active: bool = False
    is_recovered: bool = False
    unregistered_at: float | None = None
    remove_at: float | None = None
    next_heartbeat_at: float = 0.0
    tasks: dict[str, Task] = field(default_factory=dict)
    unreachable: OrderedDict[str, Task] = field(default_factory=OrderedDict)
    completed: OrderedDict[str, Task] = field(default_factory=OrderedDict)
    offers: dict[str, Offer] = field(default_factory=dict)
    counters: Counter[str] = field(default_factory=Counter)

    @property
    def is_connected(self) -> bool:
        """Whether its event stream is open."""
        return self.stream_id is not None

    @property
    def is_partition_aware(self) -> bool:
        """Whether it knows the task states beyond TASK_LOST."""
        return self.has_capability("PARTITION_AWARE")

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles it subscribes to."""
        return roles_of(self.info)

    def has_capability(self, name: str) -> bool:
        """Whether its info lists the capability."""
        return Capability(type=name) in self.info.capabilities

    def used(self) -> Resources:
        """What its live tasks hold."""
        return total(task.resources for task in self.tasks.values() if not task.is_terminal)

    def offered(self) -> Resources:
        """What is offered to it now."""
        return total(offer.resources for offer in self.offers.values())


@dataclass(slots=True)
class Agent:
    """A registered agent. Times are in seconds since the epoch.

    `link_id` is None while it is disconnected. `kills` has the kills that its tasks have not
    answered yet, with the grace in seconds (None: the task's own); they are repeated when it
    returns. `records_set_aside` counts the unreadable files that it keeps.
    """

    id: str
    info: AgentInfo
    total: Resources
    registered_at: float
    link_id: str | None = None
    address: str = ""
    version: str = ""
    records_set_aside: int = 0
    reregistered_at: float | None = None
    last_pong_at: float = 0.0
    next_ping_at: float = 0.0
    tasks: dict[TaskKey, Task] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)
    kills: dict[TaskKey, float | None] = field(default_factory=dict)

    @property
    def is_connected(self) -> bool:
        """Whether its link is up."""
        return self.link_id is not None

    def used(self) -> Resources:
        """What live tasks hold here."""
        return total(task.resources for task in self.tasks.values() if not task.is_terminal)

    def offered(self) -> Resources:
        """What is offered of this agent now."""
        return total(offer.resources for offer in self.offers.values())


class Ids:
    """Ids of one master process: `<master>-S0`, `<master>-0000`, `<master>-O0`.

    The process keeps one instance for all its terms, so that no id occurs twice.
    """

    def __init__(self, master_id: str) -> None:
        self.master_id = master_id
        self._next: Counter[str] = Counter()

    def _take(self, kind: str) -> int:
        self._next[kind] += 1
        return self._next[kind] - 1

    def agent(self) -> str:
        """A new agent id."""
        return f"{self.master_id}-S{self._take('S')}"

    def framework(self) -> str:
        """A new framework id."""
        return f"{self.master_id}-{self._take('F'):04d}"

    def offer(self) -> str:
        """A new offer id."""
        return f"{self.master_id}-O{self._take('O')}"


class State:
    """Everything that a term of leadership knows. The modules of the core are functions over it."""

    #: MasterInfo as JSON. Constant.
    info: Document
    #: Source of new ids. Shared by all terms of the process.
    ids: Ids
    #: The durable registry as last stored. It changes by `Stored` events only.
    registry: Registry
    #: The accounts of offered and used resources. For each agent, its free resources plus those of
    #: its offers and of its live tasks are its total.
    allocator: Allocator
    #: Time-outs. Constant.
    config: Config
    #: Seconds since the epoch of the present event. It never decreases.
    now: float
    #: When the term began. Constant.
    elected_at: float
    #: Effects of the present event, in the order in which they must be carried out. Empty between
    #: events.
    effects: list[Effect]
    #: Subscribed, disconnected and recovered frameworks, by id. Disjoint with
    #: `completed_frameworks`.
    frameworks: dict[str, Framework]
    #: The last `MAX_COMPLETED_FRAMEWORKS` removed frameworks, oldest first. They have no offers.
    completed_frameworks: OrderedDict[str, Framework]
    #: Ids that can never subscribe again, oldest first; includes `completed_frameworks`.
    removed_ids: OrderedDict[str, None]
    #: Registered agents by id, connected or not. Each is admitted in `registry`.
    agents: dict[str, Agent]
    #: Agents of an earlier term that have not registered in this one. Disjoint with `agents`.
    recovered: set[str]
    #: Agents whose record in `registry` has a drain in state DRAINING.
    draining: set[str]
    #: Agent id by link. `agents[links[l]].link_id == l` for each link of a connected agent.
    links: dict[str, str]
    #: Links whose agent waits until the registry has stored it. Disjoint with the keys of `links`.
    registering: set[str]
    #: Outstanding offers by id. Each is also in `offers` of its framework, which is active, and of
    #: its agent, which is connected and not deactivated.
    offers: dict[str, Offer]
    #: The kind of the registry change in progress, by agent. Such an agent is not offered.
    in_flight: dict[str, str]
    #: Monotonic counters under the keys of Mesos' metrics, without `master/`.
    counters: Counter[str]
    #: Whether `core` must ask the allocator after the present event. False between events.
    wants_offers: bool
    #: Unexpected exceptions of the present event with their owners. Empty between events.
    faults: list[tuple[str, Exception]]

    def __init__(
        self,
        info: Document,
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
        self.effects = []
        self.frameworks = {}
        self.completed_frameworks = OrderedDict()
        self.removed_ids = OrderedDict()
        self.agents = {}
        self.recovered = {
            agent_id for agent_id, record in registry.agents.items() if record.state == "admitted"
        }
        self.draining = {
            agent_id for agent_id, record in registry.agents.items() if record.is_draining
        }
        self.links = {}
        self.registering = set()
        self.offers = {}
        self.in_flight = {}
        self.counters = Counter()
        self.wants_offers = False
        self.faults = []

    @contextmanager
    def contain(self, owner: str) -> Iterator[None]:
        """Add an exception of the block to `faults`: the owners after it have their turn."""
        try:
            yield
        except Exception as error:
            self.faults.append((owner, error))

    # --- queries of the registry

    def record(self, agent_id: str) -> AgentRecord | None:
        """The agent's record in the registry."""
        return self.registry.agents.get(agent_id)

    def is_gone(self, agent_id: str) -> bool:
        """Whether the agent was marked gone, which is final."""
        record = self.record(agent_id)
        return record is not None and record.state == "gone"

    def is_unreachable(self, agent_id: str) -> bool:
        """Whether the agent was marked unreachable and has not returned."""
        record = self.record(agent_id)
        return record is not None and record.state == "unreachable" and agent_id not in self.agents

    def is_deactivated(self, agent_id: str) -> bool:
        """Whether an operator deactivated or drained the agent."""
        record = self.record(agent_id)
        return record is not None and record.deactivated

    def drain_state(self, agent_id: str) -> str | None:
        """DRAINING, DRAINED, or None for an agent that is not drained."""
        record = self.record(agent_id)
        return record.drain.state if record is not None and record.drain is not None else None

    def is_active(self, agent: Agent) -> bool:
        """Whether the agent is connected and no operator deactivated it."""
        return agent.is_connected and not self.is_deactivated(agent.id)

    def is_offerable(self, agent: Agent) -> bool:
        """Whether the agent's free resources may be offered."""
        return self.is_active(agent) and agent.id not in self.in_flight

    # --- sending

    def send_event(self, framework: Framework, kind: str, body: Document | None = None) -> None:
        """Send an event to a scheduler. It is lost when the scheduler is disconnected.

        Agents repeat status updates, and the master makes other events again after a subscription.
        """
        if framework.stream_id is None:
            return
        name = kind.lower()
        framework.counters["events"] += 1
        framework.counters[f"events/{name}"] += 1
        event: Document = {"type": kind}
        if body is not None:
            event[name] = body
        self.effects.append(SendEvent(framework.stream_id, event))

    def send_to_agent(self, agent: Agent, message: FromMaster) -> None:
        """Send a message to an agent. It is lost when the agent is disconnected."""
        if agent.link_id is not None:
            self.effects.append(SendAgent(agent.link_id, message))

    def publish(self, kind: str, body: Document) -> None:
        """Send an event to every subscriber of the operator API."""
        self.effects.append(Publish({"type": kind, kind.lower(): body}))

    def close_stream(self, framework: Framework) -> None:
        """End the framework's stream after what was sent."""
        if framework.stream_id is not None:
            self.effects.append(CloseStream(framework.stream_id))
            framework.stream_id = None

    # --- offers

    def make_offers(self) -> None:
        """Ask the allocator, and send each framework its offers in one event."""
        self.wants_offers = False
        by_framework: dict[str, list[Offer]] = {}
        for allocation in self.allocator.allocate(self.now):
            offers = by_framework.setdefault(allocation.framework_id, [])
            offers.append(self._add_offer(allocation))
        for framework_id, offers in by_framework.items():
            framework = self.frameworks[framework_id]
            documents = [self._offer_document(offer) for offer in offers]
            sent = [document for document in documents if document is not None]
            framework.counters["offers/sent"] += len(sent)
            if sent:
                self.send_event(framework, "OFFERS", {"offers": sent})

    def _offer_document(self, offer: Offer) -> Document | None:
        """The offer as JSON. An agent that cannot be shown is disconnected."""
        with self.contain(f"agent {offer.agent_id}"):
            return self.offer_json(offer)
        self.disconnect(self.agents[offer.agent_id], INTERNAL_ERROR)
        return None

    def _add_offer(self, allocation: Allocation) -> Offer:
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

    def offer_json(self, offer: Offer) -> Document:
        """The v1 Offer message."""
        agent = self.agents[offer.agent_id]
        ip, _, port = agent.address.rpartition(":")
        address = {
            "hostname": agent.info.hostname,
            "ip": ip,
            "port": int(port) if port.isdigit() else agent.info.port,
        }
        document: Document = {
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
        if agent.info.domain is not None:
            document["domain"] = agent.info.domain
        return document

    def remove_offer(
        self,
        offer: Offer,
        *,
        rescind: bool = False,
        refuse_s: float | None = None,
        returned: Resources | None = None,
    ) -> None:
        """Remove an offer and return its resources, or only `returned` of them.

        `rescind` informs the framework. `refuse_s` is that of `Allocator.recover`.
        """
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
            self.send_event(framework, "RESCIND", {"offer_id": {"value": offer.id}})

    def disconnect(self, agent: Agent, why: str) -> None:
        """Close an agent's link and rescind its offers, until it registers again."""
        self.allocator.set_agent_active(agent.id, active=False)
        for offer in list(agent.offers.values()):
            self.remove_offer(offer, rescind=True)
        if agent.link_id is not None:
            self.links.pop(agent.link_id, None)
            self.effects.append(CloseLink(agent.link_id, why))
            agent.link_id = None

    # --- tasks

    def add_task(self, framework: Framework, agent: Agent, task: Task) -> None:
        """Add a task to its framework and its agent."""
        framework.tasks[task.id] = task
        agent.tasks[framework.id, task.id] = task

    def remove_task(self, framework: Framework, task: Task) -> None:
        """Remove a task from its framework and its agent, and return what it still holds."""
        if not task.is_terminal:
            self.release(task)
        framework.tasks.pop(task.id, None)
        agent = self.agents.get(task.agent_id)
        if agent is not None:
            agent.tasks.pop((framework.id, task.id), None)
            agent.kills.pop((framework.id, task.id), None)

    def release(self, task: Task) -> None:
        """Return the task's resources to the allocator."""
        self.allocator.recover(
            task.framework_id, task.role, task.agent_id, task.resources, now=self.now
        )

    def add_completed(self, framework: Framework, task: Task) -> None:
        """Add an ended task to the bounded list of completed ones."""
        framework.completed[task.id] = task
        framework.completed.move_to_end(task.id)
        while len(framework.completed) > MAX_COMPLETED_TASKS:
            framework.completed.popitem(last=False)

    def is_removed_framework(self, framework_id: str) -> bool:
        """Whether a framework had this id and was removed in this term."""
        return framework_id in self.removed_ids


def total(vectors: Iterable[Resources]) -> Resources:
    """The sum of resource vectors."""
    result = EMPTY
    for vector in vectors:
        result = result + vector
    return result


def min_allocatable_of(info: FrameworkInfo) -> dict[str, tuple[Resources, ...]]:
    """The smallest useful offers by role, as `offer_filters` declares them.

    An offer is useful when it contains one of a role's vectors. Roles without a vector are left
    out.
    """
    return {
        role: tuple(_vector(entry) for entry in filters.min_allocatable_resources.quantities)
        for role, filters in info.offer_filters.items()
        if filters.min_allocatable_resources is not None
        and filters.min_allocatable_resources.quantities
    }


def _vector(entry: ResourceQuantities) -> Resources:
    return Resources.from_scalars({name: scalar.value for name, scalar in entry.quantities.items()})


def total_of(info: AgentInfo) -> Resources:
    """The total resources that an agent declares."""
    return from_wire(info.resources)
