"""The records of the core as documents of the v1 API: agents, frameworks, tasks and roles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from mesaform.common.resources import Resources
from mesaform.engine.documents import Document
from mesaform.mesos.messages import Resource, TaskInfo, to_wire

if TYPE_CHECKING:
    from mesaform.engine.master.state import Agent, Framework, Offer, State, Task

VERSION = "1.12.0"
"""The Mesos release whose protocol the engine speaks. Clients compare it."""
AGENT_CAPABILITIES = (
    "MULTI_ROLE", "HIERARCHICAL_ROLE", "RESERVATION_REFINEMENT", "AGENT_OPERATION_FEEDBACK",
    "AGENT_DRAINING",
)  # fmt: skip

_TASK_FIELDS = ("kill_policy", "health_check", "check", "labels", "discovery", "container")


def nanoseconds(seconds: float) -> dict[str, int]:
    """A DurationInfo or TimeInfo of seconds."""
    return {"nanoseconds": int(seconds * 1e9)}


def task_json(task: Task) -> Document:
    """The v1 Task message, as in GET_TASKS and TASK_ADDED."""
    document: Document = {
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
    document.update(_public_fields(task.info))
    return document


def _public_fields(info: TaskInfo) -> Document:
    """The optional fields of a task that others may see. Its command may hold secrets."""
    return {name: value for name in _TASK_FIELDS if (value := getattr(info, name)) is not None}


def tasks_json(state: State) -> Document:
    """The body of GET_TASKS."""
    frameworks = [*state.frameworks.values(), *state.completed_frameworks.values()]
    return {
        "tasks": [task_json(task) for framework in frameworks for task in framework.tasks.values()],
        "unreachable_tasks": [
            task_json(task) for framework in frameworks for task in framework.unreachable.values()
        ],
        "completed_tasks": [
            task_json(task) for framework in frameworks for task in framework.completed.values()
        ],
    }


def _agent_info_json(agent: Agent) -> Document:
    info: Document = msgspec.to_builtins(agent.info)
    info["port"] = agent.info.port
    info["id"] = {"value": agent.id}
    info["checkpoint"] = True
    return info


def agent_json(state: State, agent: Agent) -> Document:
    """An agent as in GET_AGENTS and AGENT_ADDED."""
    document: Document = {
        "agent_info": _agent_info_json(agent),
        "active": state.is_active(agent),
        "deactivated": state.is_deactivated(agent.id),
        "version": agent.version or VERSION,
        "pid": f"slave(1)@{agent.address}",
        "registered_time": nanoseconds(agent.registered_at),
        "total_resources": to_wire(agent.total, role="*"),
        "capabilities": [{"type": name} for name in AGENT_CAPABILITIES],
    }
    document |= _reregistration(agent)
    if allocated := allocated_json(agent.tasks.values()):
        document["allocated_resources"] = allocated
    if offered := offered_json(agent.offers.values()):
        document["offered_resources"] = offered
    record = state.record(agent.id)
    if record is not None and record.drain is not None:
        document["drain_info"] = drain_json(state, agent.id)
        document["estimated_drain_start_time"] = nanoseconds(int(record.drain.started_at))
    return document


def _reregistration(agent: Agent) -> Document:
    """When an agent returned; and how many records it set aside, which Apache Mesos has not."""
    document: Document = {}
    if agent.reregistered_at is not None:
        document["reregistered_time"] = nanoseconds(agent.reregistered_at)
    if agent.records_set_aside:
        document["records_set_aside"] = agent.records_set_aside
    return document


def drain_json(state: State, agent_id: str) -> Document | None:
    """The agent's DrainInfo; None for an agent that was not drained."""
    record = state.record(agent_id)
    if record is None or record.drain is None:
        return None
    config: Document = {"mark_gone": record.drain.mark_gone}
    if record.drain.max_grace_s is not None:
        config["max_grace_period"] = nanoseconds(record.drain.max_grace_s)
    return {"state": record.drain.state, "config": config}


