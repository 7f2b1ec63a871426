"""What machines and a cluster cost, all parts counted: the one price function of every verb. Pure.

A machine costs its instance, its disks, its public IPv4 address, surplus credits of a T type and
the traffic between zones that it causes. A cluster costs its machines, the requests to S3 and SQS
and what its network has by the hour. Traffic, credits and requests are estimates, marked as such.
The traffic of tasks with each other and with the internet is in no estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from mesaform.aws.pricing.prices import Prices
from mesaform.aws.pricing.rates import (
    HOSTED_ZONE_USD_PER_MONTH,
    HOURS_PER_MONTH,
    VOLUME_TYPE,
    Rates,
)
from mesaform.topology.burstable import baseline_share
from mesaform.topology.hourly_items import ItemKind, hourly_items
from mesaform.topology.names import Tag

if TYPE_CHECKING:
    from mesaform.aws.ports import Capacity
    from mesaform.config.schema import ClusterSpec, Pool

DIGITS = 9

KIB_PER_AGENT_AND_PASS = 0.6
"""Compressed answers of the engine's leader about an agent with 30 tasks, for one pass.

The list of tasks is read every 30 s, its changes arrive as events (`benchmarks/running_cost.py`).
"""

AWAY_SHARE = 2 / 3
"""Share of time that the leaders of engine and autoscaler are in different ones of three zones."""

GETS_PER_PASS = 2.2
"""S3 GETs of a pass of the autoscaler: freeze and overrides; their old names every 30 s."""

PUTS_PER_HOUR = 360 + 190
"""S3 PUTs an hour: a heartbeat every 10 s; ledger rows and their merging."""

QUEUE_REQUESTS_PER_HOUR = 180
"""Long polls of 20 s."""

T_VCPUS: Mapping[str, int] = {"xlarge": 4, "2xlarge": 8}
"""vCPUs of T types by size; 2 where absent."""

MASTER_LOAD = (0.1, 0.001)
"""vCPUs that the leading master's programs use: at rest, and more for each agent.

docs/measurements.md: a pass with 1,000 agents takes 0.3 s every 2 s, DescribeInstances and the
engine as much again.
"""


class CostKind(StrEnum):
    """The parts of a cluster's cost."""

    INSTANCES = "instances"
    VOLUMES = "disks"
    ADDRESSES = "public IPv4"
    CREDITS = "T credits"
    TRAFFIC = "traffic between zones"
    REQUESTS = "S3 and SQS requests"
    NETWORK = "network"


ESTIMATES = frozenset({CostKind.CREDITS, CostKind.TRAFFIC, CostKind.REQUESTS})


@dataclass(frozen=True, slots=True)
class PricedMachine:
    """What a machine's price depends on.

    `agents` is for masters: how many agents they lead. Agents of T types use what they offer: their
    baseline, or with `has_burst` all vCPUs (`topology.burstable`). `task_gib_per_cpu_hour` is what
    tasks send to other zones.
    """

    instance_type: str
    zone: str
    capacity: Capacity
    is_agent: bool
    volumes_gib: tuple[float, ...]
    has_address: bool = True
    passes_per_hour: float = 1800.0
    agents: int = 0
    has_burst: bool = False
    task_gib_per_cpu_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class MachineCost:
    """The parts of a machine's price in USD per hour; `instance` is None if it is not known."""

    instance: float | None
    volumes: float
    address: float
    credits: float
    traffic: float

    @property
    def usd_per_hour(self) -> float | None:
        """The price of the machine with all its parts; None if the instance has no price."""
        if self.instance is None:
            return None
        return round(self.instance + self.extras, DIGITS)

    @property
    def without_volumes(self) -> float | None:
        """The price of the machine without its disks."""
        usd = self.usd_per_hour
        return None if usd is None else round(usd - self.volumes, DIGITS)

    @property
    def extras(self) -> float:
        """What the machine costs besides the instance."""
        return self.volumes + self.address + self.credits + self.traffic


