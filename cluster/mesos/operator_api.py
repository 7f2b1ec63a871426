"""The v1 operator API of Mesos: the structs of its calls.

The JSON of each struct is the JSON on the wire. `operator` (the client) and the engine's master
use these structs. Shapes and call names are from include/mesos/v1/master/master.proto, quota.proto
and maintenance.proto of Apache Mesos.
Depends on `messages`.
"""

# ruff: noqa: RUF012  (msgspec copies mutable defaults)

from __future__ import annotations

from typing import Annotated

import msgspec

from mesaform.mesos.messages import (
    DurationInfo,
    Id,
    Message,
    Resource,
    Scalar,
    Unavailability,
)
from mesaform.mesos.values import Int32, Int64, UInt32, UInt64, one_of


class Duration(Message, frozen=True, kw_only=True):
    """google.protobuf.Duration, the form in which DRAIN_AGENT takes a grace period."""

    seconds: Int64 = 0
    nanos: Int32 = 0


class AgentCall(Message, frozen=True, kw_only=True):
    """The body of a call that names one agent."""

    agent_id: Id


class DrainAgent(Message, frozen=True, kw_only=True):
    """DRAIN_AGENT: kill the agent's tasks, then mark it gone if asked to.

    `max_grace_period` limits the grace period of each task's own kill policy.
    """

    agent_id: Id
    max_grace_period: Duration | None = None
    mark_gone: bool = False


class Teardown(Message, frozen=True, kw_only=True):
    """TEARDOWN: remove a framework and kill its tasks."""

    framework_id: Id


class GetMetrics(Message, frozen=True, kw_only=True):
    """GET_METRICS. `timeout` limits how long the master collects."""

    timeout: DurationInfo | None = None


class SetLoggingLevel(Message, frozen=True, kw_only=True):
    level: UInt32
    duration: DurationInfo


class ListFiles(Message, frozen=True, kw_only=True):
    path: str


class ReadFile(Message, frozen=True, kw_only=True):
    path: str
    offset: UInt64
    length: UInt64 | None = None


class WeightInfo(Message, frozen=True, kw_only=True):
    weight: float
    role: str | None = None


class UpdateWeights(Message, frozen=True, kw_only=True):
    weight_infos: list[WeightInfo] = []


class ReserveResources(Message, frozen=True, kw_only=True):
    agent_id: Id
    source: list[Resource] = []
    resources: list[Resource] = []


class UnreserveResources(Message, frozen=True, kw_only=True):
    agent_id: Id
    resources: list[Resource] = []


class Volumes(Message, frozen=True, kw_only=True):
    """CREATE_VOLUMES and DESTROY_VOLUMES."""

    agent_id: Id
    volumes: list[Resource] = []


class GrowVolume(Message, frozen=True, kw_only=True):
    agent_id: Id | None = None
    volume: Resource
    addition: Resource


class ShrinkVolume(Message, frozen=True, kw_only=True):
    agent_id: Id | None = None
    volume: Resource
    subtract: Scalar


class MachineId(Message, frozen=True, kw_only=True):
    hostname: str | None = None
    ip: str | None = None


class MaintenanceWindow(Message, frozen=True, kw_only=True):
    machine_ids: list[MachineId] = []
    unavailability: Unavailability


class MaintenanceSchedule(Message, frozen=True, kw_only=True):
    windows: list[MaintenanceWindow] = []


class UpdateMaintenanceSchedule(Message, frozen=True, kw_only=True):
    schedule: MaintenanceSchedule


class Machines(Message, frozen=True, kw_only=True):
    """START_MAINTENANCE and STOP_MAINTENANCE."""

    machines: list[MachineId] = []


class QuotaConfig(Message, frozen=True, kw_only=True):
    role: str
    guarantees: dict[str, Scalar] = {}
    limits: dict[str, Scalar] = {}


class UpdateQuota(Message, frozen=True, kw_only=True):
    force: bool | None = None
    quota_configs: list[QuotaConfig] = []


