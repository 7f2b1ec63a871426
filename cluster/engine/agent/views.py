"""Documents of the agent's endpoints in Mesos' shapes: the legacy JSON and the v1 calls.

Pure: a `Snapshot` of the agent becomes a document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mesaform.common.json_types import as_object
from mesaform.common.resources import Range, Resources
from mesaform.engine.agent.config import MESOS_VERSION, Config
from mesaform.engine.agent.containerizer import Usage
from mesaform.engine.agent.tasks import TaskRecord
from mesaform.engine.documents import Document
from mesaform.mesos.messages import (
    AgentInfo,
    Attribute,
    FrameworkInfo,
    TaskStatus,
    from_wire,
    ident,
    to_wire,
)

CAPABILITIES = ["MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT", "AGENT_DRAINING"]
VERSION_INFO: Document = {
    "version": MESOS_VERSION,
    "build_date": "2026-11-21 00:00:00 UTC",
    "build_time": 1795219200.0,
    "build_user": "mesaform",
    "git_sha": "",
    "git_branch": "",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An agent at one moment.

    `port` is that of its HTTP server. `sandboxes` has the folder of each container. `own_state` is
    what Apache Mesos' agent does not show. `ended` are tasks whose end the framework has
    acknowledged, the newest ones: their output can still be read.
    """

    config: Config
    agent_id: str
    master_hostname: str
    port: int
    started_at: float
    tasks: list[TaskRecord]
    sandboxes: Mapping[str, str]
    own_state: Document
    ended: Sequence[TaskRecord] = ()

    @property
    def used(self) -> Resources:
        """What live tasks hold."""
        total = Resources()
        for record in self.tasks:
            if not record.is_over:
                total += from_wire(record.task.resources)
        return total


def resources_json(resources: Resources) -> Document:
    """`{"cpus": 4.0, …, "ports": "[31000-32000]"}`. The four scalars are in any case present."""
    shown: Document = {
        "disk": 0.0,
        "mem": 0.0,
        "gpus": 0.0,
        "cpus": 0.0,
        **resources.scalars(),
    }
    if resources.ports:
        shown["ports"] = ranges_text(resources.ports)
    return shown


def ranges_text(ranges: Iterable[Range]) -> str:
    """`[31000-32000, 33000-33001]`."""
    return "[" + ", ".join(f"{low}-{high}" for low, high in ranges) + "]"


def state_json(snapshot: Snapshot) -> Document:
    """GET /state."""
    config = snapshot.config
    full = msgspec.to_builtins(to_wire(config.resources, role="*"))
    state: Document = {
        **VERSION_INFO,
        "start_time": snapshot.started_at,
        "id": snapshot.agent_id,
        "pid": f"slave(1)@{config.ip}:{snapshot.port}",
        "hostname": config.hostname,
        "capabilities": CAPABILITIES,
        "resources": resources_json(config.resources),
        "reserved_resources": {},
        "unreserved_resources": resources_json(config.resources),
        "reserved_resources_full": {},
        "unreserved_resources_full": full,
        "reserved_resources_allocated": {},
        "unreserved_resources_allocated": resources_json(snapshot.used),
        "resource_providers": [],
        "attributes": {
            attribute.name: attribute_json(attribute) for attribute in config.attributes
        },
        "master_hostname": snapshot.master_hostname,
        "flags": dict(config.flags),
        **_frameworks_json(snapshot),
        "mesaform": snapshot.own_state,
    }
    return state


def _frameworks_json(snapshot: Snapshot) -> Document:
    """The frameworks with a task, and those of which all tasks have ended, each with its tasks."""
    groups = by_framework([*snapshot.tasks, *snapshot.ended])
    live = {record.framework_id for record in snapshot.tasks}

    def documents(*, are_live: bool) -> list[Document]:
        return [
            framework_json(snapshot, framework, records)
            for framework, records in groups
            if (records[0].framework_id in live) is are_live
        ]

    return {
        "frameworks": documents(are_live=True),
        "completed_frameworks": documents(are_live=False),
    }


