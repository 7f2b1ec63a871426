"""The records of the core as documents of the endpoints before the v1 API (/state, /slaves, …).

Dashboards and mesos-dns read these.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from mesaform.common.resources import EMPTY, Range, Resources
from mesaform.engine.documents import Document
from mesaform.engine.master.render import (
    AGENT_CAPABILITIES,
    VERSION,
    allocated_json,
    drain_json,
    holdings_of,
    members_by_role,
    offered_json,
    sum_by_role,
)
from mesaform.engine.master.state import Agent, Framework, Offer, State, Task
from mesaform.mesos.messages import Attribute, TaskStatus, to_wire

SUMMARY_STATES = (
    "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_FINISHED", "TASK_KILLED",
    "TASK_FAILED", "TASK_LOST", "TASK_ERROR", "TASK_UNREACHABLE",
)  # fmt: skip


def resources_json(resources: Resources) -> Document:
    """The four scalars in any case, others where present, and ports as "[31000-31001]"."""
    document: Document = {"disk": 0.0, "mem": 0.0, "gpus": 0.0, "cpus": 0.0}
    document.update(resources.scalars())
    if resources.ports:
        document["ports"] = _ranges_text(resources.ports)
    return document


def _ranges_text(ranges: Iterable[Range]) -> str:
    return "[" + ", ".join(f"{low}-{high}" for low, high in ranges) + "]"


def attributes_json(attributes: list[Attribute]) -> Document:
    """Each attribute's value by its name."""
    return {attribute.name: _attribute_value(attribute) for attribute in attributes}


def _attribute_value(attribute: Attribute) -> str | float:
    if attribute.text is not None:
        return attribute.text.value
    if attribute.scalar is not None:
        return attribute.scalar.value
    if attribute.ranges is not None:
        return _ranges_text((part.begin, part.end) for part in attribute.ranges.range)
    return "{" + ", ".join(attribute.set.item) + "}" if attribute.set is not None else ""


def status_json(status: TaskStatus) -> Document:
    """A status of a task."""
    document: Document = {"state": status.state, "timestamp": status.timestamp or 0.0}
    if status.labels is not None:
        document["labels"] = status.labels.labels
    if status.container_status is not None:
        document["container_status"] = msgspec.structs.replace(
            status.container_status, executor_pid=None
        )
    if status.healthy is not None:
        document["healthy"] = status.healthy
    return document


