"""The v1 operator API of Mesos: the structs of its calls.

The JSON of each struct is the JSON on the wire. `operator` (the client) and the engine's master
use these structs. Only the bodies that the engine reads are named. Shapes and call names are from
include/mesos/v1/master/master.proto of Apache Mesos.
Depends on `messages`.
"""

from __future__ import annotations

import msgspec

from mesaform.mesos.messages import DurationInfo, Id, Message


class Duration(Message, frozen=True, kw_only=True):
    """google.protobuf.Duration, the form in which DRAIN_AGENT takes a grace period."""

    seconds: int = 0
    nanos: int = 0


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


class OperatorCall(Message, frozen=True, kw_only=True):
    """A call. `type` names the field that is set; it is None for a type that is not known."""

    type: str | None = None
    get_metrics: GetMetrics | None = None
    deactivate_agent: AgentCall | None = None
    reactivate_agent: AgentCall | None = None
    drain_agent: DrainAgent | None = None
    mark_agent_gone: AgentCall | None = None
    teardown: Teardown | None = None


CALL_TYPES = frozenset(
    {
        "GET_HEALTH", "GET_FLAGS", "GET_VERSION", "GET_METRICS", "GET_LOGGING_LEVEL", "GET_STATE",
        "GET_AGENTS", "GET_FRAMEWORKS", "GET_EXECUTORS", "GET_OPERATIONS", "GET_TASKS", "GET_ROLES",
        "GET_WEIGHTS", "GET_MASTER", "GET_MAINTENANCE_STATUS", "GET_MAINTENANCE_SCHEDULE",
        "GET_QUOTA", "SUBSCRIBE", "DEACTIVATE_AGENT", "REACTIVATE_AGENT", "DRAIN_AGENT",
        "MARK_AGENT_GONE", "TEARDOWN", "SET_LOGGING_LEVEL", "LIST_FILES", "READ_FILE",
        "UPDATE_WEIGHTS", "UPDATE_QUOTA", "SET_QUOTA", "REMOVE_QUOTA",
        "UPDATE_MAINTENANCE_SCHEDULE", "START_MAINTENANCE", "STOP_MAINTENANCE",
        "RESERVE_RESOURCES", "UNRESERVE_RESOURCES", "CREATE_VOLUMES", "DESTROY_VOLUMES",
        "GROW_VOLUME", "SHRINK_VOLUME",
    }
)  # fmt: skip
"""Every call type of the operator API of a master."""

CALL_TYPES_WITH_BODY = frozenset(
    {
        "GET_METRICS", "DEACTIVATE_AGENT", "REACTIVATE_AGENT", "DRAIN_AGENT", "MARK_AGENT_GONE",
        "TEARDOWN",
    }
)  # fmt: skip
"""The call types whose field of the same name (in lower case) is required."""

encode_call = msgspec.json.Encoder().encode