def attribute_json(attribute: Attribute) -> str | float:
    """The value of an attribute."""
    if attribute.scalar is not None:
        return attribute.scalar.value
    if attribute.ranges is not None:
        return ranges_text((part.begin, part.end) for part in attribute.ranges.range)
    return attribute.text.value if attribute.text is not None else ""


def by_framework(records: Iterable[TaskRecord]) -> list[tuple[FrameworkInfo, list[TaskRecord]]]:
    """The tasks of each framework."""
    groups: dict[str, tuple[FrameworkInfo, list[TaskRecord]]] = {}
    for record in records:
        groups.setdefault(record.framework_id, (record.framework, []))[1].append(record)
    return list(groups.values())


def framework_json(
    snapshot: Snapshot, framework: FrameworkInfo, records: list[TaskRecord]
) -> Document:
    return {
        "id": framework.id.value if framework.id else "",
        "name": framework.name,
        "user": framework.user,
        "failover_timeout": framework.failover_timeout or 0.0,
        "checkpoint": bool(framework.checkpoint),
        "hostname": framework.hostname or "",
        "role": _role(framework),
        "executors": [executor_json(snapshot, record) for record in records if not record.is_over],
        "completed_executors": [
            executor_json(snapshot, record) for record in records if record.is_over
        ],
    }


def executor_json(snapshot: Snapshot, record: TaskRecord) -> Document:
    """Each command task is its own executor, as in Mesos."""
    task = task_json(record)
    return {
        "id": record.task_id,
        "name": executor_name(record),
        "source": record.task_id,
        "container": record.container_id,
        "directory": snapshot.sandboxes.get(record.container_id, ""),
        "resources": resources_json(from_wire(record.task.resources)),
        "role": _role(record.framework),
        "tasks": [] if record.is_over else [task],
        "queued_tasks": [],
        "completed_tasks": [task] if record.is_over else [],
    }


def executor_name(record: TaskRecord) -> str:
    """The name that Mesos gives the executor of a command task."""
    command = record.task.command
    line = "" if command is None else (command.value or " ".join(command.arguments))
    shown = f"sh -c '{line}'" if command is not None and command.shell is not False else line
    return f"Command Executor (Task: {record.task_id}) (Command: {shown})"


def task_json(record: TaskRecord) -> Document:
    return {
        "id": record.task_id,
        "name": record.task.name,
        "framework_id": record.framework_id,
        "executor_id": "",
        "slave_id": record.task.agent_id.value,
        "state": record.reported_state,
        "resources": resources_json(from_wire(record.task.resources)),
        "role": _role(record.framework),
        "statuses": [status_json(status) for status in record.statuses],
    }


def status_json(status: TaskStatus) -> Document:
    shown: Document = {"state": status.state, "timestamp": status.timestamp}
    if status.container_status is not None:
        shown["container_status"] = msgspec.structs.replace(
            status.container_status, executor_pid=None
        )
    if status.healthy is not None:
        shown["healthy"] = status.healthy
    return shown


def statistics_json(record: TaskRecord, usage: Usage, now: float) -> Document:
    """One entry of /monitor/statistics."""
    resources = from_wire(record.task.resources)
    limit_bytes = int(resources.mem_mib * 2**20)
    return {
        "executor_id": record.task_id,
        "executor_name": executor_name(record),
        "framework_id": record.framework_id,
        "source": record.task_id,
        "statistics": {
            "cpus_soft_limit": resources.cpus,
            "cpus_system_time_secs": usage.system_s,
            "cpus_user_time_secs": usage.user_s,
            "mem_limit_bytes": limit_bytes,
            "mem_rss_bytes": usage.rss_bytes,
            "mem_soft_limit_bytes": limit_bytes,
            "processes": usage.processes,
            "timestamp": now,
        },
    }


def container_json(record: TaskRecord, usage: Usage, now: float) -> Document:
    """One entry of /containers."""
    return {
        "container_id": record.container_id,
        **statistics_json(record, usage, now),
        "status": {
            "container_id": {"value": record.container_id},
            "executor_pid": record.executor_pid,
        },
    }