def task_json(task: Task) -> Document:
    """A task as in /tasks and /state."""
    document: Document = {
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


def agent_json(state: State, agent: Agent, *, full: bool = False) -> Document:
    """An agent as in /state; `full` adds the resources in the v1 form, as in /slaves."""
    document: Document = {
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
        "active": state.is_active(agent),
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
        document["reserved_resources_full"] = {}
        document["unreserved_resources_full"] = to_wire(agent.total, role="*")
        document["used_resources_full"] = allocated_json(agent.tasks.values())
        document["offered_resources_full"] = offered_json(agent.offers.values())
    return document


def recovered_json(state: State) -> list[Document]:
    """Agents of an earlier term that have not registered yet."""
    documents: list[Document] = []
    for agent_id in sorted(state.recovered):
        record = state.record(agent_id)
        if record is not None:
            info = record.info
            documents.append(
                {
                    "id": agent_id,
                    "hostname": info.hostname,
                    "port": info.port,
                    "attributes": attributes_json(info.attributes),
                }
            )
    return documents


def _summary(framework: Framework) -> Document:
    return {
        "id": framework.id,
        "name": framework.info.name,
        "used_resources": resources_json(framework.used()),
        "offered_resources": resources_json(framework.offered()),
        "capabilities": [capability.type for capability in framework.info.capabilities],
        "hostname": framework.info.hostname or "",
        "webui_url": framework.info.webui_url or "",
        "active": framework.is_active,
        "connected": framework.is_connected,
        "recovered": framework.is_recovered,
    }


def framework_json(framework: Framework) -> Document:
    """A framework as in /frameworks and /state."""
    document = _summary(framework) | {
        "user": framework.info.user,
        "failover_timeout": framework.info.failover_timeout or 0.0,
        "checkpoint": bool(framework.info.checkpoint),
        "registered_time": framework.registered_at,
        "unregistered_time": framework.unregistered_at or 0.0,
        "resources": resources_json(framework.used() + framework.offered()),
        "roles": list(framework.roles),
        "tasks": _tasks(framework.tasks.values()),
        "unreachable_tasks": _tasks(framework.unreachable.values()),
        "completed_tasks": _tasks(framework.completed.values()),
        "offers": [_offer_json(offer) for offer in framework.offers.values()],
        "executors": [],
        "offer_constraints": {},
    }
    if framework.reregistered_at != framework.registered_at:
        document["reregistered_time"] = framework.reregistered_at
    if framework.info.labels is not None:
        document["labels"] = msgspec.to_builtins(framework.info.labels.labels)
    return document


def _tasks(tasks: Iterable[Task]) -> list[Document]:
    return [task_json(task) for task in tasks]


def _offer_json(offer: Offer) -> Document:
    return {
        "id": offer.id,
        "framework_id": offer.framework_id,
        "allocation_info": {"role": offer.role},
        "slave_id": offer.agent_id,
        "resources": resources_json(offer.resources),
    }


def _frameworks(frameworks: Iterable[Framework]) -> list[Document]:
    return [framework_json(framework) for framework in frameworks]


def frameworks_json(state: State) -> Document:
    """/frameworks."""
    return {
        "frameworks": _frameworks(state.frameworks.values()),
        "completed_frameworks": _frameworks(state.completed_frameworks.values()),
        "unregistered_frameworks": [],
    }


def slaves_json(state: State) -> Document:
    """/slaves."""
    return {
        "slaves": [agent_json(state, agent, full=True) for agent in state.agents.values()],
        "recovered_slaves": recovered_json(state),
    }


def all_tasks(state: State) -> Iterable[Task]:
    """Each task of each framework, live, unreachable and completed."""
    for framework in (*state.frameworks.values(), *state.completed_frameworks.values()):
        yield from framework.tasks.values()
        yield from framework.unreachable.values()
        yield from framework.completed.values()


def tasks_json(state: State, *, limit: int, offset: int, ascending: bool) -> Document:
    """/tasks: a page of tasks, ordered by the time of their first status."""
    ordered = sorted(
        all_tasks(state),
        key=lambda task: task.statuses[0].timestamp or 0.0 if task.statuses else 0.0,
        reverse=not ascending,
    )
    return {"tasks": _tasks(ordered[offset : offset + limit])}


def roles_json(state: State) -> Document:
    """/roles: each role with a framework."""
    members = members_by_role(state)
    held = sum_by_role(
        holding for framework in state.frameworks.values() for holding in holdings_of(framework)
    )
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


def summary_json(state: State, hostname: str) -> Document:
    """/state-summary: counts of tasks by state."""
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
            agent_json(state, agent)
            | _counts(by_agent.get(agent.id))
            | {"framework_ids": list(frameworks_of.get(agent.id, {}))}
            for agent in state.agents.values()
        ],
        "frameworks": [
            _summary(framework)
            | _counts(by_framework.get(framework.id))
            | {"slave_ids": list(agents_of.get(framework.id, {}))}
            for framework in state.frameworks.values()
        ],
    }


def _counts(states: Counter[str] | None) -> Document:
    return {state: (states or Counter())[state] for state in SUMMARY_STATES}


def state_json(state: State) -> Document:
    """The part of /state that the core knows. The process adds its own facts."""
    active = sum(state.is_active(agent) for agent in state.agents.values())
    unreachable = sum(record.state == "unreachable" for record in state.registry.agents.values())
    return {
        "activated_slaves": float(active),
        "deactivated_slaves": float(len(state.agents) - active),
        "unreachable_slaves": float(unreachable),
        "slaves": [agent_json(state, agent) for agent in state.agents.values()],
        "recovered_slaves": recovered_json(state),
        "frameworks": _frameworks(state.frameworks.values()),
        "completed_frameworks": _frameworks(state.completed_frameworks.values()),
        "orphan_tasks": [],
        "unregistered_frameworks": [],
    }
