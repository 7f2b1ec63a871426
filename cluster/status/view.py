"""Join the answers of all sources into one view of a cluster. No I/O.

A source may be missing: the view then lacks its part and `unreachable` names it. EC2 decides which
machines exist, the engine decides the state of an agent; the attribute `instance_id` joins an agent
to its instance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from mesaform.aws.ports import Capacity, Machine
from mesaform.aws.pricing import cluster_cost
from mesaform.aws.pricing.cluster_cost import BILLED, ClusterCost, MachineCost
from mesaform.aws.pricing.prices import BOOK_PRICES, Prices
from mesaform.common.json_types import as_list, as_object
from mesaform.common.set_aside import SetAside
from mesaform.common.snapshots import SnapshotName
from mesaform.config.schema import ClusterSpec
from mesaform.topology.names import Tag

GONE = frozenset({"terminated"})
"""EC2 states of machines that are not shown."""

HEARTBEAT_OLD_S = 30.0
"""Age of a heartbeat from which the autoscaler counts as silent; one comes every few seconds."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A source that did not answer, and the reason."""

    source: str
    why: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The answers of all sources; None: no answer. `at` is epoch seconds.

    `overrides` describe the operators' overrides in force. `masters_up` and `services_up` are the
    private addresses whose ports 5050 and 8080 answer; `leader` and `services_leader` are among
    them. `objects_set_aside` are the records that were set aside in S3, `unable` says which
    program cannot do its work and why. `ends_at` is the end of a cluster with a ttl in epoch
    seconds; 0 for others.
    `zookeeper_modes` are the modes of masters' ZooKeepers by private address; one that serves no
    requests has none.
    `agents`, `tasks` and `frameworks` are the bodies of GET_AGENTS, GET_TASKS and
    GET_FRAMEWORKS, `queue` is that of `/v2/queue`. `snapshots` are those of the state.
    """

    at: float
    machines: Sequence[Machine] | None = None
    leader: str | None = None
    masters_up: frozenset[str] = frozenset()
    zookeeper_modes: Mapping[str, str] = field(default_factory=dict)
    agents: Json | None = None
    tasks: Json | None = None
    frameworks: Json | None = None
    services_leader: str | None = None
    services_up: frozenset[str] = frozenset()
    queue: Json | None = None
    heartbeat: Json | None = None
    freeze: str | None = None
    ends_at: float = 0.0
    overrides: tuple[str, ...] = ()
    objects_set_aside: tuple[SetAside, ...] = ()
    snapshots: tuple[SnapshotName, ...] | None = None
    unable: tuple[str, ...] = ()
    outputs: Json | None = None
    unreachable: tuple[Unreachable, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineView:
    """Facts of any machine.

    `usd_per_hour` has all parts of its price; 0 once EC2 bills it no more, None if not known.
    """

    instance_id: str
    address: str
    public_address: str
    instance_type: str
    zone: str
    capacity: str
    managed_by: str
    state: str
    usd_per_hour: float | None
    launched_at: float


@dataclass(frozen=True, slots=True)
class MasterView(MachineView):
    """A master. `state`: leading, standby, silent (5050 does not answer), or EC2's state.

    `zookeeper` is the mode of its ZooKeeper (leader, follower); empty if it serves no requests.
    """

    leads_services: bool = False
    zookeeper: str = ""


@dataclass(frozen=True, slots=True)
class AgentView(MachineView):
    """An agent.

    `state`: active, deactivated, draining, drained, disconnected, recovering, booting (not
    registered yet), unknown, or EC2's state. `records_set_aside` counts files on its disk.
    """

    agent_id: str = ""
    pool: str = ""
    tasks: int = 0
    records_set_aside: int = 0
    resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demand:
    """Instances that wait for offers, in total and by app; cpus in cores, memory in MiB."""

    instances: int = 0
    cpus: float = 0.0
    mem_mib: float = 0.0
    apps: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class FrameworkView:
    """The autoscaler's verdict on a connected framework.

    `verdict` is satisfied, wants_more, refuses_offers, suppressed or unknown; `pieces` is what it
    wants in addition. `adapter` is what read it; empty: its offers. `reasons` have a code and
    parameters, `since` is epoch seconds.
    """

    id: str
    name: str
    verdict: str
    adapter: str = ""
    pieces: int = 0
    since: float = 0.0
    reasons: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class AutoscalerView:
    """The autoscaler. `state`: active, frozen, silent (old heartbeat), off (none) or unknown."""

    state: str
    address: str = ""
    heartbeat_age_s: float | None = None
    freeze: str | None = None
    overrides: tuple[str, ...] = ()
    frameworks: tuple[FrameworkView, ...] = ()


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """The newest snapshot of the state. `count` is how many there are; no name: there is none.

    `interval_s` is the time from one snapshot to the next.
    """

    name: str = ""
    age_s: float = 0.0
    count: int = 0
    interval_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class Status:
    """View of one cluster.

    `leader` is the leading master's private address; `cost` is the price of the cluster by parts,
    `usd_per_hour` their sum, `unpriced` are the types without a price, which are not in it.
    `ends_at` is when a cluster with a ttl ends, in seconds since the epoch; 0 if it does not.
    """

    cluster: str
    target: str
    region: str
    engine: str
    at: float
    leader: str | None
    urls: Mapping[str, str]
    masters: tuple[MasterView, ...]
    agents: tuple[AgentView, ...]
    others: tuple[MachineView, ...]
    tasks: Mapping[str, int] | None
    demand: Demand | None
    offers: Mapping[str, float] | None
    autoscaler: AutoscalerView
    ends_at: float
    set_aside: tuple[SetAside, ...]
    snapshot: SnapshotView | None
    unable: tuple[str, ...]
    usd_per_hour: float
    unpriced: tuple[str, ...]
    cost: ClusterCost
    outputs: Json | None
    unreachable: tuple[Unreachable, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether EC2 answered and neither a machine nor a leader exists."""
        has_machines = bool(self.masters or self.agents or self.others)
        sources = {silent.source for silent in self.unreachable}
        return not has_machines and self.leader is None and "EC2" not in sources

    def as_json(self) -> dict[str, Any]:
        """The view as plain JSON values."""
        return asdict(self) | {
            "set_aside": msgspec.to_builtins(self.set_aside),
            "cost": self.cost.as_json(),
        }


