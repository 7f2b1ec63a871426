"""What the agent's pages say, in Mesos' shapes: the legacy JSON and the v1 calls. Values in, dictionaries out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from mesaform.common.resources import Range, Resources
from mesaform.engine.agent.config import MESOS_VERSION, Config
from mesaform.engine.agent.containerizer import Usage
from mesaform.engine.agent.tasks import TaskRecord
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
VERSION_FACTS: dict[str, Any] = {
    "version": MESOS_VERSION,
    "build_date": "2026-11-21 00:00:00 UTC",
    "build_time": 1795219200.0,
    "build_user": "mesaform",
    "git_sha": "",
    "git_branch": "",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """An agent at one moment. `sandboxes` is each container's folder; `port` is where its HTTP server listens."""

    config: Config
    agent_id: str
    master_hostname: str
    port: int
    started_at: float
    tasks: list[TaskRecord]
    sandboxes: Mapping[str, str]

    @property
    def used(self) -> Resources:
        """What tasks that are not over hold."""
        total = Resources()
        for record in self.tasks:
            if not record.is_over:
                total += from_wire(record.task.resources)
        return total


def resources_json(resources: Resources) -> dict[str, Any]:
    """`{"cpus": 4.0, …, "ports": "[31000-32000]"}`, with the four scalars always there."""
    shown: dict[str, Any] = {
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
    return "[" + ", ".join(f"{low}-{high}" for low, high in ranges) + "]"


def state_json(scene: Scene) -> dict[str, Any]:
    """GET /state."""
    config = scene.config
    full = msgspec.to_builtins(to_wire(config.resources, role="*"))
    state: dict[str, Any] = {
        **VERSION_FACTS,
        "start_time": scene.started_at,
        "id": scene.agent_id,
        "pid": f"slave(1)@{config.ip}:{scene.port}",
        "hostname": config.hostname,
        "capabilities": CAPABILITIES,
        "resources": resources_json(config.resources),
        "reserved_resources": {},
        "unreserved_resources": resources_json(config.resources),
        "reserved_resources_full": {},
        "unreserved_resources_full": full,
        "reserved_resources_allocated": {},
        "unreserved_resources_allocated": resources_json(scene.used),
        "resource_providers": [],
        "attributes": {
            attribute.name: attribute_json(attribute) for attribute in config.attributes
        },
        "master_hostname": scene.master_hostname,
        "flags": dict(config.flags),
        "frameworks": [
            framework_json(scene, framework, records)
            for framework, records in by_framework(scene.tasks)
        ],
        "completed_frameworks": [],
    }
    return state


def attribute_json(attribute: Attribute) -> Any:
    if attribute.scalar is not None:
        return attribute.scalar.value
    if attribute.ranges is not None:
        return ranges_text((part.begin, part.end) for part in attribute.ranges.range)
    return attribute.text.value if attribute.text is not None else ""


def by_framework(records: Iterable[TaskRecord]) -> list[tuple[FrameworkInfo, list[TaskRecord]]]:
    groups: dict[str, tuple[FrameworkInfo, list[TaskRecord]]] = {}
    for record in records:
        groups.setdefault(record.framework_id, (record.framework, []))[1].append(record)
    return list(groups.values())


def framework_json(
    scene: Scene, framework: FrameworkInfo, records: list[TaskRecord]
) -> dict[str, Any]:
    return {
        "id": framework.id.value if framework.id else "",
        "name": framework.name,
        "user": framework.user,
        "failover_timeout": framework.failover_timeout or 0.0,
        "checkpoint": bool(framework.checkpoint),
        "hostname": framework.hostname or "",
        "role": _role(framework),
        "executors": [executor_json(scene, record) for record in records if not record.is_over],
        "completed_executors": [
            executor_json(scene, record) for record in records if record.is_over
        ],
    }


def executor_json(scene: Scene, record: TaskRecord) -> dict[str, Any]:
    """Each command task is its own executor, as in Mesos."""
    task = task_json(record)
    return {
        "id": record.task_id,
        "name": executor_name(record),
        "source": record.task_id,
        "container": record.container_id,
        "directory": scene.sandboxes.get(record.container_id, ""),
        "resources": resources_json(from_wire(record.task.resources)),
        "role": _role(record.framework),
        "tasks": [] if record.is_over else [task],
        "queued_tasks": [],
        "completed_tasks": [task] if record.is_over else [],
    }


def executor_name(record: TaskRecord) -> str:
    command = record.task.command
    line = "" if command is None else (command.value or " ".join(command.arguments))
    shown = f"sh -c '{line}'" if command is not None and command.shell is not False else line
    return f"Command Executor (Task: {record.task_id}) (Command: {shown})"


def task_json(record: TaskRecord) -> dict[str, Any]:
    return {
        "id": record.task_id,
        "name": record.task.name,
        "framework_id": record.framework_id,
        "executor_id": "",
        "slave_id": record.task.agent_id.value,
        "state": record.told,
        "resources": resources_json(from_wire(record.task.resources)),
        "role": _role(record.framework),
        "statuses": [status_json(status) for status in record.statuses],
    }


def status_json(status: TaskStatus) -> dict[str, Any]:
    shown: dict[str, Any] = {"state": status.state, "timestamp": status.timestamp}
    if status.container_status is not None:
        shown["container_status"] = {
            name: value for name, value in status.container_status.items() if name != "executor_pid"
        }
    if status.healthy is not None:
        shown["healthy"] = status.healthy
    return shown


def statistics_json(record: TaskRecord, usage: Usage, now: float) -> dict[str, Any]:
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


def container_json(record: TaskRecord, usage: Usage, now: float) -> dict[str, Any]:
    """One entry of /containers."""
    return {
        "container_id": record.container_id,
        **statistics_json(record, usage, now),
        "status": {
            "container_id": {"value": record.container_id},
            "executor_pid": record.executor_pid,
        },
    }


def v1_container(record: TaskRecord, usage: Usage, now: float) -> dict[str, Any]:
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


def v1_agent_info(scene: Scene) -> dict[str, Any]:
    info: AgentInfo = msgspec.structs.replace(
        scene.config.info, id=ident(scene.agent_id) if scene.agent_id else None, port=scene.port
    )
    return {"port": scene.port, **_built(info)}


def v1_task(record: TaskRecord) -> dict[str, Any]:
    """The v1 Task message."""
    task: dict[str, Any] = {
        "name": record.task.name,
        "task_id": {"value": record.task_id},
        "framework_id": {"value": record.framework_id},
        "agent_id": _built(record.task.agent_id),
        "state": record.told,
        "resources": _built(record.task.resources),
        "statuses": _built(record.statuses),
        "user": (record.task.command.user if record.task.command else None)
        or record.framework.user,
    }
    if record.statuses:
        task["status_update_state"] = record.statuses[-1].state
    return task


def v1_tasks(scene: Scene) -> dict[str, Any]:
    """GET_TASKS."""
    grouped: dict[str, list[dict[str, Any]]] = {
        "pending_tasks": [],
        "queued_tasks": [],
        "launched_tasks": [],
        "terminated_tasks": [],
        "completed_tasks": [],
    }
    for record in scene.tasks:
        waiting = record.state == "TASK_STAGING"
        grouped[
            "terminated_tasks"
            if record.is_over
            else "queued_tasks"
            if waiting
            else "launched_tasks"
        ].append(v1_task(record))
    return grouped


def v1_state(scene: Scene) -> dict[str, Any]:
    """GET_STATE."""
    frameworks = [
        {"framework_info": _built(framework)} for framework, _ in by_framework(scene.tasks)
    ]
    return {
        "get_tasks": v1_tasks(scene),
        "get_executors": {"executors": [], "completed_executors": []},
        "get_frameworks": {"frameworks": frameworks, "completed_frameworks": []},
    }


def metrics_json(
    scene: Scene, counters: Mapping[str, int], *, registered: bool, now: float
) -> dict[str, float]:
    """GET /metrics/snapshot."""
    values: dict[str, float] = {
        "slave/registered": float(registered),
        "slave/uptime_secs": now - scene.started_at,
        "slave/frameworks_active": float(len(by_framework(scene.tasks))),
        "slave/executors_running": float(sum(not record.is_over for record in scene.tasks)),
    }
    used, total = scene.used.scalars(), scene.config.resources.scalars()
    for name in ("cpus", "mem", "disk", "gpus"):
        have, taken = total.get(name, 0.0), used.get(name, 0.0)
        values[f"slave/{name}_total"], values[f"slave/{name}_used"] = have, taken
        values[f"slave/{name}_percent"] = taken / have if have else 0.0
    for state in ("staging", "starting", "running", "killing"):
        values[f"slave/tasks_{state}"] = float(
            sum(record.state == f"TASK_{state.upper()}" for record in scene.tasks)
        )
    for name, count in counters.items():
        values[f"slave/{name}"] = float(count)
    return dict(sorted(values.items()))


def _role(framework: FrameworkInfo) -> str:
    return framework.role or next(iter(framework.roles), "*")


def _built(value: object) -> Any:
    return msgspec.to_builtins(value)
