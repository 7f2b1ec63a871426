"""The v1 scheduler API's events and calls as structs whose JSON is the wire's JSON, and builders for the calls.

Source of the shapes: include/mesos/v1/scheduler/scheduler.proto of Apache Mesos. Event types that are not named here decode
too: their `type` is there and nothing else.
"""

# ruff: noqa: RUF012  (msgspec copies mutable defaults)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from mesaform.mesos.messages import Filters, FrameworkInfo, Id, Message, Offer, TaskInfo, TaskStatus


class Subscribed(Message, frozen=True, kw_only=True):
    framework_id: Id
    heartbeat_interval_seconds: float = 15.0
    master_info: dict[str, Any] | None = None


class Offers(Message, frozen=True, kw_only=True):
    offers: list[Offer] = []


class Rescind(Message, frozen=True, kw_only=True):
    offer_id: Id


class Update(Message, frozen=True, kw_only=True):
    status: TaskStatus


class ExecutorMessage(Message, frozen=True, kw_only=True):
    """An executor's MESSAGE; `data` is base64 on the wire."""

    agent_id: Id
    executor_id: Id
    data: bytes


class Failure(Message, frozen=True, kw_only=True):
    """An agent (no `executor_id`) or an executor is gone."""

    agent_id: Id | None = None
    executor_id: Id | None = None
    status: int | None = None


class Error(Message, frozen=True, kw_only=True):
    message: str


class Event(Message, frozen=True, kw_only=True):
    """What a master tells a framework. `type` says which of the fields is set; HEARTBEAT has none."""

    type: str
    subscribed: Subscribed | None = None
    offers: Offers | None = None
    rescind: Rescind | None = None
    update: Update | None = None
    message: ExecutorMessage | None = None
    failure: Failure | None = None
    error: Error | None = None


class Subscribe(Message, frozen=True, kw_only=True):
    framework_info: FrameworkInfo
    suppressed_roles: list[str] = []


class LaunchOperation(Message, frozen=True, kw_only=True):
    task_infos: list[TaskInfo] = []


class Operation(Message, frozen=True, kw_only=True):
    """Only LAUNCH is built here; other types decode with their `type` alone."""

    type: str
    launch: LaunchOperation | None = None


class Accept(Message, frozen=True, kw_only=True):
    offer_ids: list[Id] = []
    operations: list[Operation] = []
    filters: Filters | None = None


class Decline(Message, frozen=True, kw_only=True):
    offer_ids: list[Id] = []
    filters: Filters | None = None


class Roles(Message, frozen=True, kw_only=True):
    """The body of REVIVE and SUPPRESS; no roles means all of the framework's."""

    roles: list[str] = []


class Kill(Message, frozen=True, kw_only=True):
    task_id: Id
    agent_id: Id | None = None
    kill_policy: dict[str, Any] | None = None


class Acknowledge(Message, frozen=True, kw_only=True):
    agent_id: Id
    task_id: Id
    uuid: bytes


class ReconcileTask(Message, frozen=True, kw_only=True):
    task_id: Id
    agent_id: Id | None = None


class Reconcile(Message, frozen=True, kw_only=True):
    """No tasks means implicit: the latest state of every task that the master knows."""

    tasks: list[ReconcileTask] = []


class UpdateFramework(Message, frozen=True, kw_only=True):
    framework_info: FrameworkInfo
    suppressed_roles: list[str] = []


class Call(Message, frozen=True, kw_only=True):
    """What a framework tells the master. `framework_id` is filled in by `SchedulerClient`."""

    type: str
    framework_id: Id | None = None
    subscribe: Subscribe | None = None
    accept: Accept | None = None
    decline: Decline | None = None
    revive: Roles | None = None
    suppress: Roles | None = None
    kill: Kill | None = None
    acknowledge: Acknowledge | None = None
    reconcile: Reconcile | None = None
    update_framework: UpdateFramework | None = None


def launch(offer_ids: Sequence[str], tasks: Iterable[TaskInfo], refuse_s: float = 5.0) -> Call:
    """ACCEPT offers of one agent with one LAUNCH; what the tasks leave over is refused for `refuse_s` seconds."""
    operation = Operation(type="LAUNCH", launch=LaunchOperation(task_infos=list(tasks)))
    accept = Accept(
        offer_ids=[Id(value=item) for item in offer_ids],
        operations=[operation],
        filters=Filters(refuse_seconds=refuse_s),
    )
    return Call(type="ACCEPT", accept=accept)


def decline(offer_ids: Iterable[str], refuse_s: float = 5.0) -> Call:
    """DECLINE offers; the like of them is not offered again for `refuse_s` seconds."""
    ids = [Id(value=item) for item in offer_ids]
    return Call(
        type="DECLINE", decline=Decline(offer_ids=ids, filters=Filters(refuse_seconds=refuse_s))
    )


def revive() -> Call:
    """REVIVE: forget refusals, and offer again if suppressed."""
    return Call(type="REVIVE")


def suppress() -> Call:
    """SUPPRESS: no offers until REVIVE."""
    return Call(type="SUPPRESS")


def kill(task_id: str, agent_id: str | None = None) -> Call:
    """KILL a task, with the grace of its own kill policy."""
    return Call(
        type="KILL",
        kill=Kill(task_id=Id(value=task_id), agent_id=Id(value=agent_id) if agent_id else None),
    )


def reconcile(tasks: Iterable[tuple[str, str | None]] = ()) -> Call:
    """RECONCILE (task id, agent id or None) pairs; none at all asks for every task that the master knows."""
    wanted = [
        ReconcileTask(task_id=Id(value=task), agent_id=Id(value=agent) if agent else None)
        for task, agent in tasks
    ]
    return Call(type="RECONCILE", reconcile=Reconcile(tasks=wanted))


def update_framework(info: FrameworkInfo) -> Call:
    """UPDATE_FRAMEWORK: `info`, which names the framework's id, in place of what it subscribed with; no role stays suppressed."""
    return Call(type="UPDATE_FRAMEWORK", update_framework=UpdateFramework(framework_info=info))


def teardown() -> Call:
    """TEARDOWN: kill the framework's tasks and forget it; its id cannot be used again."""
    return Call(type="TEARDOWN")


def acknowledge(status: TaskStatus) -> Call | None:
    """ACKNOWLEDGE of an update, or None for one that must not be acknowledged (no uuid: made by the master)."""
    if status.uuid is None or status.agent_id is None:
        return None
    body = Acknowledge(agent_id=status.agent_id, task_id=status.task_id, uuid=status.uuid)
    return Call(type="ACKNOWLEDGE", acknowledge=body)


encode_call = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(Event, strict=False).decode
