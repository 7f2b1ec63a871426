"""The v1 messages of Mesos as frozen structs, and their conversion to resource vectors.

The JSON of each struct is the JSON on the wire. Shapes are from include/mesos/v1/mesos.proto of
Apache Mesos. Every nested message is typed; unknown fields are ignored when a message is decoded,
as in Mesos. Durations, sizes and times keep the protocol's own units, which are in each name.
Depends on `values`, `containers` and `common.resources`.
"""

# ruff: noqa: RUF012  (msgspec copies mutable defaults)

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from mesaform.common.resources import Range, Resources
from mesaform.mesos.containers import (
    ContainerInfo,
    ContainerStatus,
    IpProtocol,
    Secret,
    Volume,
)
from mesaform.mesos.values import (
    AgentPort,
    DurationInfo,
    Id,
    Int32,
    ItemSet,
    Label,
    Labels,
    Message,
    Name,
    Parameter,
    Port,
    PortRange,
    Ranges,
    RequiredText,
    Scalar,
    Seconds,
    SignedScalar,
    SignedSeconds,
    Text,
    TimeInfo,
    UInt32,
    ident,
    one_of,
)

__all__ = [  # the names of `values` that users of these messages import from here
    "DurationInfo",
    "Id",
    "ItemSet",
    "Label",
    "Labels",
    "Message",
    "PortRange",
    "Ranges",
    "Scalar",
    "Text",
    "TimeInfo",
    "ident",
]

ValueType = Literal["SCALAR", "RANGES", "SET", "TEXT"]


# --- resources and attributes


class AllocationInfo(Message, frozen=True, kw_only=True):
    role: str | None = None


class ReservationInfo(Message, frozen=True, kw_only=True):
    type: Literal["UNKNOWN", "STATIC", "DYNAMIC"] | None = None
    role: str | None = None
    principal: str | None = None
    labels: Labels | None = None


class Persistence(Message, frozen=True, kw_only=True):
    id: str
    principal: str | None = None


class DiskPath(Message, frozen=True, kw_only=True):
    root: str | None = None


DiskSourceType = Literal["UNKNOWN", "PATH", "MOUNT", "BLOCK", "RAW"]


class DiskSource(Message, frozen=True, kw_only=True):
    type: DiskSourceType
    path: DiskPath | None = None
    mount: DiskPath | None = None
    vendor: str | None = None
    id: str | None = None
    metadata: Labels | None = None
    profile: str | None = None


class DiskInfo(Message, frozen=True, kw_only=True):
    persistence: Persistence | None = None
    volume: Volume | None = None
    source: DiskSource | None = None


class Revocable(Message, frozen=True, kw_only=True):
    """Present on a resource that the master may take back."""


class Shared(Message, frozen=True, kw_only=True):
    """Present on a resource that several tasks may use at the same time."""


class Resource(Message, frozen=True, kw_only=True):
    """One named resource. `type` names the value that is set."""

    name: Name
    type: ValueType
    scalar: Scalar | None = None
    ranges: Ranges | None = None
    set: ItemSet | None = None
    role: str | None = None
    allocation_info: AllocationInfo | None = None
    provider_id: Id | None = None
    reservation: ReservationInfo | None = None
    reservations: list[ReservationInfo] = []
    disk: DiskInfo | None = None
    revocable: Revocable | None = None
    shared: Shared | None = None


class Attribute(Message, frozen=True, kw_only=True):
    name: Name
    type: ValueType
    text: Text | None = None
    scalar: SignedScalar | None = None
    ranges: Ranges | None = None
    set: ItemSet | None = None


# --- commands, checks and tasks


class EnvVariable(Message, frozen=True, kw_only=True):
    """A variable; `type` is VALUE when it is absent."""

    name: str
    value: str | None = None
    type: Literal["UNKNOWN", "VALUE", "SECRET"] | None = None
    secret: Secret | None = None