def v1_container(record: TaskRecord, usage: Usage, now: float) -> Document:
    """One entry of GET_CONTAINERS."""
    shown = container_json(record, usage, now)
    return {
        "framework_id": {"value": record.framework_id},
        "executor_id": {"value": record.task_id},
        "executor_name": shown["executor_name"],
        "container_id": {"value": record.container_id},
        "container_status": shown["status"],
        "resource_statistics": shown["statistics"],
    }


def v1_agent_info(snapshot: Snapshot) -> Document:
    info: AgentInfo = msgspec.structs.replace(
        snapshot.config.info,
        id=ident(snapshot.agent_id) if snapshot.agent_id else None,
        port=snapshot.port,
    )
    return {"port": snapshot.port, **as_object(_built(info))}


def v1_task(record: TaskRecord) -> Document:
    """The v1 Task message."""
    task: Document = {
        "name": record.task.name,
        "task_id": {"value": record.task_id},
        "framework_id": {"value": record.framework_id},
        "agent_id": _built(record.task.agent_id),
        "state": record.reported_state,
        "resources": _built(record.task.resources),
        "statuses": _built(record.statuses),
        "user": (record.task.command.user if record.task.command else None)
        or record.framework.user,
    }
    if record.statuses:
        task["status_update_state"] = record.statuses[-1].state
    return task


def v1_tasks(snapshot: Snapshot) -> Document:
    """GET_TASKS."""
    groups: dict[str, list[Document]] = {
        "pending_tasks": [],
        "queued_tasks": [],
        "launched_tasks": [],
        "terminated_tasks": [],
        "completed_tasks": [],
    }
    for record in snapshot.tasks:
        groups[_group(record)].append(v1_task(record))
    return dict(groups)


def _group(record: TaskRecord) -> str:
    if record.is_over:
        return "terminated_tasks"
    return "queued_tasks" if record.state == "TASK_STAGING" else "launched_tasks"


def v1_frameworks(snapshot: Snapshot) -> Document:
    """GET_FRAMEWORKS."""
    frameworks = [
        {"framework_info": _built(framework)} for framework, _ in by_framework(snapshot.tasks)
    ]
    return {"frameworks": frameworks, "completed_frameworks": []}


def v1_state(snapshot: Snapshot) -> Document:
    """GET_STATE."""
    return {
        "get_tasks": v1_tasks(snapshot),
        "get_executors": {"executors": [], "completed_executors": []},
        "get_frameworks": v1_frameworks(snapshot),
    }


def metrics_json(
    snapshot: Snapshot, counters: Mapping[str, int], *, registered: bool, now: float
) -> dict[str, float]:
    """GET /metrics/snapshot."""
    values: dict[str, float] = {
        "slave/registered": float(registered),
        "slave/uptime_secs": now - snapshot.started_at,
        "slave/frameworks_active": float(len(by_framework(snapshot.tasks))),
        "slave/executors_running": float(sum(not record.is_over for record in snapshot.tasks)),
    }
    used, total = snapshot.used.scalars(), snapshot.config.resources.scalars()
    for name in ("cpus", "mem", "disk", "gpus"):
        size, taken = total.get(name, 0.0), used.get(name, 0.0)
        values[f"slave/{name}_total"], values[f"slave/{name}_used"] = size, taken
        values[f"slave/{name}_percent"] = taken / size if size else 0.0
    for state in ("staging", "starting", "running", "killing"):
        values[f"slave/tasks_{state}"] = float(
            sum(record.state == f"TASK_{state.upper()}" for record in snapshot.tasks)
        )
    for name, count in counters.items():
        values[f"slave/{name}"] = float(count)
    return dict(sorted(values.items()))


def _role(framework: FrameworkInfo) -> str:
    return framework.role or next(iter(framework.roles), "*")


def _built(value: object) -> object:
    """A message as plain JSON values."""
    built: object = msgspec.to_builtins(value)
    return built
