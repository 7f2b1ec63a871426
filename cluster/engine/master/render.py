"""The core's records as the v1 API's JSON: agents, frameworks, tasks, offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mesaform.mesos.messages import TaskInfo, to_wire

if TYPE_CHECKING:
    from mesaform.engine.master.state import Agent, Framework, State, Task

VERSION = "1.12.0"
"""The Mesos release whose protocol this is; clients compare it."""
AGENT_CAPABILITIES = (
    "MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT", "AGENT_OPERATION_FEEDBACK", "AGENT_DRAINING",
)  # fmt: skip

_TASK_FIELDS = ("kill_policy", "health_check", "check", "labels", "discovery", "container")


def nanoseconds(seconds: float) -> dict[str, int]:
    return {"nanoseconds": int(seconds * 1e9)}


def task_json(task: Task) -> dict[str, Any]:
    """A task as GET_TASKS and TASK_ADDED show it."""
    document: dict[str, Any] = {
        "name": task.info.name,
        "task_id": task.info.task_id,
        "framework_id": {"value": task.framework_id},
        "agent_id": {"value": task.agent_id},
        "state": task.state,
        "resources": task.info.resources,
    }
    if task.statuses:
        document["statuses"] = task.statuses
    if task.update_state is not None:
        document["status_update_state"] = task.update_state
    if task.update_uuid is not None:
        document["status_update_uuid"] = task.update_uuid
    document.update(_told(task.info))
    return document


def _told(info: TaskInfo) -> dict[str, Any]:
    """What a task says of itself and others may want to know; not its command, which may hold secrets."""
    return {name: value for name in _TASK_FIELDS if (value := getattr(info, name)) is not None}


def tasks_json(state: State) -> dict[str, Any]:
    everybody = [*state.frameworks.values(), *state.completed_frameworks.values()]
    return {
        "tasks": [task_json(task) for framework in everybody for task in framework.tasks.values()],
        "unreachable_tasks": [
            task_json(task) for framework in everybody for task in framework.unreachable.values()
        ],
        "completed_tasks": [
            task_json(task) for framework in everybody for task in framework.completed.values()
        ],
    }


def agent_info_json(agent: Agent) -> dict[str, Any]:
    info: dict[str, Any] = msgspec.to_builtins(agent.info)
    info["port"] = agent.info.port
    info["id"] = {"value": agent.id}
    info["checkpoint"] = True
    return info


def agent_json(state: State, agent: Agent) -> dict[str, Any]:
    """An agent as GET_AGENTS and AGENT_ADDED show it."""
    document: dict[str, Any] = {
        "agent_info": agent_info_json(agent),
        "active": agent.connected and not state.is_deactivated(agent.id),
        "deactivated": state.is_deactivated(agent.id),
        "version": agent.version or VERSION,
        "pid": f"slave(1)@{agent.address}",
        "registered_time": nanoseconds(agent.registered_at),
        "total_resources": to_wire(agent.total, role="*"),
        "capabilities": [{"type": name} for name in AGENT_CAPABILITIES],
    }
    if agent.reregistered_at is not None:
        document["reregistered_time"] = nanoseconds(agent.reregistered_at)
    allocated = allocated_json(agent.tasks.values())
    if allocated:
        document["allocated_resources"] = allocated
    offered = offered_json(agent.offers.values())
    if offered:
        document["offered_resources"] = offered
    drain = drain_json(state, agent.id)
    if drain is not None:
        document["drain_info"] = drain
        record = state.record(agent.id)
        started_at = (
            record.drain.started_at if record is not None and record.drain is not None else 0.0
        )
        document["estimated_drain_start_time"] = nanoseconds(int(started_at))
    return document


def drain_json(state: State, agent_id: str) -> dict[str, Any] | None:
    """`drain_info`, or None for an agent that was not drained."""
    record = state.record(agent_id)
    if record is None or record.drain is None:
        return None
    config: dict[str, Any] = {"mark_gone": record.drain.mark_gone}
    if record.drain.max_grace_s is not None:
        config["max_grace_period"] = nanoseconds(record.drain.max_grace_s)
    return {"state": record.drain.state, "config": config}


def allocated_json(tasks: Any) -> list[Any]:
    """What running tasks hold, summed by role."""
    by_role: dict[str, Any] = {}
    for task in tasks:
        if not task.is_terminal:
            by_role[task.role] = (
                by_role[task.role] + task.resources if task.role in by_role else task.resources
            )
    return [
        one
        for role in sorted(by_role)
        for one in to_wire(by_role[role], role="*", allocated_to=role)
    ]


def offered_json(offers: Any) -> list[Any]:
    """What offers hold, summed by role."""
    by_role: dict[str, Any] = {}
    for offer in offers:
        by_role[offer.role] = (
            by_role[offer.role] + offer.resources if offer.role in by_role else offer.resources
        )
    return [
        one
        for role in sorted(by_role)
        for one in to_wire(by_role[role], role="*", allocated_to=role)
    ]


def agents_json(state: State) -> dict[str, Any]:
    recovered = [
        record.info
        for agent_id in sorted(state.recovered)
        if (record := state.record(agent_id)) is not None
    ]
    return {
        "agents": [agent_json(state, agent) for agent in state.agents.values()],
        "recovered_agents": recovered,
    }


def framework_json(state: State, framework: Framework) -> dict[str, Any]:
    """A framework as GET_FRAMEWORKS and FRAMEWORK_ADDED show it."""
    document: dict[str, Any] = {
        "framework_info": framework.info,
        "active": framework.active,
        "connected": framework.connected,
        "recovered": framework.recovered,
        "registered_time": nanoseconds(framework.registered_at),
        "reregistered_time": nanoseconds(framework.reregistered_at),
    }
    if framework.unregistered_at is not None:
        document["unregistered_time"] = nanoseconds(framework.unregistered_at)
    if framework.offers:
        document["offers"] = [state.offer_json(offer) for offer in framework.offers.values()]
        document["offered_resources"] = offered_json(framework.offers.values())
    allocated = allocated_json(framework.tasks.values())
    if allocated:
        document["allocated_resources"] = allocated
    document["offer_constraints"] = {}
    return document


def frameworks_json(state: State) -> dict[str, Any]:
    return {
        "frameworks": [framework_json(state, framework) for framework in state.frameworks.values()],
        "completed_frameworks": [
            framework_json(state, framework) for framework in state.completed_frameworks.values()
        ],
    }


def roles_json(state: State) -> dict[str, Any]:
    """GET_ROLES: each role with a framework, what it holds and who is in it; {} when there is none."""
    roles: dict[str, dict[str, Any]] = {}
    for framework in state.frameworks.values():
        for role in framework.roles:
            entry = roles.setdefault(
                role, {"name": role, "weight": 1.0, "frameworks": [], "resources": None}
            )
            entry["frameworks"].append({"value": framework.id})
            held = [
                task.resources
                for task in framework.tasks.values()
                if task.role == role and not task.is_terminal
            ]
            held += [offer.resources for offer in framework.offers.values() if offer.role == role]
            for one in held:
                entry["resources"] = one if entry["resources"] is None else entry["resources"] + one
    for role, entry in roles.items():
        resources = entry.pop("resources")
        if resources is not None:
            entry["resources"] = to_wire(resources, role="*", allocated_to=role)
    return {"roles": [roles[role] for role in sorted(roles)]} if roles else {}


def state_json(state: State) -> dict[str, Any]:
    return {
        "get_tasks": tasks_json(state),
        "get_executors": {"executors": []},
        "get_frameworks": frameworks_json(state),
        "get_agents": agents_json(state),
    }