class Environment(Message, frozen=True, kw_only=True):
    variables: list[EnvVariable] = []


class Uri(Message, frozen=True, kw_only=True):
    value: str
    executable: bool | None = None
    extract: bool | None = None
    cache: bool | None = None
    output_file: str | None = None


class CommandInfo(Message, frozen=True, kw_only=True):
    """What a task runs.

    With `shell` (the default) `value` runs under `/bin/sh -c`. Without it, `value` is the program
    and `arguments` is its whole argv.
    """

    value: str | None = None
    shell: bool | None = None
    arguments: list[str] = []
    user: str | None = None
    uris: list[Uri] = []
    environment: Environment | None = None


CheckType = Literal["UNKNOWN", "COMMAND", "HTTP", "TCP"]


class CheckCommand(Message, frozen=True, kw_only=True):
    command: CommandInfo


class CheckHttp(Message, frozen=True, kw_only=True):
    port: Port
    path: str | None = None


class CheckTcp(Message, frozen=True, kw_only=True):
    port: Port


class CheckInfo(Message, frozen=True, kw_only=True):
    """A check that is only reported. `type` names the field that is set."""

    type: CheckType | None = None
    command: CheckCommand | None = None
    http: CheckHttp | None = None
    tcp: CheckTcp | None = None
    delay_seconds: Seconds | None = None
    interval_seconds: Seconds | None = None
    timeout_seconds: Seconds | None = None


class HttpCheckInfo(Message, frozen=True, kw_only=True):
    protocol: IpProtocol | None = None
    scheme: str | None = None
    port: Port
    path: str | None = None
    statuses: list[UInt32] = []


class TcpCheckInfo(Message, frozen=True, kw_only=True):
    protocol: IpProtocol | None = None
    port: Port


class HealthCheck(Message, frozen=True, kw_only=True):
    """A check whose repeated failure ends the task. `type` names the field that is set."""

    type: CheckType | None = None
    command: CommandInfo | None = None
    http: HttpCheckInfo | None = None
    tcp: TcpCheckInfo | None = None
    delay_seconds: Seconds | None = None
    interval_seconds: Seconds | None = None
    timeout_seconds: Seconds | None = None
    consecutive_failures: UInt32 | None = None
    grace_period_seconds: Seconds | None = None


class KillPolicy(Message, frozen=True, kw_only=True):
    grace_period: DurationInfo | None = None


Visibility = Literal["FRAMEWORK", "CLUSTER", "EXTERNAL"]


class DiscoveryPort(Message, frozen=True, kw_only=True):
    number: UInt32
    name: str | None = None
    protocol: str | None = None
    visibility: Visibility | None = None
    labels: Labels | None = None


class DiscoveryPorts(Message, frozen=True, kw_only=True):
    ports: list[DiscoveryPort] = []


class DiscoveryInfo(Message, frozen=True, kw_only=True):
    """How a task wants to be found. Mesos only shows it."""

    visibility: Visibility
    name: str | None = None
    environment: str | None = None
    location: str | None = None
    version: str | None = None
    ports: DiscoveryPorts | None = None
    labels: Labels | None = None


class ExecutorInfo(Message, frozen=True, kw_only=True):
    type: Literal["UNKNOWN", "DEFAULT", "CUSTOM"] | None = None
    executor_id: Id
    framework_id: Id | None = None
    command: CommandInfo | None = None
    container: ContainerInfo | None = None
    resources: list[Resource] = []
    name: str | None = None
    source: str | None = None
    data: bytes | None = None
    discovery: DiscoveryInfo | None = None
    shutdown_grace_period: DurationInfo | None = None
    labels: Labels | None = None


