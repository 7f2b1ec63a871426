"""The v1 messages of Mesos as frozen structs, and their conversion to resource vectors.

The JSON of each struct is the JSON on the wire. Shapes are from include/mesos/v1/mesos.proto of
Apache Mesos. Only fields that this project reads or writes are named; unknown fields are ignored
when a message is decoded, as in Mesos. Messages that are only passed on stay JSON objects.
Durations, sizes and times keep the protocol's own units, which are in each name.
Depends on `common.resources`.
"""

from __future__ import annotations

import msgspec

from mesaform.common.resources import Range, Resources


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The base of all messages.

    Absent and default fields are not written. A field that the wire requires has no default.
    """


class Id(Message, frozen=True, kw_only=True):
    """The `{"value": "…"}` of every id on the wire."""

    value: str


def ident(value: str) -> Id:
    """The id message of a text."""
    return Id(value=value)


class Scalar(Message, frozen=True, kw_only=True):
    value: float


class PortRange(Message, frozen=True, kw_only=True):
    begin: int
    end: int


class Ranges(Message, frozen=True, kw_only=True):
    range: list[PortRange] = []


class ItemSet(Message, frozen=True, kw_only=True):
    item: list[str] = []


class AllocationInfo(Message, frozen=True, kw_only=True):
    role: str | None = None


class Resource(Message, frozen=True, kw_only=True):
    """One named resource; `type` is SCALAR, RANGES or SET."""

    name: str
    type: str
    scalar: Scalar | None = None
    ranges: Ranges | None = None
    set: ItemSet | None = None
    role: str | None = None
    allocation_info: AllocationInfo | None = None


class Text(Message, frozen=True, kw_only=True):
    value: str


class Attribute(Message, frozen=True, kw_only=True):
    name: str
    type: str
    text: Text | None = None
    scalar: Scalar | None = None
    ranges: Ranges | None = None
    set: ItemSet | None = None


class Label(Message, frozen=True, kw_only=True):
    key: str
    value: str | None = None


class Labels(Message, frozen=True, kw_only=True):
    labels: list[Label] = []


class EnvVariable(Message, frozen=True, kw_only=True):
    name: str
    value: str | None = None
    type: str | None = None


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


class DurationInfo(Message, frozen=True, kw_only=True):
    nanoseconds: int


class TimeInfo(Message, frozen=True, kw_only=True):
    """A time since the epoch."""

    nanoseconds: int


class KillPolicy(Message, frozen=True, kw_only=True):
    grace_period: DurationInfo | None = None


class TaskInfo(Message, frozen=True, kw_only=True):
    name: str = ""
    task_id: Id
    agent_id: Id
    resources: list[Resource] = []
    command: CommandInfo | None = None
    executor: dict[str, object] | None = None
    container: dict[str, object] | None = None
    health_check: dict[str, object] | None = None
    check: dict[str, object] | None = None
    kill_policy: KillPolicy | None = None
    data: bytes | None = None
    labels: Labels | None = None
    discovery: dict[str, object] | None = None


class TaskStatus(Message, frozen=True, kw_only=True):
    """A task's status.

    `state` is the name of a TaskState, such as TASK_RUNNING. `uuid` is present exactly when the
    update must be acknowledged. `timestamp` is in seconds since the epoch.
    """

    task_id: Id
    state: str
    message: str | None = None
    source: str | None = None
    reason: str | None = None
    data: bytes | None = None
    agent_id: Id | None = None
    executor_id: Id | None = None
    timestamp: float | None = None
    uuid: bytes | None = None
    healthy: bool | None = None
    labels: Labels | None = None
    container_status: dict[str, object] | None = None
    unreachable_time: TimeInfo | None = None


class Capability(Message, frozen=True, kw_only=True):
    type: str


class FrameworkInfo(Message, frozen=True, kw_only=True):
    user: str
    name: str
    id: Id | None = None
    failover_timeout: float | None = None
    checkpoint: bool | None = None
    role: str | None = None
    roles: list[str] = []
    hostname: str | None = None
    principal: str | None = None
    webui_url: str | None = None
    capabilities: list[Capability] = []
    labels: Labels | None = None
    offer_filters: dict[str, object] | None = None


class AgentInfo(Message, frozen=True, kw_only=True):
    hostname: str
    port: int = 5051
    resources: list[Resource] = []
    attributes: list[Attribute] = []
    id: Id | None = None
    domain: dict[str, object] | None = None


class Address(Message, frozen=True, kw_only=True):
    hostname: str | None = None
    ip: str | None = None
    port: int = 0


class Url(Message, frozen=True, kw_only=True):
    scheme: str = "http"
    address: Address = Address()
    path: str | None = None
    query: list[dict[str, object]] = []


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
    domain: dict[str, object] | None = None
    unavailability: dict[str, object] | None = None


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