@dataclass(frozen=True, slots=True)
class CostItem:
    """A part of a cluster's cost. `what` says of what, such as `5 machines`."""

    kind: CostKind
    what: str
    usd_per_hour: float

    @property
    def is_estimate(self) -> bool:
        """Whether the price depends on use that is estimated."""
        return self.kind in ESTIMATES

    @property
    def usd_per_month(self) -> float:
        return self.usd_per_hour * HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class ClusterCost:
    """The cost of a cluster by parts. `unpriced` are types without a known price."""

    items: tuple[CostItem, ...]
    unpriced: tuple[str, ...] = ()

    @property
    def usd_per_hour(self) -> float:
        return round(sum(item.usd_per_hour for item in self.items), 6)

    @property
    def usd_per_month(self) -> float:
        return round(self.usd_per_hour * HOURS_PER_MONTH, 2)

    @property
    def standing_usd_per_hour(self) -> float:
        """What the cluster costs besides its machines."""
        standing = (CostKind.REQUESTS, CostKind.NETWORK)
        return round(sum(item.usd_per_hour for item in self.items if item.kind in standing), DIGITS)

    def as_json(self) -> dict[str, object]:
        """As plain JSON values."""
        return {
            "usd_per_hour": self.usd_per_hour,
            "usd_per_month": self.usd_per_month,
            "items": [
                {
                    "kind": str(item.kind),
                    "what": item.what,
                    "usd_per_hour": round(item.usd_per_hour, DIGITS),
                    "is_estimate": item.is_estimate,
                }
                for item in self.items
            ],
            "unpriced": list(self.unpriced),
        }


BILLED = frozenset({"pending", "running"})
"""EC2's states of machines that are paid for."""


class ListedMachine(Protocol):
    """The fields of a machine as EC2 lists it (`ports.Machine`) that its price depends on."""

    @property
    def instance_type(self) -> str: ...
    @property
    def zone(self) -> str: ...
    @property
    def capacity(self) -> Capacity: ...
    @property
    def state(self) -> str: ...
    @property
    def tags(self) -> Mapping[str, str]: ...


def machine_cost(machine: PricedMachine, prices: Prices) -> MachineCost:
    """What a machine costs."""
    instance = prices.instance(machine.instance_type, machine.zone, machine.capacity)
    return MachineCost(instance, **_extras(machine, prices.rates))


def extras_usd_per_hour(machine: PricedMachine, rates: Rates) -> float:
    """What a machine costs besides the instance."""
    return sum(_extras(machine, rates).values())


def _extras(machine: PricedMachine, rates: Rates) -> dict[str, float]:
    volumes = (rates.volume_usd_per_hour(VOLUME_TYPE, gib) or 0.0 for gib in machine.volumes_gib)
    return {
        "volumes": sum(volumes),
        "address": rates.address_usd_per_hour if machine.has_address else 0.0,
        "credits": surplus_usd_per_hour(machine.instance_type, rates, _load(machine)),
        "traffic": _traffic(machine, rates),
    }


def _load(machine: PricedMachine) -> float | None:
    """How many vCPUs are used; None for all of them."""
    if not machine.is_agent:
        return master_load(machine.agents)
    return None if machine.has_burst else 0.0


def master_load(agents: int) -> float:
    """How many vCPUs the programs of a leading master use."""
    at_rest, per_agent = MASTER_LOAD
    return at_rest + per_agent * agents


def surplus_usd_per_hour(
    instance_type: str, rates: Rates, used_vcpus: float | None = None
) -> float:
    """USD an hour of surplus credits of a T type; 0 for others.

    `used_vcpus` None stands for all of them.
    """
    family, _, size = instance_type.partition(".")
    baseline, credit_usd = baseline_share(instance_type), rates.credit_usd.get(family, 0.0)
    if baseline == 1 or not credit_usd:
        return 0.0
    vcpus = T_VCPUS.get(size, 2)
    used = vcpus if used_vcpus is None else min(used_vcpus, vcpus)
    return max(0.0, used - vcpus * baseline) * credit_usd


