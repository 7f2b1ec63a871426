"""Builders with full defaults: a test says only what it is about."""

from __future__ import annotations

from typing import Any

from mesaform.autoscaler.model.cluster_view import Agent, ClusterView, Framework, QueueEntry
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.model.shape import Shape, make, shape_of
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.aws.ports import Machine, Offering
from mesaform.config.schema import ClusterSpec
from mesaform.placement.constraints import Constraint
from mesaform.testing.fake_cloud import SIZES, FakeFleet
from mesaform.topology.capacity import TASK_PORTS
from mesaform.topology.names import Tag

NOW = 1_800_000_000.0
ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")
PORTS = TASK_PORTS[1] - TASK_PORTS[0] + 1


def a_spec(
    *, pools: list[dict[str, Any]] | None = None, usd: float | None = None, **autoscaler: Any
) -> ClusterSpec:
    pool = {
        "name": "default",
        "count": 2,
        "types": ["m5.large", "m5.xlarge", "m5.2xlarge"],
        "max": 20,
    }
    return ClusterSpec.model_validate(
        {
            "name": "toy",
            "agents": [{**pool, **override} for override in pools or [{}]],
            "autoscaler": {
                "interval_s": 2,
                "idle_after_s": 300,
                "boot_timeout_s": 600,
                "drain_grace_s": 10,
                **autoscaler,
            },
            "cost": {} if usd is None else {"max_usd_per_hour": usd},
        }
    )


def offerings(spec: ClusterSpec) -> dict[str, tuple[Offering, ...]]:
    fleet = FakeFleet(lambda: NOW)
    return {
        pool.name: tuple(fleet.offerings(pool.types, spec.zones, pool.disk_gib))
        for pool in spec.agents
    }


def a_machine(
    name: str = "i-1",
    *,
    by: str = "autoscaler",
    pool: str = "default",
    role: str = "agent",
    **fields: Any,
) -> Machine:
    tags = {
        Tag.CLUSTER: "toy",
        Tag.ROLE: role,
        Tag.POOL: pool,
        Tag.MANAGED_BY: by,
        **fields.pop("tags", {}),
    }
    defaults: dict[str, Any] = {
        "instance_type": "m5.large",
        "zone": ZONES[0],
        "capacity": "on-demand",
        "state": "running",
        "private_address": f"127.42.0.{sum(map(ord, name)) % 250}",
        "public_address": "",
        "launched_at": NOW - 5000,
    }
    return Machine(instance_id=name, tags=tags, **{**defaults, **fields})


def a_total(instance_type: str = "m5.large", disk_gib: int = 40) -> Shape:
    from mesaform.topology.capacity import agent_resources

    vcpus, mem_mib = SIZES[instance_type]
    return shape_of(agent_resources(vcpus, mem_mib, disk_gib))


def an_agent(machine: Machine | None = None, **fields: Any) -> Agent:
    machine = machine or a_machine()
    attributes = {
        "instance_id": machine.instance_id,
        "instance_type": machine.instance_type,
        "zone": machine.zone,
        "pool": machine.tags.get(Tag.POOL, ""),
        "lifecycle": machine.capacity,
        **fields.pop("attributes", {}),
    }
    defaults: dict[str, Any] = {
        "agent_id": f"S-{machine.instance_id}",
        "hostname": machine.private_address,
        "total": a_total(machine.instance_type),
    }
    return Agent(attributes=attributes, **{**defaults, **fields})


def queued(
    app: str = "/web", count: int = 1, cpus: float = 1, mem_mib: float = 512, **fields: Any
) -> QueueEntry:
    constraints = tuple(Constraint(*parts) for parts in fields.pop("constraints", ()))
    shape = make(cpus, mem_mib, fields.pop("disk_mib", 0), 0, fields.pop("ports", 0))
    return QueueEntry(app, shape, count, fields.pop("overdue", True), constraints, **fields)


def a_framework(name: str = "batch", **fields: Any) -> Framework:
    return Framework(framework_id=f"F-{name}", name=name, **fields)


def a_snapshot(
    spec: ClusterSpec | None = None,
    *,
    machines: list[Machine] | None = None,
    agents: list[Agent] | None = None,
    queue: list[QueueEntry] | None = None,
    frameworks: list[Framework] | None = None,
    recovered: int = 0,
    **fields: Any,
) -> Snapshot:
    """A cluster of two of Terraform's agents, both full, unless told otherwise."""
    spec = spec or a_spec()
    if machines is None:
        machines = [
            a_machine("i-t1", by="terraform"),
            a_machine("i-t2", by="terraform", zone=ZONES[1]),
        ]
        agents = [full(machine) for machine in machines] if agents is None else agents
    defaults: dict[str, Any] = {
        "cluster": ClusterView(tuple(agents or ()), tuple(frameworks or ()), recovered),
        "queue": tuple(queue or ()),
        "offerings": offerings(spec),
    }
    return Snapshot(spec=spec, machines=tuple(machines), **{**defaults, **fields})


def full(machine: Machine) -> Agent:
    """An agent whose cpus and memory are all taken."""
    total = a_total(machine.instance_type)
    return an_agent(machine, allocated=(total[0], total[1], 0, 0, 0), tasks=1)


def a_reason(text: str = "test") -> Reason:
    """A reason where a test needs one and which one does not matter."""
    return Reason.of(ReasonCode.TEXT, text=text)
