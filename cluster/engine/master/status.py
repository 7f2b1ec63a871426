"""Task statuses that the master generates. They have no uuid, so they are not acknowledged."""

from __future__ import annotations

from dataclasses import dataclass

from mesaform.engine.master.state import Framework, State
from mesaform.mesos.messages import TERMINAL_STATES, TaskStatus, TimeInfo, ident


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the master sets a task's state: a TaskState, a TaskStatus.Reason, and a text."""

    state: str
    reason: str
    message: str

    def as_seen_by(self, framework: Framework) -> Cause:
        """The cause with the state that the framework understands."""
        return Cause(state_as_seen_by(framework, self.state), self.reason, self.message)


def generate_status(
    state: State,
    task_id: str,
    cause: Cause,
    agent_id: str | None = None,
    unreachable_at: float | None = None,
) -> TaskStatus:
    """A status from SOURCE_MASTER. `unreachable_at` is in seconds since the epoch."""
    return TaskStatus(
        task_id=ident(task_id),
        state=cause.state,
        message=cause.message,
        source="SOURCE_MASTER",
        reason=cause.reason,
        agent_id=ident(agent_id) if agent_id else None,
        timestamp=state.now,
        unreachable_time=None if unreachable_at is None else _time_info(unreachable_at),
    )


def _time_info(seconds: float) -> TimeInfo:
    return TimeInfo(nanoseconds=int(seconds * 1e9))


def state_as_seen_by(framework: Framework, task_state: str) -> str:
    """The state as the framework understands it: TASK_LOST when it is not partition-aware."""
    return task_state if framework.is_partition_aware else "TASK_LOST"


def send_status(state: State, framework: Framework, status: TaskStatus) -> None:
    """Send a status to the framework's scheduler."""
    state.send_event(framework, "UPDATE", {"status": status})


def count_state(state: State, framework: Framework, status: TaskStatus) -> None:
    """Count a terminal state, and the reason of one that has a source."""
    if status.state not in TERMINAL_STATES:
        return
    name = status.state.lower()
    state.counters["tasks_" + name.removeprefix("task_")] += 1
    framework.counters[f"tasks/terminal/{name}"] += 1
    if status.source and status.reason:
        state.counters[f"{name}/{status.source.lower()}/{status.reason.lower()}"] += 1


def refuse_task(
    state: State, framework: Framework, task_id: str, agent_id: str, cause: Cause
) -> None:
    """Send and count the status of a task that was not started."""
    status = generate_status(state, task_id, cause, agent_id)
    count_state(state, framework, status)
    send_status(state, framework, status)