def join(spec: ClusterSpec, sources: Sources, prices: Prices = BOOK_PRICES) -> Status:
    """The view of a cluster that these answers give, with prices of its region."""
    machines = [machine for machine in sources.machines or () if machine.state not in GONE]
    bill = _Bill(spec, machines, prices)
    masters = _masters(machines, sources, bill)
    agents = _agents(machines, sources, bill)
    listed = {machine.instance_id for machine in sources.machines or ()}
    cost = bill.total(agent for agent in agents if agent.instance_id not in listed)
    return Status(
        cluster=spec.name,
        target=spec.target,
        region=spec.region,
        engine=spec.engine,
        at=sources.at,
        leader=sources.leader,
        urls=_urls(masters, sources, spec),
        masters=masters,
        agents=agents,
        others=_others(machines, bill),
        tasks=_tasks(sources.tasks),
        demand=_demand(sources.queue),
        offers=_offers(sources.frameworks),
        autoscaler=_autoscaler(sources),
        ends_at=sources.ends_at,
        set_aside=_set_aside(sources),
        snapshot=_snapshot(sources, spec.snapshots.interval_s),
        unable=_unable(sources),
        usd_per_hour=cost.usd_per_hour,
        unpriced=cost.unpriced,
        cost=cost,
        outputs=sources.outputs,
        unreachable=sources.unreachable,
    )


def _snapshot(sources: Sources, interval_s: float) -> SnapshotView | None:
    """The newest snapshot; None if S3 was not asked or did not answer."""
    if sources.snapshots is None:
        return None
    newest = max(sources.snapshots, default=None)
    if newest is None:
        return SnapshotView(interval_s=interval_s)
    age_s = max(0.0, sources.at - newest.at)
    return SnapshotView(str(newest), age_s, len(sources.snapshots), interval_s)


