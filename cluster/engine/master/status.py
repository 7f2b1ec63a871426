"""Task statuses that the master itself makes. They carry no uuid: nobody acknowledges or retries them."""

from __future__ import annotations

from typing import Any

from mesaform.engine.master.state import Framework, State, Task
from mesaform.mesos.messages import TERMINAL_STATES, TaskStatus, ident


def master_generated_status(
    state: State,
    task_id: str,
    task_state: str,
    reason: str,
    message: str,
    agent_id: str | None = None,
    **more: Any,
) -> TaskStatus:
    return TaskStatus(
        task_id=ident(task_id),
        state=task_state,
        message=message,
        source="SOURCE_MASTER",
        reason=reason,
        agent_id=ident(agent_id) if agent_id else None,
        timestamp=state.now,
        **more,
    )


def state_as_seen_by(framework: Framework, state: str) -> str:
    """The state as the framework can understand it: one that is not partition-aware knows only TASK_LOST."""
    return state if framework.partition_aware else "TASK_LOST"


def send_status(state: State, framework: Framework, status: TaskStatus) -> None:
    state.send(framework, {"type": "UPDATE", "update": {"status": status}})


def count_state(state: State, framework: Framework, status: TaskStatus) -> None:
    """Terminal states are counted for ever, by state and for the master's own by reason."""
    short = status.state.lower()
    if status.state not in TERMINAL_STATES:
        return
    state.counters["tasks_" + short.removeprefix("task_")] += 1
    framework.counters[f"tasks/terminal/{short}"] += 1
    if status.source and status.reason:
        state.counters[f"{short}/{status.source.lower()}/{status.reason.lower()}"] += 1


def refuse_task(
    state: State,
    framework: Framework,
    task_id: str,
    agent_id: str,
    task_state: str,
    reason: str,
    message: str,
) -> None:
    """Answer a task that never started."""
    status = master_generated_status(state, task_id, task_state, reason, message, agent_id)
    count_state(state, framework, status)
    send_status(state, framework, status)


def unreachable_time(task: Task) -> dict[str, Any]:
    return {"unreachable_time": {"nanoseconds": int((task.unreachable_at or 0.0) * 1e9)}}