class TaskInfo(Message, frozen=True, kw_only=True):
    name: RequiredText = ""
    task_id: Id
    agent_id: Id
    resources: list[Resource] = []
    command: CommandInfo | None = None
    executor: ExecutorInfo | None = None
    container: ContainerInfo | None = None
    health_check: HealthCheck | None = None
    check: CheckInfo | None = None
    kill_policy: KillPolicy | None = None
    data: bytes | None = None
    labels: Labels | None = None
    discovery: DiscoveryInfo | None = None
    max_completion_time: DurationInfo | None = None
    limits: dict[str, Scalar] = {}


TaskState = Annotated[str, one_of(
    "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_FINISHED",
    "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_DROPPED", "TASK_UNREACHABLE",
    "TASK_GONE", "TASK_GONE_BY_OPERATOR", "TASK_UNKNOWN",
)]  # fmt: skip


StatusSource = Annotated[str, one_of("SOURCE_MASTER", "SOURCE_AGENT", "SOURCE_EXECUTOR")]


class CommandStatus(Message, frozen=True, kw_only=True):
    exit_code: Int32 | None = None


class HttpStatus(Message, frozen=True, kw_only=True):
    status_code: UInt32 | None = None


class TcpStatus(Message, frozen=True, kw_only=True):
    succeeded: bool | None = None


class CheckStatusInfo(Message, frozen=True, kw_only=True):
    """The result of a task's check; `type` names the field that is set."""

    type: CheckType | None = None
    command: CommandStatus | None = None
    http: HttpStatus | None = None
    tcp: TcpStatus | None = None


class TaskResourceLimitation(Message, frozen=True, kw_only=True):
    """The resources whose limit a task exceeded."""

    resources: list[Resource] = []


class TaskStatus(Message, frozen=True, kw_only=True):
    """A task's status.

    `uuid` is present exactly when the update must be acknowledged. `timestamp` is in seconds since
    the epoch.
    """

    task_id: Id
    state: TaskState
    message: str | None = None
    source: StatusSource | None = None
    reason: str | None = None
    data: bytes | None = None
    agent_id: Id | None = None
    executor_id: Id | None = None
    timestamp: float | None = None
    uuid: bytes | None = None
    healthy: bool | None = None
    check_status: CheckStatusInfo | None = None
    labels: Labels | None = None
    container_status: ContainerStatus | None = None
    unreachable_time: TimeInfo | None = None
    limitation: TaskResourceLimitation | None = None


# --- frameworks, agents and offers


class ResourceQuantities(Message, frozen=True, kw_only=True):
    quantities: dict[str, Scalar] = {}


class MinAllocatableResources(Message, frozen=True, kw_only=True):
    quantities: list[ResourceQuantities] = []


class OfferFilters(Message, frozen=True, kw_only=True):
    """The smallest useful offers of a role: an offer must contain one of the quantities."""

    min_allocatable_resources: MinAllocatableResources | None = None


def offer_filters(useful: Iterable[Mapping[str, float]]) -> OfferFilters:
    """Filters for offers that contain one of these vectors of named scalars."""
    quantities = [
        ResourceQuantities(quantities={name: Scalar(value=value) for name, value in vector.items()})
        for vector in useful
    ]
    return OfferFilters(min_allocatable_resources=MinAllocatableResources(quantities=quantities))


FrameworkCapability = Annotated[str, one_of(
    "UNKNOWN", "REVOCABLE_RESOURCES", "TASK_KILLING_STATE", "GPU_RESOURCES", "SHARED_RESOURCES",
    "PARTITION_AWARE", "MULTI_ROLE", "RESERVATION_REFINEMENT", "REGION_AWARE",
)]  # fmt: skip


class Capability(Message, frozen=True, kw_only=True):
    """A capability of a framework. An unknown one is UNKNOWN."""

    type: FrameworkCapability | None = None


class FrameworkInfo(Message, frozen=True, kw_only=True):
    user: str
    name: str
    id: Id | None = None
    failover_timeout: SignedSeconds | None = None
    checkpoint: bool | None = None
    role: str | None = None
    roles: list[str] = []
    hostname: str | None = None
    principal: str | None = None
    webui_url: str | None = None
    capabilities: list[Capability] = []
    labels: Labels | None = None
    offer_filters: dict[str, OfferFilters] = {}