class _Bill:
    """Prices of the machines of one view."""

    def __init__(self, spec: ClusterSpec, machines: Sequence[Machine], prices: Prices) -> None:
        self._spec = spec
        self._prices = prices
        self._machines = machines
        costs = cluster_cost.machine_costs(spec, machines, prices)
        names = (machine.instance_id for machine in machines)
        self._costs: dict[str, MachineCost] = dict(zip(names, costs, strict=True))

    def of(self, machine: Machine) -> float | None:
        """The price of a machine that EC2 lists."""
        if machine.state not in BILLED:
            return 0.0
        return self._costs[machine.instance_id].usd_per_hour

    def of_unlisted(
        self, instance_type: str, zone: str, capacity: Capacity, pool: str
    ) -> float | None:
        """The price of an agent that EC2 does not list."""
        machine = cluster_cost.agent_of_pool(self._spec, instance_type, zone, capacity, pool)
        return cluster_cost.machine_cost(machine, self._prices).usd_per_hour

    def total(self, unlisted: Iterable[AgentView]) -> ClusterCost:
        """The cost of the cluster, with agents that EC2 does not list."""
        agents = [
            cluster_cost.agent_of_pool(
                self._spec,
                agent.instance_type,
                agent.zone,
                "spot" if agent.capacity == "spot" else "on-demand",
                agent.pool,
            )
            for agent in unlisted
        ]
        return cluster_cost.cluster_cost(self._spec, self._machines, self._prices, agents)


def _unable(sources: Sources) -> tuple[str, ...]:
    """Why a program cannot do its work; the autoscaler's heartbeat counts if no port answers."""
    heartbeat = sources.heartbeat or {}
    reported = tuple(f"autoscaler: {reason}" for reason in heartbeat.get("reasons", ()))
    return sources.unable or reported


def _set_aside(sources: Sources) -> tuple[SetAside, ...]:
    """The records that were set aside, in ZooKeeper and in S3."""
    heartbeat = sources.heartbeat or {}
    return (*heartbeat.get("set_aside", ()), *sources.objects_set_aside)


def _masters(machines: Iterable[Machine], sources: Sources, bill: _Bill) -> tuple[MasterView, ...]:
    views = [_master(machine, sources, bill) for machine in machines if _role(machine) == "master"]
    return tuple(sorted(views, key=lambda view: (view.zone, view.address)))


def _others(machines: Iterable[Machine], bill: _Bill) -> tuple[MachineView, ...]:
    return tuple(
        MachineView(**_machine(machine, bill), state=machine.state)
        for machine in machines
        if _role(machine) not in {"master", "agent"}
    )


def _role(machine: Machine) -> str:
    return machine.tags.get(Tag.ROLE, "")


def _machine(machine: Machine, bill: _Bill) -> dict[str, Any]:
    return {
        "instance_id": machine.instance_id,
        "address": machine.private_address,
        "public_address": machine.public_address,
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "capacity": machine.capacity,
        "managed_by": machine.tags.get(Tag.MANAGED_BY, "unknown"),
        "usd_per_hour": bill.of(machine),
        "launched_at": machine.launched_at,
    }


def _master(machine: Machine, sources: Sources, bill: _Bill) -> MasterView:
    leads_services = machine.private_address == sources.services_leader
    return MasterView(
        **_machine(machine, bill),
        state=_master_state(machine, sources),
        leads_services=leads_services,
        zookeeper=sources.zookeeper_modes.get(machine.private_address, ""),
    )


def _master_state(machine: Machine, sources: Sources) -> str:
    if machine.state != "running":
        return machine.state
    if machine.private_address == sources.leader:
        return "leading"
    return "standby" if machine.private_address in sources.masters_up else "silent"


def attributes(agent_info: Json) -> dict[str, str]:
    """An agent's text attributes by name."""
    return {
        item["name"]: str(item["text"]["value"])
        for item in agent_info.get("attributes") or ()
        if "text" in item
    }


def _agents(machines: Iterable[Machine], sources: Sources, bill: _Bill) -> tuple[AgentView, ...]:
    """The agents of EC2, and those of the engine whose machine EC2 does not list."""
    registered = _registered(sources.agents)
    recovering = _recovering(sources.agents)
    task_counts = _tasks_by_agent(sources.tasks)
    views = []
    for machine in machines:
        if _role(machine) == "agent":
            fields = _machine(machine, bill) | {"pool": machine.tags.get(Tag.POOL, "")}
            state = _ec2_state(machine, recovering, sources)
            views.append(_agent(fields, state, registered.get(machine.instance_id), task_counts))
    listed = {machine.instance_id for machine in sources.machines or ()}
    for instance_id, agent in registered.items():
        if instance_id not in listed:
            views.append(_agent(_unlisted(agent, bill), "unknown", agent, task_counts))
    return tuple(
        sorted(
            (AgentView(**view) for view in views),
            key=lambda view: (view.pool, view.launched_at, view.instance_id),
        )
    )


