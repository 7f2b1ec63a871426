"""Rules for calls of the executor API."""

from __future__ import annotations

from mesaform.engine.validation.names import invalid_uuid
from mesaform.mesos.executor_api import ExecutorCall
from mesaform.mesos.messages import CheckStatusInfo, TaskStatus


def invalid_executor_call(call: ExecutorCall) -> str | None:
    """Why a parsed call is invalid; None when it is valid."""
    if call.type is None:
        return "Expecting 'type' to be present"
    if call.type in {"UNKNOWN", "HEARTBEAT"}:
        return None
    name = call.type.lower()
    if getattr(call, name) is None:
        return f"Expecting '{name}' to be present"
    if call.type == "UPDATE" and call.update is not None:
        return _invalid_update(call, call.update.status)
    return None


def _invalid_update(call: ExecutorCall, status: TaskStatus) -> str | None:
    executor_id, framework_id = call.executor_id.value, call.framework_id.value
    named = status.executor_id.value if status.executor_id is not None else executor_id
    if status.uuid is None:
        return "Expecting 'uuid' to be present"
    problem = invalid_uuid(status.uuid)
    if problem is not None:
        return problem
    if named != executor_id:
        return f"ExecutorID in Call: {executor_id} does not match ExecutorID in TaskStatus: {named}"
    if status.source != "SOURCE_EXECUTOR":
        return (
            f"Received Call from executor {executor_id} of framework {framework_id}"
            " with invalid source, expecting 'SOURCE_EXECUTOR'"
        )
    if status.state == "TASK_STAGING":
        return (
            f"Received TASK_STAGING from executor {executor_id} of framework {framework_id}"
            " which is not allowed"
        )
    return _invalid_check_status(status.check_status)


def _invalid_check_status(status: CheckStatusInfo | None) -> str | None:
    if status is None:
        return None
    if status.type is None:
        return "CheckStatusInfo must specify 'type'"
    if status.type == "UNKNOWN":
        return "'UNKNOWN' is not a valid check's status type"
    name = status.type.lower()
    if getattr(status, name) is None:
        return f"Expecting '{name}' to be set for {status.type} check's status"
    return None