class QuotaRequest(Message, frozen=True, kw_only=True):
    force: bool | None = None
    role: str | None = None
    guarantee: list[Resource] = []


class SetQuota(Message, frozen=True, kw_only=True):
    quota_request: QuotaRequest


class RemoveQuota(Message, frozen=True, kw_only=True):
    role: str


_CALL_TYPES = (
    "UNKNOWN", "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_METRICS", "GET_LOGGING_LEVEL",
    "GET_STATE", "GET_AGENTS", "GET_FRAMEWORKS", "GET_EXECUTORS", "GET_OPERATIONS",
    "GET_TASKS", "GET_ROLES", "GET_WEIGHTS", "GET_MASTER", "GET_MAINTENANCE_STATUS",
    "GET_MAINTENANCE_SCHEDULE", "GET_QUOTA", "SUBSCRIBE", "DEACTIVATE_AGENT",
    "REACTIVATE_AGENT", "DRAIN_AGENT", "MARK_AGENT_GONE", "TEARDOWN", "SET_LOGGING_LEVEL",
    "LIST_FILES", "READ_FILE", "UPDATE_WEIGHTS", "UPDATE_QUOTA", "SET_QUOTA",
    "REMOVE_QUOTA", "UPDATE_MAINTENANCE_SCHEDULE", "START_MAINTENANCE", "STOP_MAINTENANCE",
    "RESERVE_RESOURCES", "UNRESERVE_RESOURCES", "CREATE_VOLUMES", "DESTROY_VOLUMES",
    "GROW_VOLUME", "SHRINK_VOLUME",
)  # fmt: skip

CALL_TYPES = frozenset(_CALL_TYPES)
"""Every call type of the operator API of a master."""

OperatorCallType = Annotated[str, one_of(*_CALL_TYPES)]


class OperatorCall(Message, frozen=True, kw_only=True):
    """A call. `type` names the field that is set; it is None for a type that is not known."""

    type: OperatorCallType | None = None
    get_metrics: GetMetrics | None = None
    set_logging_level: SetLoggingLevel | None = None
    list_files: ListFiles | None = None
    read_file: ReadFile | None = None
    update_weights: UpdateWeights | None = None
    reserve_resources: ReserveResources | None = None
    unreserve_resources: UnreserveResources | None = None
    create_volumes: Volumes | None = None
    destroy_volumes: Volumes | None = None
    grow_volume: GrowVolume | None = None
    shrink_volume: ShrinkVolume | None = None
    update_maintenance_schedule: UpdateMaintenanceSchedule | None = None
    start_maintenance: Machines | None = None
    stop_maintenance: Machines | None = None
    deactivate_agent: AgentCall | None = None
    reactivate_agent: AgentCall | None = None
    drain_agent: DrainAgent | None = None
    mark_agent_gone: AgentCall | None = None
    update_quota: UpdateQuota | None = None
    set_quota: SetQuota | None = None
    remove_quota: RemoveQuota | None = None
    teardown: Teardown | None = None


CALL_TYPES_WITH_BODY = frozenset(
    {
        "GET_METRICS", "SET_LOGGING_LEVEL", "LIST_FILES", "READ_FILE", "UPDATE_WEIGHTS",
        "RESERVE_RESOURCES", "UNRESERVE_RESOURCES", "CREATE_VOLUMES", "DESTROY_VOLUMES",
        "GROW_VOLUME", "SHRINK_VOLUME", "UPDATE_MAINTENANCE_SCHEDULE", "START_MAINTENANCE",
        "STOP_MAINTENANCE", "DEACTIVATE_AGENT", "REACTIVATE_AGENT", "DRAIN_AGENT",
        "MARK_AGENT_GONE", "UPDATE_QUOTA", "SET_QUOTA", "REMOVE_QUOTA", "TEARDOWN",
    }
)  # fmt: skip
"""The call types whose field of the same name (in lower case) is required."""

encode_call = msgspec.json.Encoder().encode
