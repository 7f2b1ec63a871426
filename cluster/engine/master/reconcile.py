"""RECONCILE: what the master can say for certain about a task, or silence when an agent may still come back with it."""

from __future__ import annotations

from typing import Any

from mesaform.engine.master.state import Framework, State, Task
from mesaform.engine.master.status import (
    master_generated_status,
    send_status,
    state_as_seen_by,
    unreachable_time,
)
from mesaform.mesos.messages import TaskStatus
from mesaform.mesos.scheduler_api import Reconcile, ReconcileTask

REASON = "REASON_RECONCILIATION"


def reconcile(state: State, framework: Framework, call: Reconcile) -> None:
    """Answer each task named; an empty list means every task the master knows of this framework."""
    state.counters["messages_reconcile_tasks"] += 1
    if not call.tasks:
        for task in framework.tasks.values():
            send_status(state, framework, latest(state, task))
        return
    for one in call.tasks:
        status = explain(state, framework, one)
        if status is not None:
            send_status(state, framework, status)


def latest(state: State, task: Task) -> TaskStatus:
    """A known task's state as its status updates have told it."""
    more: dict[str, Any] = {}
    if task.statuses:
        last = task.statuses[-1]
        more = {"container_status": last.container_status, "healthy": last.healthy}
    task_state = task.update_state or task.state
    return master_generated_status(
        state,
        task.id,
        task_state,
        REASON,
        "Reconciliation: Latest task state",
        task.agent_id,
        **more,
    )


def explain(state: State, framework: Framework, one: ReconcileTask) -> TaskStatus | None:
    """The one true answer about a task, or None while it is not certain."""
    task_id = one.task_id.value
    if task_id in framework.tasks:
        return latest(state, framework.tasks[task_id])
    agent_id = one.agent_id.value if one.agent_id is not None else None
    if _uncertain(state, agent_id):
        return None
    lost = framework.unreachable.get(task_id)
    if lost is not None and agent_id in {None, lost.agent_id}:
        task_state, message = (
            state_as_seen_by(framework, "TASK_UNREACHABLE"),
            "Reconciliation: Task is unreachable",
        )
        return master_generated_status(
            state, task_id, task_state, REASON, message, lost.agent_id, **unreachable_time(lost)
        )
    task_state, message, more = _unknown_task(state, agent_id)
    return master_generated_status(
        state,
        task_id,
        state_as_seen_by(framework, task_state),
        REASON,
        f"Reconciliation: {message}",
        agent_id,
        **more,
    )


def _uncertain(state: State, agent_id: str | None) -> bool:
    if agent_id is None:
        return bool(state.recovered)
    return agent_id in state.recovered or agent_id in state.in_flight


def _unknown_task(state: State, agent_id: str | None) -> tuple[str, str, dict[str, Any]]:
    if agent_id is not None:
        if agent_id in state.agents:
            return "TASK_GONE", "Task is unknown to the agent", {}
        if state.is_unreachable(agent_id):
            record = state.record(agent_id)
            since = record.since if record is not None else 0.0
            return (
                "TASK_UNREACHABLE",
                "Task is unreachable",
                {"unreachable_time": {"nanoseconds": int(since * 1e9)}},
            )
        if state.is_gone(agent_id):
            return "TASK_GONE_BY_OPERATOR", "Task is gone", {}
    return "TASK_UNKNOWN", "Task is unknown", {}
