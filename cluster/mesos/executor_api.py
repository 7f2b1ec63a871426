"""The v1 executor API of Mesos: the structs of its calls, from an executor to its agent.

Shapes and names are from include/mesos/v1/executor/executor.proto of Apache Mesos.
Depends on `messages`.
"""

# ruff: noqa: RUF012  (msgspec copies mutable defaults)

from __future__ import annotations

from typing import Literal

from mesaform.mesos.messages import Id, Message, TaskInfo, TaskStatus


class ExecutorUpdate(Message, frozen=True, kw_only=True):
    """UPDATE: a task's status."""

    status: TaskStatus


class ExecutorSubscribe(Message, frozen=True, kw_only=True):
    """SUBSCRIBE, with what the agent has not acknowledged yet."""

    unacknowledged_tasks: list[TaskInfo] = []
    unacknowledged_updates: list[ExecutorUpdate] = []


class ExecutorData(Message, frozen=True, kw_only=True):
    """MESSAGE to the scheduler."""

    data: bytes


class ExecutorCall(Message, frozen=True, kw_only=True):
    """A call. `type` names the field that is set; it is None for a type that is not known."""

    executor_id: Id
    framework_id: Id
    type: Literal["UNKNOWN", "SUBSCRIBE", "UPDATE", "MESSAGE", "HEARTBEAT"] | None = None
    subscribe: ExecutorSubscribe | None = None
    update: ExecutorUpdate | None = None
    message: ExecutorData | None = None