def _registered(agents: Json | None) -> dict[str, Json]:
    """The items of GET_AGENTS by instance id."""
    items = (agents or {}).get("agents") or ()
    return {_instance_id(agent["agent_info"]): agent for agent in items}


def _recovering(agents: Json | None) -> set[str]:
    """The instance ids of agents that a new leader waits for."""
    return {_instance_id(info) for info in (agents or {}).get("recovered_agents") or ()}


def _instance_id(agent_info: Json) -> str:
    return attributes(agent_info).get("instance_id") or str(
        agent_info.get("id", {}).get("value", "")
    )


def _ec2_state(machine: Machine, recovering: set[str], sources: Sources) -> str:
    """The state of an agent that the engine does not list."""
    if machine.state != "running":
        return machine.state
    if machine.instance_id in recovering:
        return "recovering"
    return "booting" if sources.agents is not None else "unknown"


def _unlisted(agent: Json, bill: _Bill) -> dict[str, Any]:
    """The machine of an agent that EC2 does not list, from the agent's own attributes."""
    info, facts = agent["agent_info"], attributes(agent["agent_info"])
    capacity: Capacity = "spot" if facts.get("lifecycle") == "spot" else "on-demand"
    instance_type, zone, pool = (facts.get(name, "") for name in ("instance_type", "zone", "pool"))
    return {
        "instance_id": facts.get("instance_id", ""),
        "address": str(info.get("hostname", "")),
        "public_address": "",
        "instance_type": instance_type,
        "zone": zone,
        "capacity": capacity,
        "managed_by": "unknown",
        "usd_per_hour": bill.of_unlisted(instance_type, zone, capacity, pool),
        "launched_at": 0.0,
        "pool": pool,
    }


def _agent(
    machine: dict[str, Any], ec2_state: str, agent: Json | None, running: Mapping[str, int]
) -> dict[str, Any]:
    if agent is None:
        return {**machine, "state": ec2_state, "resources": {"total": {}, "used": {}}}
    agent_id = str(agent["agent_info"]["id"]["value"])
    return {
        **machine,
        "agent_id": agent_id,
        "state": agent_state(agent)
        if ec2_state not in {"shutting-down", "stopping", "stopped"}
        else ec2_state,
        "tasks": running.get(agent_id, 0),
        "records_set_aside": int(agent.get("records_set_aside", 0)),
        "resources": {
            "total": _scalars(agent.get("total_resources")),
            "used": _scalars(agent.get("allocated_resources")),
        },
    }


def agent_state(agent: Json) -> str:
    """The state of an agent in an item of GET_AGENTS."""
    if drain := agent.get("drain_info"):
        return "drained" if drain.get("state") == "DRAINED" else "draining"
    if agent.get("deactivated"):
        return "deactivated"
    return "active" if agent.get("active") else "disconnected"


def _scalars(resources: Iterable[Json] | None) -> dict[str, float]:
    sums: Counter[str] = Counter({"cpus": 0, "mem": 0, "disk": 0})
    for resource in resources or ():
        if scalar := resource.get("scalar"):
            sums[resource["name"]] += round(scalar.get("value", 0.0) * 1000)
    return {name: value / 1000 for name, value in sums.items()}


def _tasks_by_agent(tasks: Json | None) -> dict[str, int]:
    return dict(
        Counter(
            str(task.get("agent_id", {}).get("value", ""))
            for task in (tasks or {}).get("tasks") or ()
        )
    )


def _tasks(tasks: Json | None) -> dict[str, int] | None:
    if tasks is None:
        return None
    counted = Counter(
        str(task.get("state", "")).removeprefix("TASK_").lower()
        for task in tasks.get("tasks") or ()
    )
    unreachable = len(tasks.get("unreachable_tasks") or ())
    shown = {name: counted.pop(name, 0) for name in ("running", "staging", "starting")}
    return {
        "total": sum(shown.values()) + counted.total() + unreachable,
        **shown,
        **counted,
        "unreachable": unreachable,
    }


