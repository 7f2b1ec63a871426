"""RECONCILE: the state of a task, as far as the master is certain.

The master does not answer while an agent may still return with the task. The order of the rules
is that of Mesos' Master::_reconcileTasks.
"""

from __future__ import annotations

import msgspec

from mesaform.engine.documents import Document
from mesaform.engine.master.state import Framework, State, Task
from mesaform.engine.master.status import Cause, generate_status, send_status
from mesaform.mesos.messages import TaskStatus
from mesaform.mesos.scheduler_api import Reconcile, ReconcileOperations, ReconcileTask

REASON = "REASON_RECONCILIATION"


def reconcile(state: State, framework: Framework, call: Reconcile) -> None:
    """Send a status for each task of the call; for every known task when it names none."""
    state.counters["messages_reconcile_tasks"] += 1
    if not call.tasks:
        for task in framework.tasks.values():
            send_status(state, framework, _known_status(state, task))
        return
    for query in call.tasks:
        status = explain(state, framework, query)
        if status is not None:
            send_status(state, framework, status)


def reconcile_operations(state: State, framework: Framework, call: ReconcileOperations) -> None:
    """Send a status for each operation of the call. This engine has none, so all are unknown."""
    for query in call.operations:
        agent_id = query.agent_id.value if query.agent_id is not None else None
        outcome, message = _unknown_operation(state, agent_id)
        status: Document = {
            "operation_id": query.operation_id,
            "state": outcome,
            "message": f"Reconciliation: {message}",
        }
        for name in ("agent_id", "resource_provider_id"):
            if getattr(query, name) is not None:
                status[name] = getattr(query, name)
        state.send_event(framework, "UPDATE_OPERATION_STATUS", {"status": status})


def _unknown_operation(state: State, agent_id: str | None) -> tuple[str, str]:
    """The state of an unknown operation and why, by the rules of Master::reconcileOperations."""
    if agent_id is not None:
        if agent_id in state.recovered:
            return "OPERATION_RECOVERING", "Agent is recovered but has not re-registered"
        if state.is_unreachable(agent_id):
            return "OPERATION_UNREACHABLE", "Agent is unreachable"
        if state.is_gone(agent_id):
            return "OPERATION_GONE_BY_OPERATOR", "Agent marked gone by operator"
        if agent_id not in state.agents:
            return "OPERATION_UNKNOWN", "Both operation and agent are unknown"
        return "OPERATION_UNKNOWN", "Operation is unknown"
    return "OPERATION_UNKNOWN", "Operation is unknown and no 'agent_id' was provided"


def explain(state: State, framework: Framework, query: ReconcileTask) -> TaskStatus | None:
    """The status of a task; None while it is uncertain."""
    task_id = query.task_id.value
    if task_id in framework.tasks:
        return _known_status(state, framework.tasks[task_id])
    agent_id = query.agent_id.value if query.agent_id is not None else None
    if _is_uncertain(state, agent_id):
        return None
    lost = framework.unreachable.get(task_id)
    if lost is not None and agent_id in {None, lost.agent_id}:
        cause = Cause("TASK_UNREACHABLE", REASON, "Reconciliation: Task is unreachable")
        return generate_status(
            state,
            task_id,
            cause.as_seen_by(framework),
            lost.agent_id,
            lost.unreachable_at or 0.0,
        )
    cause, unreachable_at = _unknown_task(state, agent_id)
    return generate_status(state, task_id, cause.as_seen_by(framework), agent_id, unreachable_at)


def _known_status(state: State, task: Task) -> TaskStatus:
    cause = Cause(task.update_state or task.state, REASON, "Reconciliation: Latest task state")
    status = generate_status(state, task.id, cause, task.agent_id)
    if not task.statuses:
        return status
    last = task.statuses[-1]
    return msgspec.structs.replace(
        status, container_status=last.container_status, healthy=last.healthy
    )


def _is_uncertain(state: State, agent_id: str | None) -> bool:
    if agent_id is None:
        return bool(state.recovered)
    return agent_id in state.recovered or agent_id in state.in_flight


def _unknown_task(state: State, agent_id: str | None) -> tuple[Cause, float | None]:
    """The cause for a task of which the master has no record, and since when it is unreachable."""
    if agent_id is not None:
        if agent_id in state.agents:
            return Cause("TASK_GONE", REASON, "Reconciliation: Task is unknown to the agent"), None
        if state.is_unreachable(agent_id):
            record = state.record(agent_id)
            since = record.since if record is not None else 0.0
            return Cause("TASK_UNREACHABLE", REASON, "Reconciliation: Task is unreachable"), since
        if state.is_gone(agent_id):
            return Cause("TASK_GONE_BY_OPERATOR", REASON, "Reconciliation: Task is gone"), None
    return Cause("TASK_UNKNOWN", REASON, "Reconciliation: Task is unknown"), None
