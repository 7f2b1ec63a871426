"""The scheduler API's Call as structs. Field numbers and names are Mesos' own; `parse` next door fills them from JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from mesaform.mesos.messages import (
    DurationInfo,
    Filters,
    FrameworkInfo,
    Id,
    KillPolicy,
    Message,
    TaskInfo,
)


class Subscribe(Message, frozen=True, kw_only=True):
    framework_info: FrameworkInfo
    suppressed_roles: list[str] = msgspec.field(default_factory=list)


class Launch(Message, frozen=True, kw_only=True):
    task_infos: list[TaskInfo] = msgspec.field(default_factory=list)


class TaskGroup(Message, frozen=True, kw_only=True):
    tasks: list[TaskInfo] = msgspec.field(default_factory=list)


class LaunchGroup(Message, frozen=True, kw_only=True):
    task_group: TaskGroup = TaskGroup()


class Operation(Message, frozen=True, kw_only=True):
    type: str = "UNKNOWN"
    launch: Launch | None = None
    launch_group: LaunchGroup | None = None


class Accept(Message, frozen=True, kw_only=True):
    offer_ids: list[Id] = msgspec.field(default_factory=list)
    operations: list[Operation] = msgspec.field(default_factory=list)
    filters: Filters = Filters()


class Decline(Message, frozen=True, kw_only=True):
    offer_ids: list[Id] = msgspec.field(default_factory=list)
    filters: Filters = Filters()


class Roles(Message, frozen=True, kw_only=True):
    roles: list[str] = msgspec.field(default_factory=list)


class Kill(Message, frozen=True, kw_only=True):
    task_id: Id
    agent_id: Id | None = None
    kill_policy: KillPolicy | None = None


class Acknowledge(Message, frozen=True, kw_only=True):
    agent_id: Id
    task_id: Id
    uuid: bytes


class ReconcileTask(Message, frozen=True, kw_only=True):
    task_id: Id
    agent_id: Id | None = None


class Reconcile(Message, frozen=True, kw_only=True):
    tasks: list[ReconcileTask] = msgspec.field(default_factory=list)


class Shutdown(Message, frozen=True, kw_only=True):
    executor_id: Id
    agent_id: Id


class ExecutorMessage(Message, frozen=True, kw_only=True):
    agent_id: Id
    executor_id: Id
    data: bytes


class UpdateFramework(Message, frozen=True, kw_only=True):
    framework_info: FrameworkInfo
    suppressed_roles: list[str] = msgspec.field(default_factory=list)


class Call(Message, frozen=True, kw_only=True):
    """`type` says which one of the others is set."""

    type: str | None = None
    framework_id: Id | None = None
    subscribe: Subscribe | None = None
    accept: Accept | None = None
    decline: Decline | None = None
    revive: Roles | None = None
    suppress: Roles | None = None
    kill: Kill | None = None
    shutdown: Shutdown | None = None
    acknowledge: Acknowledge | None = None
    reconcile: Reconcile | None = None
    message: ExecutorMessage | None = None
    request: dict[str, Any] | None = None
    update_framework: UpdateFramework | None = None
    accept_inverse_offers: dict[str, Any] | None = None
    decline_inverse_offers: dict[str, Any] | None = None
    acknowledge_operation_status: dict[str, Any] | None = None
    reconcile_operations: dict[str, Any] | None = None


SCHEDULER_CALLS = frozenset(
    {
        "SUBSCRIBE", "TEARDOWN", "ACCEPT", "DECLINE", "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS", "REVIVE", "KILL", "SHUTDOWN",
        "ACKNOWLEDGE", "ACKNOWLEDGE_OPERATION_STATUS", "RECONCILE", "RECONCILE_OPERATIONS", "MESSAGE", "REQUEST", "SUPPRESS",
        "UPDATE_FRAMEWORK",
    }
)  # fmt: skip

REQUIRED_BODY = {
    "SUBSCRIBE", "ACCEPT", "DECLINE", "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS", "KILL", "SHUTDOWN", "ACKNOWLEDGE",
    "ACKNOWLEDGE_OPERATION_STATUS", "RECONCILE", "RECONCILE_OPERATIONS", "MESSAGE", "REQUEST", "UPDATE_FRAMEWORK",
}  # fmt: skip


class Duration(Message, frozen=True, kw_only=True):
    """google.protobuf.Duration, as DRAIN_AGENT takes it."""

    seconds: int = 0
    nanos: int = 0


class AgentCall(Message, frozen=True, kw_only=True):
    agent_id: Id


class DrainAgent(Message, frozen=True, kw_only=True):
    agent_id: Id
    max_grace_period: Duration | None = None
    mark_gone: bool = False


class Teardown(Message, frozen=True, kw_only=True):
    framework_id: Id


class GetMetrics(Message, frozen=True, kw_only=True):
    timeout: DurationInfo | None = None


class OperatorCall(Message, frozen=True, kw_only=True):
    """The operator API's Call: only the bodies that some call here reads."""

    type: str | None = None
    get_metrics: GetMetrics | None = None
    deactivate_agent: AgentCall | None = None
    reactivate_agent: AgentCall | None = None
    drain_agent: DrainAgent | None = None
    mark_agent_gone: AgentCall | None = None
    teardown: Teardown | None = None


OPERATOR_CALLS = frozenset(
    {
        "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_METRICS", "GET_LOGGING_LEVEL", "GET_STATE", "GET_AGENTS", "GET_FRAMEWORKS",
        "GET_EXECUTORS", "GET_OPERATIONS", "GET_TASKS", "GET_ROLES", "GET_WEIGHTS", "GET_MASTER", "GET_MAINTENANCE_STATUS",
        "GET_MAINTENANCE_SCHEDULE", "GET_QUOTA", "SUBSCRIBE", "DEACTIVATE_AGENT", "REACTIVATE_AGENT", "DRAIN_AGENT", "MARK_AGENT_GONE",
        "TEARDOWN", "SET_LOGGING_LEVEL", "LIST_FILES", "READ_FILE", "UPDATE_WEIGHTS", "UPDATE_QUOTA", "SET_QUOTA", "REMOVE_QUOTA",
        "UPDATE_MAINTENANCE_SCHEDULE", "START_MAINTENANCE", "STOP_MAINTENANCE", "RESERVE_RESOURCES", "UNRESERVE_RESOURCES",
        "CREATE_VOLUMES", "DESTROY_VOLUMES", "GROW_VOLUME", "SHRINK_VOLUME",
    }
)  # fmt: skip
OPERATOR_BODIES = frozenset(
    {
        "GET_METRICS",
        "DEACTIVATE_AGENT",
        "REACTIVATE_AGENT",
        "DRAIN_AGENT",
        "MARK_AGENT_GONE",
        "TEARDOWN",
    }
)