def _traffic(machine: PricedMachine, rates: Rates) -> float:
    """What an agent's traffic between zones costs: a GiB is billed at both ends.

    It is the autoscaler's reading of the engine, and what tasks send.
    """
    if not machine.is_agent:
        return 0.0
    read_gib_per_hour = machine.passes_per_hour * KIB_PER_AGENT_AND_PASS / 2**20 * AWAY_SHARE
    share = 1.0 if machine.has_burst else baseline_share(machine.instance_type)
    cpus = vcpus_by_name(machine.instance_type) * share
    sent_gib_per_hour = machine.task_gib_per_cpu_hour * cpus
    return (read_gib_per_hour + sent_gib_per_hour) * 2 * rates.zone_usd_per_gib


def vcpus_by_name(instance_type: str) -> float:
    """The vCPUs that a type's name tells: 2 of a `large`. For estimates only."""
    family, _, size = instance_type.partition(".")
    if size.endswith("xlarge"):
        times = size.removesuffix("xlarge")
        return 4.0 * (int(times) if times.isdecimal() else 1)
    return 1.0 if size == "medium" and not family.startswith("t") else 2.0


def _task_gib_to_other_zones(spec: ClusterSpec) -> float:
    """What tasks send to other zones for a cpu in an hour, if they send to all zones alike."""
    zones = max(1, len(spec.zones))
    return spec.cost.task_gib_per_cpu_hour * (zones - 1) / zones


def has_public_addresses(spec: ClusterSpec) -> bool:
    """Whether each machine has a public IPv4 address."""
    return spec.network.mode == "public"


def priced_agent(
    spec: ClusterSpec, instance_type: str, zone: str, capacity: Capacity, pool: Pool
) -> PricedMachine:
    """An agent of a pool."""
    return PricedMachine(
        instance_type,
        zone,
        capacity,
        is_agent=True,
        volumes_gib=(pool.disk_gib,),
        has_address=has_public_addresses(spec),
        passes_per_hour=3600 / spec.autoscaler.interval_s,
        has_burst=pool.burst,
        task_gib_per_cpu_hour=_task_gib_to_other_zones(spec),
    )


def priced_master(spec: ClusterSpec, instance_type: str, zone: str, agents: int) -> PricedMachine:
    """A master that leads so many agents."""
    return PricedMachine(
        instance_type,
        zone,
        "on-demand",
        is_agent=False,
        volumes_gib=master_volumes_gib(spec),
        has_address=has_public_addresses(spec),
        agents=agents,
    )


def master_volumes_gib(spec: ClusterSpec) -> tuple[float, ...]:
    """Sizes of a master's disk and of its data volume."""
    return (spec.masters.disk_gib, spec.masters.data_volume.size_gib)


def priced(spec: ClusterSpec, machine: ListedMachine, agents: int) -> PricedMachine:
    """A machine as EC2 lists it; disks are as the spec says."""
    if machine.tags.get(Tag.ROLE) == "master":
        return priced_master(spec, machine.instance_type, machine.zone, agents)
    pool = machine.tags.get(Tag.POOL, "")
    return agent_of_pool(spec, machine.instance_type, machine.zone, machine.capacity, pool)


def agent_of_pool(
    spec: ClusterSpec, instance_type: str, zone: str, capacity: Capacity, pool: str
) -> PricedMachine:
    """An agent of a pool; of a pool that the spec lacks, with the first pool's settings."""
    own = next((item for item in spec.agents if item.name == pool), spec.agents[0])
    return priced_agent(spec, instance_type, zone, capacity, own)


def billed_agents(machines: Iterable[ListedMachine]) -> int:
    """How many of the machines are agents that EC2 bills."""
    return sum(
        1
        for machine in machines
        if machine.state in BILLED and machine.tags.get(Tag.ROLE) == "agent"
    )


def machine_costs(
    spec: ClusterSpec, machines: Sequence[ListedMachine], prices: Prices
) -> list[MachineCost]:
    """The cost of each machine while it is billed."""
    agents = billed_agents(machines)
    keys = [priced(spec, machine, agents) for machine in machines]
    known = {key: machine_cost(key, prices) for key in dict.fromkeys(keys)}
    return [known[key] for key in keys]


