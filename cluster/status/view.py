"""The join: what each source said, in; one picture of the cluster, out. Pure.

Sources may be missing: what is left is still the truth, and `unreachable` says what is not known. EC2 decides which machines
exist; the engine decides what an agent is doing; agents are joined to instances by their attribute `instance_id`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mesaform.aws.ports import Capacity, Machine
from mesaform.aws.pricing.price_book import usd_per_hour
from mesaform.topology.names import Tag

GONE = frozenset({"terminated"})
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A source that did not answer, and why."""

    source: str
    why: str


@dataclass(frozen=True, slots=True)
class Sources:
    """What was heard. None is "did not answer"; `at` is seconds since the epoch.

    `overrides` are operators' overrides in force, in words.
    `masters_up` and `services_up` are the private addresses whose 5050 and 8080 answer; `leader` and `services_leader` are among them.
    `agents`, `tasks` and `frameworks` are the bodies of GET_AGENTS, GET_TASKS and GET_FRAMEWORKS, `queue` is that of /v2/queue.
    """

    at: float
    machines: Sequence[Machine] | None = None
    leader: str | None = None
    masters_up: frozenset[str] = frozenset()
    agents: Json | None = None
    tasks: Json | None = None
    frameworks: Json | None = None
    services_leader: str | None = None
    services_up: frozenset[str] = frozenset()
    queue: Json | None = None
    heartbeat: Json | None = None
    freeze: str | None = None
    overrides: tuple[str, ...] = ()
    outputs: Json | None = None
    unreachable: tuple[Unreachable, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineView:
    """What every machine has. `usd_per_hour` is None where no price is known."""

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
    """`state` is leading, standby, silent (running, but 5050 does not answer), or EC2's."""

    leads_services: bool = False


@dataclass(frozen=True, slots=True)
class AgentView(MachineView):
    """`state` is active, deactivated, draining, drained, disconnected, recovering, booting (not registered yet), unknown, or EC2's."""

    agent_id: str = ""
    pool: str = ""
    tasks: int = 0
    resources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demand:
    """Work that waits for offers: instances by app and what they ask for together; cpus in cores, memory in MiB."""

    instances: int = 0
    cpus: float = 0.0
    mem_mib: float = 0.0
    apps: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class AutoscalerView:
    """`state` is active, frozen, silent (its last heartbeat is old), off (no heartbeat) or unknown."""

    state: str
    address: str = ""
    heartbeat_age_s: float | None = None
    freeze: str | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """One picture. `leader` is the leading master's private address; `usd_per_hour` is the sum over every machine with a known price."""

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
    usd_per_hour: float
    unpriced: tuple[str, ...]
    outputs: Json | None
    unreachable: tuple[Unreachable, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether there is no sign of the cluster at all, as far as EC2 was asked and answered."""
        return not (self.masters or self.agents or self.others or self.leader) and "EC2" not in {
            u.source for u in self.unreachable
        }

    def as_json(self) -> dict[str, Any]:
        """The whole as plain JSON values."""
        return asdict(self)


def join(cluster: str, *, target: str, region: str, engine: str, sources: Sources) -> Status:
    """Everything heard, as one picture."""
    machines = [machine for machine in sources.machines or () if machine.state not in GONE]
    masters = tuple(
        sorted(
            (_master(m, sources) for m in machines if _role(m) == "master"),
            key=lambda view: (view.zone, view.address),
        )
    )
    agents = tuple(
        sorted(
            _agents(machines, sources),
            key=lambda view: (view.pool, view.launched_at, view.instance_id),
        )
    )
    others = tuple(
        MachineView(**_machine(m), state=m.state)
        for m in machines
        if _role(m) not in {"master", "agent"}
    )
    every: tuple[MachineView, ...] = (*masters, *agents, *others)
    return Status(
        cluster=cluster,
        target=target,
        region=region,
        engine=engine,
        at=sources.at,
        leader=sources.leader,
        urls=_urls(masters, sources, target),
        masters=masters,
        agents=agents,
        others=others,
        tasks=_tasks(sources.tasks),
        demand=_demand(sources.queue),
        offers=_offers(sources.frameworks),
        autoscaler=_autoscaler(sources),
        usd_per_hour=round(sum(view.usd_per_hour or 0.0 for view in every), 6),
        unpriced=tuple(
            sorted(
                {
                    view.instance_type
                    for view in every
                    if view.usd_per_hour is None and view.instance_type
                }
            )
        ),
        outputs=sources.outputs,
        unreachable=sources.unreachable,
    )


def _role(machine: Machine) -> str:
    return machine.tags.get(Tag.ROLE, "")


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "instance_id": machine.instance_id,
        "address": machine.private_address,
        "public_address": machine.public_address,
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "capacity": machine.capacity,
        "managed_by": machine.tags.get(Tag.MANAGED_BY, "unknown"),
        "usd_per_hour": usd_per_hour(machine.instance_type, machine.capacity),
        "launched_at": machine.launched_at,
    }


def _master(machine: Machine, sources: Sources) -> MasterView:
    address = machine.private_address
    state: str = machine.state
    if state == "running":
        state = (
            "leading"
            if address == sources.leader
            else "standby"
            if address in sources.masters_up
            else "silent"
        )
    return MasterView(
        **_machine(machine), state=state, leads_services=address == sources.services_leader
    )


def attributes(agent_info: Json) -> dict[str, str]:
    """An agent's text attributes by name."""
    return {
        item["name"]: str(item["text"]["value"])
        for item in agent_info.get("attributes") or ()
        if "text" in item
    }


def _agents(machines: Iterable[Machine], sources: Sources) -> list[AgentView]:
    registered = {
        _instance_id(agent["agent_info"]): agent
        for agent in (sources.agents or {}).get("agents") or ()
    }
    recovering = {
        _instance_id(info) for info in (sources.agents or {}).get("recovered_agents") or ()
    }
    running = _tasks_by_agent(sources.tasks)
    views = [
        _agent(
            _machine(machine),
            _ec2_state(machine, recovering, sources),
            registered.pop(machine.instance_id, None),
            running,
        )
        | {"pool": machine.tags.get(Tag.POOL, "")}
        for machine in machines
        if _role(machine) == "agent"
    ]
    known = {machine.instance_id for machine in sources.machines or ()}
    strangers = [agent for instance_id, agent in registered.items() if instance_id not in known]
    views += [_agent(_stranger(agent), "unknown", agent, running) for agent in strangers]
    return [AgentView(**view) for view in views]


def _instance_id(agent_info: Json) -> str:
    return attributes(agent_info).get("instance_id") or str(
        agent_info.get("id", {}).get("value", "")
    )


def _ec2_state(machine: Machine, recovering: set[str], sources: Sources) -> str:
    """What an agent that the engine does not list is doing."""
    if machine.state != "running":
        return machine.state
    if machine.instance_id in recovering:
        return "recovering"
    return "booting" if sources.agents is not None else "unknown"


def _stranger(agent: Json) -> dict[str, Any]:
    """An agent of the engine whose machine EC2 does not list (or EC2 did not answer): what it says of itself."""
    info, told = agent["agent_info"], attributes(agent["agent_info"])
    capacity: Capacity = "spot" if told.get("lifecycle") == "spot" else "on-demand"
    return {
        "instance_id": told.get("instance_id", ""),
        "address": str(info.get("hostname", "")),
        "public_address": "",
        "instance_type": told.get("instance_type", ""),
        "zone": told.get("zone", ""),
        "capacity": capacity,
        "managed_by": "unknown",
        "usd_per_hour": usd_per_hour(told.get("instance_type", ""), capacity),
        "launched_at": 0.0,
        "pool": told.get("pool", ""),
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
        "resources": {
            "total": _scalars(agent.get("total_resources")),
            "used": _scalars(agent.get("allocated_resources")),
        },
    }


def agent_state(agent: Json) -> str:
    """What the engine says of an agent that it lists."""
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
    known = {
        "running": counted.pop("running", 0),
        "staging": counted.pop("staging", 0),
        "starting": counted.pop("starting", 0),
    }
    return {
        "total": sum(known.values()) + counted.total() + unreachable,
        **known,
        **counted,
        "unreachable": unreachable,
    }


def _demand(queue: Json | None) -> Demand | None:
    if queue is None:
        return None
    apps = []
    for item in queue.get("queue") or ():
        app = item.get("app") or item.get("pod") or {}
        count = int(item.get("count", 0))
        apps.append(
            {
                "id": app.get("id", ""),
                "instances": count,
                "cpus": float(app.get("cpus", 0)) * count,
                "mem_mib": float(app.get("mem", 0)) * count,
            }
        )
    waiting = [app for app in apps if app["instances"]]
    return Demand(
        instances=sum(app["instances"] for app in waiting),
        cpus=round(sum(app["cpus"] for app in waiting), 3),
        mem_mib=round(sum(app["mem_mib"] for app in waiting), 3),
        apps=tuple(waiting),
    )


def _offers(frameworks: Json | None) -> dict[str, float] | None:
    if frameworks is None:
        return None
    out = [
        offer
        for framework in frameworks.get("frameworks") or ()
        for offer in framework.get("offers") or ()
    ]
    sums = _scalars(resource for offer in out for resource in offer.get("resources") or ())
    return {"outstanding": len(out), "cpus": sums["cpus"], "mem_mib": sums["mem"]}


def _autoscaler(sources: Sources) -> AutoscalerView:
    if any(item.source == "autoscaler" for item in sources.unreachable):
        return AutoscalerView("unknown")
    if sources.heartbeat is None:
        return AutoscalerView("off", freeze=sources.freeze, overrides=sources.overrides)
    age_s = max(0.0, sources.at - float(sources.heartbeat.get("at", 0.0)))
    state = (
        "silent"
        if age_s > HEARTBEAT_OLD_S
        else "frozen"
        if sources.heartbeat.get("frozen")
        else "active"
    )
    return AutoscalerView(
        state,
        str(sources.heartbeat.get("address", "")),
        round(age_s, 1),
        sources.freeze,
        sources.overrides,
    )


HEARTBEAT_OLD_S = 30.0  # the autoscaler writes one with each pass: every few seconds


def _urls(masters: Sequence[MasterView], sources: Sources, target: str) -> dict[str, str]:
    """Where a person points a browser: the leaders, by the address that the operator's machine reaches."""
    reach = {view.address: reachable(view.address, view.public_address, target) for view in masters}
    urls = {}
    for name, port, address in (
        ("engine", 5050, sources.leader),
        ("services", 8080, sources.services_leader),
    ):
        if address is not None:
            urls[name] = f"http://{reach.get(address, address)}:{port}"
    if sources.heartbeat is not None and (told := str(sources.heartbeat.get("address", ""))):
        host, _, own_port = told.rpartition(":")
        urls["autoscaler"] = f"http://{reach.get(host, host)}:{own_port}"
    return urls


def reachable(private: str, public: str, target: str) -> str:
    """The address at which the operator's machine reaches a master."""
    return public if target == "aws" and public else private