def _demand(queue: Json | None) -> Demand | None:
    if queue is None:
        return None
    waiting = _waiting_apps(queue)
    return Demand(
        instances=sum(app["instances"] for app in waiting),
        cpus=round(sum(app["cpus"] for app in waiting), 3),
        mem_mib=round(sum(app["mem_mib"] for app in waiting), 3),
        apps=tuple(waiting),
    )


def _waiting_apps(queue: Json) -> list[dict[str, Any]]:
    apps = [_queued_app(item) for item in queue.get("queue") or ()]
    return [app for app in apps if app["instances"]]


def _queued_app(item: Json) -> dict[str, Any]:
    """An item of `/v2/queue` with the resources of all its instances."""
    app = item.get("app") or item.get("pod") or {}
    count = int(item.get("count", 0))
    return {
        "id": app.get("id", ""),
        "instances": count,
        "cpus": float(app.get("cpus", 0)) * count,
        "mem_mib": float(app.get("mem", 0)) * count,
    }


def _offers(frameworks: Json | None) -> dict[str, float] | None:
    """The outstanding offers of all frameworks and their resources."""
    if frameworks is None:
        return None
    outstanding = _items(frameworks.get("frameworks"), "offers")
    sums = _scalars(_items(outstanding, "resources"))
    return {"outstanding": len(outstanding), "cpus": sums["cpus"], "mem_mib": sums["mem"]}


def _items(objects: Iterable[Json] | None, name: str) -> list[Json]:
    """The items of the list `name` of each object."""
    return [item for entry in objects or () for item in entry.get(name) or ()]


def _autoscaler(sources: Sources) -> AutoscalerView:
    if any(item.source == "autoscaler" for item in sources.unreachable):
        return AutoscalerView("unknown")
    if sources.heartbeat is None:
        return AutoscalerView("off", freeze=sources.freeze, overrides=sources.overrides)
    age_s = max(0.0, sources.at - float(sources.heartbeat.get("at", 0.0)))
    state = "frozen" if sources.heartbeat.get("frozen") else "active"
    if age_s > HEARTBEAT_OLD_S:
        state = "silent"
    return AutoscalerView(
        state,
        str(sources.heartbeat.get("address", "")),
        round(age_s, 1),
        sources.freeze,
        sources.overrides,
        _framework_views(sources.heartbeat),
    )


def _framework_views(heartbeat: Json) -> tuple[FrameworkView, ...]:
    """The verdicts on frameworks of the last heartbeat; none of an older autoscaler."""
    known = as_object(as_object(heartbeat.get("planner_state")).get("frameworks"))
    views = [_framework_view(name, as_object(item)) for name, item in known.items()]
    return tuple(sorted(views, key=lambda view: (view.name, view.id)))


def _framework_view(framework_id: str, item: Json) -> FrameworkView:
    return FrameworkView(
        framework_id,
        str(item.get("name", "")),
        str(item.get("state", "unknown")),
        str(item.get("adapter", "")),
        int(item.get("pieces", 0)),
        float(item.get("since", 0.0)),
        tuple(as_object(reason) for reason in as_list(item.get("reasons"))),
    )


def _urls(masters: Sequence[MasterView], sources: Sources, spec: ClusterSpec) -> dict[str, str]:
    """Web pages of the leaders, by the address that the operator's machine reaches."""
    reach = {
        view.address: reachable(view.address, view.public_address, spec.target) for view in masters
    }
    scheme = "https" if spec.tls else "http"
    urls = {}
    for name, port, address in (
        ("engine", 5050, sources.leader),
        ("services", 8080, sources.services_leader),
    ):
        if address is not None:
            urls[name] = f"{scheme}://{reach.get(address, address)}:{port}"
    if sources.heartbeat is not None and (own := str(sources.heartbeat.get("address", ""))):
        host, _, own_port = own.rpartition(":")
        urls["autoscaler"] = f"{scheme}://{reach.get(host, host)}:{own_port}"
    return urls


def reachable(private: str, public: str, target: str) -> str:
    """The address at which the operator's machine reaches a master."""
    return public if target == "aws" and public else private