def cluster_cost(
    spec: ClusterSpec,
    machines: Sequence[ListedMachine],
    prices: Prices,
    unlisted: Sequence[PricedMachine] = (),
) -> ClusterCost:
    """What a cluster costs with these machines; those that EC2 does not bill are left out.

    `unlisted` are machines that EC2 does not list yet.
    """
    agents = billed_agents(machines)
    billed = [priced(spec, machine, agents) for machine in machines if machine.state in BILLED]
    return cost_of([*billed, *unlisted], spec, prices)


def planned_cost(spec: ClusterSpec, prices: Prices) -> ClusterCost:
    """What a cluster costs as `up` makes it: its masters, and `count` agents of each pool."""
    return cost_of(planned_machines(spec), spec, prices)


def planned_machines(spec: ClusterSpec) -> list[PricedMachine]:
    """The machines of a new cluster, masters first."""
    agents = sum(pool.count for pool in spec.agents)
    zones = spec.zones
    masters = [
        priced_master(spec, spec.masters.type, zones[number % len(zones)], agents)
        for number in range(spec.masters.count)
    ]
    return masters + [machine for pool in spec.agents for machine in pool_machines(spec, pool)]


def pool_machines(spec: ClusterSpec, pool: Pool) -> list[PricedMachine]:
    """The machines that a pool begins with."""
    zones = spec.zones
    return [
        priced_agent(spec, pool.types[0], zones[number % len(zones)], "on-demand", pool)
        for number in range(pool.count)
    ]


def cost_of(machines: Sequence[PricedMachine], spec: ClusterSpec, prices: Prices) -> ClusterCost:
    """What a cluster of these machines costs."""
    if not machines:
        return ClusterCost(())
    costs = [machine_cost(machine, prices) for machine in machines]
    gib = sum(sum(machine.volumes_gib) for machine in machines)
    addresses = sum(machine.has_address for machine in machines)
    agents = sum(machine.is_agent for machine in machines)
    items = [
        CostItem(CostKind.INSTANCES, f"{len(machines)} machines", _sum(costs, "instance")),
        CostItem(CostKind.VOLUMES, f"{gib:g} GiB {VOLUME_TYPE}", _sum(costs, "volumes")),
        CostItem(CostKind.ADDRESSES, f"{addresses} addresses", _sum(costs, "address")),
        CostItem(CostKind.CREDITS, "surplus of T types", _sum(costs, "credits")),
        CostItem(CostKind.TRAFFIC, f"{agents} agents", _sum(costs, "traffic")),
        *standing_items(spec, prices.rates),
    ]
    unpriced = {
        machine.instance_type
        for machine, cost in zip(machines, costs, strict=True)
        if cost.instance is None
    }
    return ClusterCost(tuple(items), tuple(sorted(unpriced - {""})))


def standing_items(spec: ClusterSpec, rates: Rates) -> tuple[CostItem, ...]:
    """What the cluster costs besides its machines."""
    passes = 3600 / spec.autoscaler.interval_s
    usd = (
        passes * GETS_PER_PASS * rates.get_usd
        + PUTS_PER_HOUR * rates.put_usd
        + QUEUE_REQUESTS_PER_HOUR * rates.queue_usd
    )
    requests = CostItem(CostKind.REQUESTS, f"a pass every {spec.autoscaler.interval_s:g} s", usd)
    network = (
        CostItem(
            CostKind.NETWORK,
            f"{item.count} {item.kind} {item.purpose}".rstrip(),
            price * item.count,
        )
        for item in hourly_items(spec)
        if (price := hourly_rate(item.kind, rates))
    )
    return (requests, *network)


def hourly_rate(kind: ItemKind, rates: Rates) -> float:
    """USD an hour of an item of the network."""
    match kind:
        case "address":
            return rates.address_usd_per_hour
        case "NAT gateway":
            return rates.nat_gateway_usd_per_hour
        case "interface endpoint":
            return rates.endpoint_usd_per_hour
        case "load balancer":
            return rates.load_balancer_usd_per_hour
        case "private hosted zone":
            return HOSTED_ZONE_USD_PER_MONTH / HOURS_PER_MONTH


def _sum(costs: Iterable[MachineCost], part: str) -> float:
    return sum(getattr(cost, part) or 0.0 for cost in costs)
