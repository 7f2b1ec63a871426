"""The same records in the JSON of the endpoints before the v1 API (/state, /slaves, …), which dashboards and mesos-dns read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from mesaform.common.resources import EMPTY, Resources
from mesaform.engine.master.render import (
    AGENT_CAPABILITIES,
    VERSION,
    allocated_json,
    drain_json,
    offered_json,
)
from mesaform.engine.master.state import Agent, Framework, State, Task
from mesaform.mesos.messages import Attribute, TaskStatus, to_wire

SUMMARY_STATES = (
    "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_FINISHED", "TASK_KILLED", "TASK_FAILED", "TASK_LOST",
    "TASK_ERROR", "TASK_UNREACHABLE",
)  # fmt: skip


def resources_json(resources: Resources) -> dict[str, Any]:
    """The four scalars always, others and ports when there are any; ports as "[31000-31001]"."""
    document: dict[str, Any] = {
        "disk": 0.0,
        "mem": 0.0,
        "gpus": 0.0,
        "cpus": 0.0,
    } | resources.scalars()
    if resources.ports:
        document["ports"] = "[" + ", ".join(f"{low}-{high}" for low, high in resources.ports) + "]"
    return document


def attributes_json(attributes: list[Attribute]) -> dict[str, Any]:
    return {one.name: _attribute(one) for one in attributes}


def _attribute(one: Attribute) -> Any:
    if one.text is not None:
        return one.text.value
    if one.scalar is not None:
        return one.scalar.value
    if one.ranges is not None:
        return "[" + ", ".join(f"{part.begin}-{part.end}" for part in one.ranges.range) + "]"
    return "{" + ", ".join(one.set.item) + "}" if one.set is not None else ""


def status_json(status: TaskStatus) -> dict[str, Any]:
    document: dict[str, Any] = {"state": status.state, "timestamp": status.timestamp or 0.0}
    if status.labels is not None:
        document["labels"] = status.labels.labels
    if status.container_status is not None:
        document["container_status"] = {
            key: value for key, value in status.container_status.items() if key != "executor_pid"
        }
    if status.healthy is not None:
        document["healthy"] = status.healthy
    return document


def task_json(task: Task) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": task.id,
        "name": task.info.name,
        "framework_id": task.framework_id,
        "executor_id": "",
        "slave_id": task.agent_id,
        "state": task.state,
        "resources": resources_json(task.resources),
        "role": task.role,
        "statuses": [status_json(status) for status in task.statuses],
    }
    if task.info.labels is not None:
        document["labels"] = task.info.labels.labels
    if task.info.discovery is not None:
        document["discovery"] = task.info.discovery
    if task.info.container is not None:
        document["container"] = task.info.container
    return document


def agent_json(state: State, agent: Agent, *, full: bool = False) -> dict[str, Any]:
    """`full` adds the resources in the v1 form, as /slaves does."""
    document: dict[str, Any] = {
        "id": agent.id,
        "hostname": agent.info.hostname,
        "port": agent.info.port,
        "attributes": attributes_json(agent.info.attributes),
        "pid": f"slave(1)@{agent.address}",
        "registered_time": agent.registered_at,
        "resources": resources_json(agent.total),
        "used_resources": resources_json(agent.used()),
        "offered_resources": resources_json(agent.offered()),
        "reserved_resources": {},
        "unreserved_resources": resources_json(agent.total),
        "active": agent.connected and not state.is_deactivated(agent.id),
        "deactivated": state.is_deactivated(agent.id),
        "version": agent.version or VERSION,
        "capabilities": list(AGENT_CAPABILITIES),
    }
    if agent.reregistered_at is not None:
        document["reregistered_time"] = agent.reregistered_at
    record = state.record(agent.id)
    if record is not None and record.drain is not None:
        document["drain_info"] = drain_json(state, agent.id)
        document["estimated_drain_start_time_seconds"] = record.drain.started_at
    if full:
        document |= {
            "reserved_resources_full": {},
            "unreserved_resources_full": to_wire(agent.total, role="*"),
            "used_resources_full": allocated_json(agent.tasks.values()),
            "offered_resources_full": offered_json(agent.offers.values()),
        }
    return document


def recovered_json(state: State) -> list[dict[str, Any]]:
    found = []
    for agent_id in sorted(state.recovered):
        record = state.record(agent_id)
        if record is not None:
            info = record.info
            found.append(
                {
                    "id": agent_id,
                    "hostname": info.hostname,
                    "port": info.port,
                    "attributes": attributes_json(info.attributes),
                }
            )
    return found


def _summary(framework: Framework) -> dict[str, Any]:
    return {
        "id": framework.id,
        "name": framework.info.name,
        "used_resources": resources_json(framework.used()),
        "offered_resources": resources_json(framework.offered()),
        "capabilities": [one.type for one in framework.info.capabilities],
        "hostname": framework.info.hostname or "",
        "webui_url": framework.info.webui_url or "",
        "active": framework.active,
        "connected": framework.connected,
        "recovered": framework.recovered,
    }


def framework_json(framework: Framework) -> dict[str, Any]:
    document = _summary(framework) | {
        "user": framework.info.user,
        "failover_timeout": framework.info.failover_timeout or 0.0,
        "checkpoint": bool(framework.info.checkpoint),
        "registered_time": framework.registered_at,
        "unregistered_time": framework.unregistered_at or 0.0,
        "resources": resources_json(framework.used() + framework.offered()),
        "roles": list(framework.roles),
        "tasks": [task_json(task) for task in framework.tasks.values()],
        "unreachable_tasks": [task_json(task) for task in framework.unreachable.values()],
        "completed_tasks": [task_json(task) for task in framework.completed.values()],
        "offers": [
            {
                "id": offer.id,
                "framework_id": offer.framework_id,
                "allocation_info": {"role": offer.role},
                "slave_id": offer.agent_id,
                "resources": resources_json(offer.resources),
            }
            for offer in framework.offers.values()
        ],
        "executors": [],
        "offer_constraints": {},
    }
    if framework.reregistered_at != framework.registered_at:
        document["reregistered_time"] = framework.reregistered_at
    if framework.info.labels is not None:
        document["labels"] = msgspec.to_builtins(framework.info.labels.labels)
    return document


def frameworks_json(state: State) -> dict[str, Any]:
    return {
        "frameworks": [framework_json(one) for one in state.frameworks.values()],
        "completed_frameworks": [
            framework_json(one) for one in state.completed_frameworks.values()
        ],
        "unregistered_frameworks": [],
    }


def slaves_json(state: State) -> dict[str, Any]:
    return {
        "slaves": [agent_json(state, agent, full=True) for agent in state.agents.values()],
        "recovered_slaves": recovered_json(state),
    }


def all_tasks(state: State) -> Iterable[Task]:
    for framework in (*state.frameworks.values(), *state.completed_frameworks.values()):
        yield from framework.tasks.values()
        yield from framework.unreachable.values()
        yield from framework.completed.values()


def tasks_json(state: State, *, limit: int, offset: int, ascending: bool) -> dict[str, Any]:
    """A page of tasks by the time of their first status."""
    ordered = sorted(
        all_tasks(state),
        key=lambda task: task.statuses[0].timestamp or 0.0 if task.statuses else 0.0,
        reverse=not ascending,
    )
    return {"tasks": [task_json(task) for task in ordered[offset : offset + limit]]}


def roles_json(state: State) -> dict[str, Any]:
    held: dict[str, Resources] = {}
    members: dict[str, list[str]] = {}
    for framework in state.frameworks.values():
        for role in framework.roles:
            members.setdefault(role, []).append(framework.id)
        for task in framework.tasks.values():
            if not task.is_terminal:
                held[task.role] = held.get(task.role, EMPTY) + task.resources
        for offer in framework.offers.values():
            held[offer.role] = held.get(offer.role, EMPTY) + offer.resources
    return {
        "roles": [
            {
                "name": role,
                "weight": 1.0,
                "frameworks": members[role],
                "resources": resources_json(held.get(role, EMPTY)),
            }
            for role in sorted(members)
        ]
    }


def summary_json(state: State, hostname: str) -> dict[str, Any]:
    """/state-summary: counts instead of tasks."""
    by_agent: dict[str, Counter[str]] = {}
    by_framework: dict[str, Counter[str]] = {}
    agents_of: dict[str, dict[str, None]] = {}
    frameworks_of: dict[str, dict[str, None]] = {}
    for task in all_tasks(state):
        by_agent.setdefault(task.agent_id, Counter())[task.state] += 1
        by_framework.setdefault(task.framework_id, Counter())[task.state] += 1
        agents_of.setdefault(task.framework_id, {})[task.agent_id] = None
        frameworks_of.setdefault(task.agent_id, {})[task.framework_id] = None
    return {
        "hostname": hostname,
        "slaves": [
            agent_json(state, one)
            | _counts(by_agent.get(one.id))
            | {"framework_ids": list(frameworks_of.get(one.id, {}))}
            for one in state.agents.values()
        ],
        "frameworks": [
            _summary(one)
            | _counts(by_framework.get(one.id))
            | {"slave_ids": list(agents_of.get(one.id, {}))}
            for one in state.frameworks.values()
        ],
    }


def _counts(states: Counter[str] | None) -> dict[str, int]:
    return {state: (states or Counter())[state] for state in SUMMARY_STATES}


def state_json(state: State) -> dict[str, Any]:
    """The part of /state that the core knows; the process adds its own."""
    active = sum(
        agent.connected and not state.is_deactivated(agent.id) for agent in state.agents.values()
    )
    return {
        "activated_slaves": float(active),
        "deactivated_slaves": float(len(state.agents) - active),
        "unreachable_slaves": float(
            sum(record.state == "unreachable" for record in state.registry.agents.values())
        ),
        "slaves": [agent_json(state, agent) for agent in state.agents.values()],
        "recovered_slaves": recovered_json(state),
        "frameworks": [framework_json(one) for one in state.frameworks.values()],
        "completed_frameworks": [
            framework_json(one) for one in state.completed_frameworks.values()
        ],
        "orphan_tasks": [],
        "unregistered_frameworks": [],
    }