def allocated_json(tasks: Iterable[Task]) -> list[Resource]:
    """What live tasks hold, summed by role."""
    return _by_role((task.role, task.resources) for task in tasks if not task.is_terminal)


def offered_json(offers: Iterable[Offer]) -> list[Resource]:
    """What offers hold, summed by role."""
    return _by_role((offer.role, offer.resources) for offer in offers)


def _by_role(holdings: Iterable[tuple[str, Resources]]) -> list[Resource]:
    sums = sum_by_role(holdings)
    return [
        resource
        for role in sorted(sums)
        for resource in to_wire(sums[role], role="*", allocated_to=role)
    ]


def sum_by_role(holdings: Iterable[tuple[str, Resources]]) -> dict[str, Resources]:
    """The sum of the vectors of each role."""
    sums: dict[str, Resources] = {}
    for role, resources in holdings:
        sums[role] = sums[role] + resources if role in sums else resources
    return sums


def agents_json(state: State) -> Document:
    """The body of GET_AGENTS."""
    recovered = [
        record.info
        for agent_id in sorted(state.recovered)
        if (record := state.record(agent_id)) is not None
    ]
    return {
        "agents": [agent_json(state, agent) for agent in state.agents.values()],
        "recovered_agents": recovered,
    }


def framework_json(state: State, framework: Framework) -> Document:
    """A framework as in GET_FRAMEWORKS and FRAMEWORK_ADDED."""
    document: Document = {
        "framework_info": framework.info,
        "active": framework.is_active,
        "connected": framework.is_connected,
        "recovered": framework.is_recovered,
        "registered_time": nanoseconds(framework.registered_at),
        "reregistered_time": nanoseconds(framework.reregistered_at),
    }
    if framework.unregistered_at is not None:
        document["unregistered_time"] = nanoseconds(framework.unregistered_at)
    if framework.offers:
        document["offers"] = [state.offer_json(offer) for offer in framework.offers.values()]
        document["offered_resources"] = offered_json(framework.offers.values())
    if allocated := allocated_json(framework.tasks.values()):
        document["allocated_resources"] = allocated
    document["offer_constraints"] = {}
    return document


def frameworks_json(state: State) -> Document:
    """The body of GET_FRAMEWORKS."""
    return {
        "frameworks": [framework_json(state, framework) for framework in state.frameworks.values()],
        "completed_frameworks": [
            framework_json(state, framework) for framework in state.completed_frameworks.values()
        ],
    }


def members_by_role(state: State) -> dict[str, list[str]]:
    """The ids of the frameworks that subscribe to each role."""
    members: dict[str, list[str]] = {}
    for framework in state.frameworks.values():
        for role in framework.roles:
            members.setdefault(role, []).append(framework.id)
    return members


def holdings_of(framework: Framework) -> Iterable[tuple[str, Resources]]:
    """The role and resources of each live task and each offer of a framework."""
    for task in framework.tasks.values():
        if not task.is_terminal:
            yield task.role, task.resources
    for offer in framework.offers.values():
        yield offer.role, offer.resources


def roles_json(state: State) -> Document:
    """The body of GET_ROLES: each role with a framework. It is empty when there is none."""
    members = members_by_role(state)
    held = sum_by_role(
        holding
        for framework in state.frameworks.values()
        for holding in holdings_of(framework)
        if holding[0] in framework.roles
    )
    roles: list[Document] = []
    for role in sorted(members):
        entry: Document = {
            "name": role,
            "weight": 1.0,
            "frameworks": [{"value": framework_id} for framework_id in members[role]],
        }
        if role in held:
            entry["resources"] = to_wire(held[role], role="*", allocated_to=role)
        roles.append(entry)
    return {"roles": roles} if roles else {}


def state_json(state: State) -> Document:
    """The body of GET_STATE."""
    return {
        "get_tasks": tasks_json(state),
        "get_executors": {"executors": []},
        "get_frameworks": frameworks_json(state),
        "get_agents": agents_json(state),
    }