class RegionInfo(Message, frozen=True, kw_only=True):
    name: str


class ZoneInfo(Message, frozen=True, kw_only=True):
    name: str


class FaultDomain(Message, frozen=True, kw_only=True):
    region: RegionInfo
    zone: ZoneInfo


class DomainInfo(Message, frozen=True, kw_only=True):
    fault_domain: FaultDomain | None = None


class AgentInfo(Message, frozen=True, kw_only=True):
    hostname: Name
    port: AgentPort = 5051
    resources: list[Resource] = []
    attributes: list[Attribute] = []
    id: Id | None = None
    domain: DomainInfo | None = None


class Address(Message, frozen=True, kw_only=True):
    hostname: str | None = None
    ip: str | None = None
    port: AgentPort = 0


class Url(Message, frozen=True, kw_only=True):
    scheme: str = "http"
    address: Address = Address()
    path: str | None = None
    query: list[Parameter] = []
    fragment: str | None = None


class Unavailability(Message, frozen=True, kw_only=True):
    """A planned outage of an agent."""

    start: TimeInfo
    duration: DurationInfo | None = None


class MasterCapability(Message, frozen=True, kw_only=True):
    type: str | None = None


class MasterInfo(Message, frozen=True, kw_only=True):
    """The leading master. `ip` is its IPv4 address as a number in network byte order."""

    id: str
    ip: UInt32
    port: Port
    pid: str | None = None
    hostname: str | None = None
    version: str | None = None
    address: Address | None = None
    domain: DomainInfo | None = None
    capabilities: list[MasterCapability] = []


class Offer(Message, frozen=True, kw_only=True):
    id: Id
    framework_id: Id
    agent_id: Id
    hostname: str
    url: Url | None = None
    resources: list[Resource] = []
    attributes: list[Attribute] = []
    executor_ids: list[Id] = []
    allocation_info: AllocationInfo | None = None
    domain: DomainInfo | None = None
    unavailability: Unavailability | None = None


class Filters(Message, frozen=True, kw_only=True):
    refuse_seconds: float = 5.0


TERMINAL_STATES = frozenset(
    {
        "TASK_FINISHED",
        "TASK_FAILED",
        "TASK_KILLED",
        "TASK_ERROR",
        "TASK_LOST",
        "TASK_DROPPED",
        "TASK_GONE",
        "TASK_GONE_BY_OPERATOR",
    }
)
"""Task states that nothing follows."""


def to_wire(
    resources: Resources, *, role: str | None = None, allocated_to: str | None = None
) -> list[Resource]:
    """A resource vector as the wire's list; `allocated_to` is the allocation role of each."""
    allocation = AllocationInfo(role=allocated_to) if allocated_to else None
    wire = [
        Resource(
            name=name,
            type="SCALAR",
            scalar=Scalar(value=value),
            role=role,
            allocation_info=allocation,
        )
        for name, value in resources.scalars().items()
    ]
    if resources.ports:
        ranges = Ranges(range=[PortRange(begin=low, end=high) for low, high in resources.ports])
        wire.append(
            Resource(
                name="ports", type="RANGES", ranges=ranges, role=role, allocation_info=allocation
            )
        )
    return wire


def from_wire(resources: list[Resource]) -> Resources:
    """The vector of a list of resources.

    Scalars are summed by name and `ports` ranges are joined. Roles are dropped.
    """
    scalars: dict[str, float] = {}
    ports: list[Range] = []
    for resource in resources:
        if resource.scalar is not None:
            scalars[resource.name] = scalars.get(resource.name, 0.0) + resource.scalar.value
        elif resource.name == "ports" and resource.ranges is not None:
            ports.extend((part.begin, part.end) for part in resource.ranges.range)
    return Resources.from_scalars(scalars, ports)
